"""Where things lie in a Triton model repository on disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.card import ENCODED_SUFFIX
from contract.errors import RepositoryInvalid

CONFIG = "config.pbtxt"
LABELS = "labels.txt"
MANIFEST = "manifest.json"
PREPROCESSING = "preprocessing.json"


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """A directory in which each folder is a model and each numbered folder in it a version."""

    root: Path

    def model_names(self) -> tuple[str, ...]:
        """The models, sorted; what Triton would read as one.

        Raises:
            RepositoryInvalid: The root is not a directory.
        """
        if not self.root.is_dir():
            raise RepositoryInvalid(f"{self.root}: no such model repository")
        return tuple(sorted(p.name for p in self.root.iterdir() if p.is_dir() and not p.name.startswith(".")))

    def versions(self, model: str) -> tuple[int, ...]:
        """The versions of a model, ascending; none where the model is absent."""
        return tuple(sorted(self._versions(model)))

    def _versions(self, model: str) -> Iterator[int]:
        directory = self.root / model
        if directory.is_dir():
            for path in directory.iterdir():
                if path.is_dir() and path.name.isascii() and path.name.isdigit() and not path.name.startswith("0"):
                    yield int(path.name)

    def next_version(self, model: str) -> int:
        """One more than the highest version of the model or its `_encoded` twin."""
        return max((*self._versions(model), *self._versions(model + ENCODED_SUFFIX)), default=0) + 1

    def version_dir(self, model: str, version: int) -> Path:
        """The directory of a version; it may not exist."""
        return self.root / model / str(version)

    def config(self, model: str, variant: str | None = None) -> Path:
        """The model's `config.pbtxt`, or the one Triton's `--model-config-name` picks."""
        directory = self.root / model
        return directory / "configs" / f"{variant}.pbtxt" if variant else directory / CONFIG

    def labels(self, model: str) -> Path:
        """One label a line, in the order of the scores."""
        return self.root / model / LABELS

    def manifest(self, model: str, version: int) -> Path:
        """The manifest of a version that was exported; foreign models have none."""
        return self.version_dir(model, version) / MANIFEST
