"""A model repository that versions are put into, on this machine or in a bucket."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contract.card import ENCODED_SUFFIX
from contract.manifest import Artifact


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """What a version consists of, less its manifest.

    Attributes:
        name: The model of tensors; the model of photographs has the same name with `_encoded` behind it.
        tensors: Where the files of NAME lie now, by their names in the version.
        encoded: The same for NAME_encoded.
    """

    name: str
    tensors: Mapping[str, Path]
    encoded: Mapping[str, Path]

    @property
    def encoded_name(self) -> str:
        """The model of photographs."""
        return self.name + ENCODED_SUFFIX


class Store(Protocol):
    """A repository. Paths in it are relative and have slashes; a version exists when `NAME/<v>/manifest.json` does.

    Every method raises RepositoryFailed where the repository cannot be read or written.
    """

    @property
    def location(self) -> str:
        """As Triton takes it for its --model-repository."""

    def directories(self, path: str = "") -> tuple[str, ...]:
        """The names of the folders in a folder, sorted; none where it is absent."""

    def read(self, path: str) -> bytes | None:
        """A file's bytes; None where it is absent."""

    def digest(self, path: str) -> Artifact | None:
        """A file's digest, without holding the file in memory; None where it is absent."""

    def replace(self, path: str, data: bytes) -> None:
        """Put a file in the place of another in one step, so that a reader sees the old or the new."""

    def remove(self, path: str) -> None:
        """Remove a file, which may be absent."""

    def add_version(self, files: VersionFiles, manifest: Callable[[int], bytes]) -> int:
        """Put the files in place as the next version of both models, the manifest of NAME last.

        Exports at the same time get different numbers.

        Args:
            manifest: Gives the text for the number that was claimed.
        """

    def remove_version(self, name: str, version: int) -> None:
        """Remove a version of both models; the manifest goes first, and the version with it."""

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Keep others from changing a model's config, where the repository has locks."""
