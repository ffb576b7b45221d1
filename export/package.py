"""Makes an exported model the next version of both of its Triton models."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from contract.card import Card
from contract.errors import ManifestInvalid
from contract.manifest import Artifact, Manifest
from contract.repository import PREPROCESSING
from export.errors import PublishFailed
from export.golden import GOLDEN
from export.locations import open_store
from export.store import VersionFiles
from export.versions import Versions


def publish(destination: str | Path, draft: Manifest, files: Path) -> Manifest:
    """Put a version into a repository and name it in the configs of both models.

    The version is complete before a config names it, and Triton loads none that is not named: whoever reads the
    repository at any moment, or after a crash at any moment, finds whole versions. The version that was live stays named
    beside the new one.

    Args:
        destination: A directory, which may not exist yet, or an s3:// address.
        draft: The manifest, whose version and artifacts are filled in here.
        files: The directory with the files of each of the draft's formats, and with the golden images where there are
            some.

    Returns:
        The manifest as published.

    Raises:
        PublishFailed: The name belongs to another model, or a file of a format is missing.
        RepositoryFailed: The repository cannot be read or written, or no number could be claimed.
    """
    versions = Versions(open_store(destination), draft.card.name)
    _refuse_other_model(versions, draft.card)
    with TemporaryDirectory() as scratch:
        contents = _contents(draft, files, Path(scratch))
        artifacts = _artifacts(contents)

        def numbered(version: int) -> Manifest:
            paths = {path.format(version=version): artifact for path, artifact in artifacts.items()}
            return draft.model_copy(update={"version": version, "artifacts": paths})

        versions.reserve(draft)
        version = versions.store.add_version(contents, lambda version: numbered(version).to_json().encode())
    versions.add(version)
    return numbered(version)


def _refuse_other_model(versions: Versions, card: Card) -> None:
    """The versions of a model share its config and labels, so that a version must fit those before it."""
    place = f"{versions.store.location}/{card.name}"
    newest = versions.newest
    if newest is None:
        if versions.served:
            raise PublishFailed(f"{place}: not a model of ours; choose another name")
        return
    try:
        published = versions.manifest(newest).card
    except ManifestInvalid as error:
        raise PublishFailed(f"{error}; remove the version, or choose another name") from error
    if (published.labels, published.images) != (card.labels, card.images):
        raise PublishFailed(f"{place}: version {newest} has other labels or another input size; choose another name")


def _contents(draft: Manifest, files: Path, scratch: Path) -> VersionFiles:
    preprocessing = scratch / PREPROCESSING
    preprocessing.write_text(draft.card.preprocessing.model_dump_json(indent=2) + "\n")
    tensors = {filename: files / filename for format_ in draft.formats for filename in format_.filenames}
    if (files / GOLDEN).is_file():
        tensors[GOLDEN] = files / GOLDEN
    return VersionFiles(draft.card.name, tensors, {PREPROCESSING: preprocessing})


def _artifacts(contents: VersionFiles) -> Mapping[str, Artifact]:
    """The digests, by path with {version} for the number."""
    try:
        return {
            f"{name}/{{version}}/{filename}": Artifact.of(path)
            for name, found in ((contents.name, contents.tensors), (contents.encoded_name, contents.encoded))
            for filename, path in found.items()
        }
    except OSError as error:
        raise PublishFailed(f"{error.filename}: {error.strerror}") from error
