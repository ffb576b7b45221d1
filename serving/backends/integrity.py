"""Refuses a version whose files are not the ones its manifest records."""

from collections.abc import Mapping
from pathlib import Path

from contract.errors import ManifestInvalid
from contract.manifest import Artifact, Manifest
from contract.repository import MANIFEST


def check_version(args: Mapping[str, str]) -> None:
    """Compare the files of a version with its manifest; a version that has none was not exported here, and passes.

    Where the folders of the two models of a card lie side by side, as on a disk, a version is held to the files of both,
    so that neither is served without the other. From a bucket Triton fetches each model to a place of its own.

    Args:
        args: As Triton passes to `initialize`.

    Raises:
        ManifestInvalid: The message names the file; Triton says it as the reason why the version is not served.
    """
    model = Path(args["model_repository"])
    path = model / args["model_version"] / MANIFEST
    if not path.is_file():
        return
    manifest = Manifest.read(path)
    for name, expected in manifest.artifacts.items():
        owner, inside = name.split("/", 1)
        directory = model if owner == args["model_name"] else model.with_name(owner)
        if directory.is_dir():
            _check(name, directory / inside, expected)


def _check(name: str, path: Path, expected: Artifact) -> None:
    if not path.is_file():
        raise ManifestInvalid(f"{name}: listed in the manifest, but missing")
    actual = Artifact.of(path)
    if actual != expected:
        raise ManifestInvalid(f"{name}: SHA-256 is {actual.sha256}, the manifest says {expected.sha256}")
