"""A model repository on this machine."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from contract.card import ENCODED_SUFFIX
from contract.manifest import Artifact
from contract.repository import MANIFEST, ModelRepository
from export import durable
from export.errors import RepositoryFailed
from export.store import VersionFiles

# Each attempt that is lost is another export that won.
_MAX_ATTEMPTS = 32


class LocalStore:
    """Versions are staged beside their places and renamed into them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._repository = ModelRepository(root)

    @property
    def location(self) -> str:
        """The directory."""
        return str(self._root)

    def directories(self, path: str = "") -> tuple[str, ...]:
        """The names of the folders in a folder, sorted, less hidden ones."""
        directory = self._root / path
        with self._failing():
            if not directory.is_dir():
                return ()
            return tuple(sorted(p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith(".")))

    def read(self, path: str) -> bytes | None:
        """A file's bytes."""
        with self._failing():
            try:
                return (self._root / path).read_bytes()
            except FileNotFoundError:
                return None

    def digest(self, path: str) -> Artifact | None:
        """A file's digest."""
        with self._failing():
            try:
                return Artifact.of(self._root / path)
            except FileNotFoundError:
                return None

    def replace(self, path: str, data: bytes) -> None:
        """Write beside the file and rename."""
        place = self._root / path
        with self._failing():
            place.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(place, data)

    def remove(self, path: str) -> None:
        """Remove a file."""
        with self._failing():
            (self._root / path).unlink(missing_ok=True)

    def add_version(self, files: VersionFiles, manifest: Callable[[int], bytes]) -> int:
        """Stage a version and rename it into place.

        `NAME_encoded/<v>` is renamed first: it claims the number, and an export that finds it taken tries the next. The
        rename of `NAME/<v>` is the last step.
        """
        name, encoded_name = files.name, files.encoded_name
        staged, encoded_staged = (self._root / each / f".staging-{uuid4().hex}" for each in (name, encoded_name))
        try:
            with self._failing():
                _stage(files.tensors, staged)
                _stage(files.encoded, encoded_staged)
                for _ in range(_MAX_ATTEMPTS):
                    version = self._repository.next_version(name)
                    for directory in (encoded_staged, staged):
                        durable.write(directory / MANIFEST, manifest(version))
                        durable.sync_directory(directory)
                    if _claim(encoded_staged, self._repository.version_dir(encoded_name, version)):
                        staged.rename(self._repository.version_dir(name, version))
                        durable.sync_directory(self._root / name)
                        return version
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            shutil.rmtree(encoded_staged, ignore_errors=True)
        raise RepositoryFailed(f"{self._root / name}: too many exports at once; try again")

    def remove_version(self, name: str, version: int) -> None:
        """Rename the version away, then remove its files."""
        with self._failing():
            for model in (name, name + ENCODED_SUFFIX):
                directory = self._repository.version_dir(model, version)
                if directory.is_dir():
                    removed = directory.rename(directory.with_name(f".removed-{uuid4().hex}"))
                    durable.sync_directory(directory.parent)
                    shutil.rmtree(removed)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock on the model's folder, which ends with the process."""
        with self._failing():
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self._failing():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RepositoryFailed(f"{error.filename or self._root}: {error.strerror}") from error


def _stage(files: Mapping[str, Path], directory: Path) -> None:
    directory.mkdir(parents=True)
    for filename, path in files.items():
        durable.copy(path, directory / filename)


def _claim(staged: Path, place: Path) -> bool:
    try:
        staged.rename(place)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    durable.sync_directory(place.parent)
    return True
