"""The model card: what training knows of a model and serving needs, written once, into the checkpoint."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from contract.tensors import ENCODED, ERROR, IMAGES, SCORES, DataType, TensorSpec

ENCODED_SUFFIX = "_encoded"

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[^\r\n]+$", max_length=256)]
Channels = tuple[float, float, float]

_FORMER_BOUNDS = ("max_queue_size", "default_timeout_us")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(_Frozen):
    """How a decoded photograph becomes a model's input.

    Attributes:
        height: Rows of the input, pixels.
        width: Columns of the input, pixels.
        shorter_side: The photograph is scaled until its shorter side has this many pixels, then cut to height × width
            around its centre. None: it is stretched to height × width.
        interpolation: The filter of the scaling, antialiased as Pillow does it.
        mean: Subtracted from each of R, G and B after scaling to 0..1. Folded into the exported model.
        std: Divides what is left. Folded into the exported model.
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    shorter_side: int | None = Field(default=None, ge=1, le=8192)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.shorter_side is not None and self.shorter_side < max(self.height, self.width):
            raise ValueError(
                f"shorter_side {self.shorter_side} is less than the {self.height}×{self.width} cut from it"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be positive")
        return self


class Batching(_Frozen):
    """How requests are gathered into batches.

    How many may wait, and how long, the gateway decides. A bound on the wait has Triton 2.51 stall for half a second at a time:
    docs/decisions/0014-no-queue-policy.md.

    Attributes:
        max_batch_size: Images the model takes at once.
        max_queue_delay_us: A batch that is not full waits this long for more. With none a lone request is answered at once, and
            batches are gathered while the instances are busy.
    """

    max_batch_size: int = Field(default=32, ge=1, le=1024)
    max_queue_delay_us: int = Field(default=0, ge=0, le=1_000_000)

    @model_validator(mode="before")
    @classmethod
    def _without_bounds(cls, fields: Any) -> Any:
        """Without the bounds that checkpoints and manifests of before have."""
        if not isinstance(fields, Mapping):
            return fields
        return {name: value for name, value in fields.items() if name not in _FORMER_BOUNDS}


class ImageLimits(_Frozen):
    """What an encoded photograph may be; checked before it is decoded.

    Attributes:
        max_bytes: Size of the file.
        max_pixels: Width × height of the picture.
        max_frames: Pictures in the file, of which the first is taken.
        max_scans: Passes of a progressive JPEG over the picture; cameras and web sites make about ten.
        truncated: Whether a JPEG or PNG that lacks its end is refused, or served with what it lacks grey or black.
    """

    max_bytes: int = Field(default=20_000_000, ge=1)
    max_pixels: int = Field(default=50_000_000, ge=1)
    max_frames: int = Field(default=1_000, ge=1)
    max_scans: int = Field(default=100, ge=1)
    truncated: Literal["refuse", "serve"] = "refuse"


class Card(_Frozen):
    """An image classifier's card: the single source of its configs, preprocessing, labels and warm-up.

    Attributes:
        labels: A label per class, in the order of the scores.
        cache_responses: Equal requests may be answered from the gateway's cache.
    """

    name: ModelName
    description: str = Field(default="", max_length=2_000)
    labels: tuple[Label, ...] = Field(min_length=1, max_length=100_000)
    preprocessing: Preprocessing
    batching: Batching = Batching()
    image_limits: ImageLimits = ImageLimits()
    cache_responses: bool = False

    @model_validator(mode="after")
    def _name_is_free(self) -> Self:
        if self.name.endswith(ENCODED_SUFFIX):
            raise ValueError(
                f"name {self.name!r} must not end in {ENCODED_SUFFIX!r}, which names the model of photographs"
            )
        return self

    @property
    def encoded_name(self) -> str:
        """The model that takes photographs in place of tensors."""
        return self.name + ENCODED_SUFFIX

    @property
    def images(self) -> TensorSpec:
        """RGB, 0..255, (H, W, 3)."""
        return TensorSpec(IMAGES, DataType.UINT8, (self.preprocessing.height, self.preprocessing.width, 3))

    @property
    def scores(self) -> TensorSpec:
        """Logits, (K,)."""
        return TensorSpec(SCORES, DataType.FP32, (len(self.labels),))

    @property
    def encoded(self) -> TensorSpec:
        """A JPEG, PNG or WebP file, (1,)."""
        return TensorSpec(ENCODED, DataType.BYTES, (1,))

    @property
    def error(self) -> TensorSpec:
        """Why an image was not served, (1,); empty where it was."""
        return TensorSpec(ERROR, DataType.BYTES, (1,))
