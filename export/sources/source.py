"""What every source, local or remote, hands to the export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from contract.card import Card
from contract.manifest import Source


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A checkpoint on this disk, and where it came from.

    Attributes:
        uri: What the manifest records; it says nothing of the machine and holds no secret.
        sha256: Of the file, 64 lower-case hexadecimal digits.
        run_id: MLflow's, where the source knows it.
    """

    path: Path
    uri: str
    sha256: str
    run_id: str | None = None


class Fetch(Protocol):
    """Brings a checkpoint that is elsewhere."""

    def __call__(self, source: str, directory: Path, /) -> SourceFile:
        """Put the file into `directory`.

        Raises:
            SourceFailed: There is none, or it cannot be had.
        """


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model to export.

    Attributes:
        network: Normalised images (N, 3, H, W) to logits (N, K); in evaluation mode, on the CPU.
        trained: False: the weights are random, as for a benchmark.
        data_set: The name of the images it was trained on, where its checkpoint tells; it may be one of ours.
    """

    network: nn.Module
    card: Card
    source: Source
    trained: bool = True
    data_set: str = ""
