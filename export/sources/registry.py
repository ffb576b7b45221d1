"""A checkpoint that MLflow's model registry names."""

import re
from pathlib import Path, PurePosixPath

from mlflow import MlflowClient, artifacts
from mlflow.entities import FileInfo
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from contract.manifest import Artifact
from export.errors import SourceFailed
from export.mlflow_client import connected
from export.sources.source import SourceFile

SCHEME = "mlflow:"
_SUFFIX = ".ckpt"
_MODEL = re.compile(r"mlflow:models:/(?P<name>[^/:@]+)(?:@(?P<alias>[^/:@]+)|/(?P<version>[1-9][0-9]*))")
# What MLflow says of a model or version that is not there, and of an alias.
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


def fetch_registered(uri: str, directory: Path, *, tracking_uri: str, max_bytes: int) -> SourceFile:
    """Download the checkpoint of mlflow:models:/NAME@ALIAS or mlflow:models:/NAME/VERSION.

    Args:
        directory: Where the file goes.
        max_bytes: A larger artifact is refused.

    Returns:
        The file under its version's URI: an alias may name another version tomorrow.

    Raises:
        SourceFailed: There is no such model, version, alias or checkpoint, it is too large, or the server fails.
    """
    with connected(tracking_uri, SourceFailed) as client:
        version = _resolve(client, uri)
        folder, found = _checkpoint(client, version, uri, tracking_uri)
        if found.file_size is not None and found.file_size > max_bytes:
            raise SourceFailed(f"{uri}: {found.file_size} bytes, more than the {max_bytes} a checkpoint may have")
        artifact_uri = f"{folder}/{PurePosixPath(found.path).name}"
        path = Path(artifacts.download_artifacts(artifact_uri, dst_path=str(directory), tracking_uri=tracking_uri))
    return SourceFile(
        path, version_uri(version.name, version.version), Artifact.of(path).sha256, version.run_id or None
    )


def version_uri(name: str, version: str) -> str:
    """How a manifest names a registered version."""
    return f"mlflow:models:/{name}/{version}"


def registered_version(uri: str) -> tuple[str, str] | None:
    """Name and version of what `version_uri` spelled; None: the source is another."""
    match = _MODEL.fullmatch(uri)
    return (match["name"], match["version"]) if match and match["version"] else None


def _resolve(client: MlflowClient, uri: str) -> ModelVersion:
    match = _MODEL.fullmatch(uri)
    if match is None:
        raise SourceFailed(f"{uri}: not mlflow:models:/NAME@ALIAS or mlflow:models:/NAME/VERSION")
    try:
        if match["alias"]:
            return client.get_model_version_by_alias(match["name"], match["alias"])
        return client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        raise SourceFailed(f"{uri}: the registry has no such model, version or alias") from error


def _checkpoint(client: MlflowClient, version: ModelVersion, uri: str, tracking_uri: str) -> tuple[str, FileInfo]:
    """The checkpoint a version points at, or the only one in the folder it points at; and the URI of its folder."""
    location = client.get_model_version_download_uri(version.name, version.version)
    folder, _, name = location.rpartition("/") if location.endswith(_SUFFIX) else (location, "", "")
    listed = artifacts.list_artifacts(folder, tracking_uri=tracking_uri)
    names = [(PurePosixPath(file.path), file) for file in listed]
    found = [file for path, file in names if (path.name == name if name else path.suffix == _SUFFIX)]
    if len(found) != 1:
        raise SourceFailed(f"{uri}: {len(found)} checkpoints (*{_SUFFIX}) at {location}; register the version of one")
    return folder, found[0]
