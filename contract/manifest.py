"""The manifest of a version: what it was made from, with what, how exact it is, and the digest of each file."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from contract.card import Card
from contract.errors import ManifestInvalid
from contract.formats import Candidate, Format, Target
from contract.tuning import Tuning

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """Where a version comes from."""

    uri: str
    sha256: Sha256
    run_id: str | None = None


class Artifact(_Frozen):
    """One file of a version."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)

    @classmethod
    def of(cls, path: Path) -> Self:
        """Digest the file at `path`."""
        with path.open("rb") as file:
            return cls(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size_bytes=path.stat().st_size)


class Verification(_Frozen):
    """How a candidate compares with the eager model on the same images.

    Attributes:
        batch_sizes: The batches it was run at.
        images: How many images were compared.
        max_abs_error: Largest difference of a logit.
        mean_abs_error: Mean difference of a logit.
        relative_error: The differences' root mean square, over that of the eager logits around their mean for each image.
        top1_agreement: Share of the images with the same best label, 0..1.
        accuracy: Share of the images whose best label is the true one, 0..1; None where there are no labels.
    """

    batch_sizes: tuple[int, ...]
    images: int = Field(ge=1)
    max_abs_error: float = Field(ge=0)
    mean_abs_error: float = Field(ge=0)
    relative_error: float | None = Field(default=None, ge=0)
    top1_agreement: float = Field(ge=0, le=1)
    accuracy: float | None = Field(default=None, ge=0, le=1)


class SpeedPoint(_Frozen):
    """How fast one batch size is, one batch after another in a single process on all cores.

    Attributes:
        images_per_s: `batch_size` over the median duration of a batch.
        runs: How many batches were timed.
    """

    batch_size: int = Field(ge=1)
    images_per_s: float = Field(gt=0)
    p50_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    runs: int = Field(ge=1)


class Trial(_Frozen):
    """What became of a candidate.

    Attributes:
        verification: None where it could not be made or run.
        speed: By batch size, ascending; empty where it was not measured.
        dropped: Why it is not in the version; None where it is.
    """

    verification: Verification | None = None
    speed: tuple[SpeedPoint, ...] = ()
    dropped: str | None = None

    @property
    def best(self) -> SpeedPoint | None:
        """The batch size with the highest throughput; None where nothing was measured."""
        return max(self.speed, key=lambda point: point.images_per_s, default=None)


class Machine(_Frozen):
    """Where the speed was measured."""

    processor: str
    cores: int = Field(ge=1)


class Tuned(_Frozen):
    """A tuning that beat what the config said before, on one machine.

    Attributes:
        slo: What had to hold, for example p99=80ms.
        load: What was sent.
        figure: What `before` and `after` are; more is better.
        before: One of each repetition, in turns with `after`.
    """

    tuning: Tuning
    slo: str
    load: str
    figure: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    machine: Machine
    tuned_at: datetime


class Calibration(_Frozen):
    """What the ranges of an INT8 model were measured on."""

    images: int = Field(ge=1)
    origin: str


class Manifest(_Frozen):
    """The record of one version of a model.

    Attributes:
        artifacts: By path within the repository, for example `digits/1/model.onnx`. The manifest itself is not listed.
        toolchain: Version by distribution name.
        formats: What the version holds, and how exact it is.
        candidates: All that was tried, the losers too.
        default_format: The format that `config.pbtxt` serves.
        target: The machine that `config.pbtxt` is for.
        choice: Why `default_format` is the one.
        verified_on: Where the images come from that the candidates were compared on.
        test_accuracy: Of the eager model on the held-out images, 0..1; None where there are no labels.
        tuned: How `config.pbtxt` runs NAME and NAME_encoded, where that is not as the card says.
    """

    schema_version: Literal[1] = 1
    model: str
    version: int = Field(ge=1)
    created_at: datetime
    card: Card
    source: Source
    toolchain: dict[str, str]
    formats: dict[Format, Verification]
    candidates: dict[Candidate, Trial] = {}
    default_format: Format
    target: Target = Target.CPU
    choice: str = ""
    verified_on: str = ""
    calibration: Calibration | None = None
    machine: Machine | None = None
    test_accuracy: float | None = Field(default=None, ge=0, le=1)
    artifacts: dict[str, Artifact]
    tuned: dict[str, Tuned] = {}

    @property
    def served(self) -> Candidate | None:
        """The candidate that `config.pbtxt` serves; None where the manifest names no candidates."""
        held = (name for name, trial in self.candidates.items() if trial.dropped is None)
        return next((name for name in held if name.file_format is self.default_format), None)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `manifest.json`.

        Raises:
            ManifestInvalid: It is missing, unreadable, or not a manifest.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ManifestInvalid(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "document"
            raise ManifestInvalid(f"{path}: {field}: {first['msg']}") from error

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return self.model_dump_json(indent=2) + "\n"

    def check(self, repository: Path) -> None:
        """Compare every artifact under `repository` with its digest.

        Raises:
            ManifestInvalid: A file is missing, or its bytes are not the ones recorded.
        """
        for name, expected in self.artifacts.items():
            path = repository / name
            if not path.is_file():
                raise ManifestInvalid(f"{path}: listed in the manifest, but missing")
            actual = Artifact.of(path)
            if actual != expected:
                raise ManifestInvalid(f"{path}: SHA-256 is {actual.sha256}, the manifest says {expected.sha256}")
