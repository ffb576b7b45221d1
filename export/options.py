"""What an export is asked for: on the command line, or in a tidegate.yaml."""

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from contract.card import Channels, ModelName
from contract.formats import Format, Target
from export.errors import OptionsInvalid

CONFIG = Path("tidegate.yaml")
DEFAULT_FORMATS = (Format.TORCHSCRIPT, Format.ONNX, Format.OPENVINO)


def _split(separator: str) -> BeforeValidator:
    return BeforeValidator(lambda value: value.split(separator) if isinstance(value, str) else value)


ImportPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Shape = Annotated[tuple[int, int, int], _split("x")]
ChannelsText = Annotated[Channels, _split(",")]
Formats = Annotated[tuple[Format, ...], _split(","), Field(min_length=1)]


class ExportOptions(BaseModel):
    """One export. Paths are relative to the working directory.

    Attributes:
        source: A checkpoint, `torchvision:NAME?seed=0`, `s3://…` or `mlflow:models:/…`.
        name: The model's; None: its card's.
        module: `package.mod:Class`, whose weights the checkpoint holds; None: Tidegate's own.
        input: Channels, rows and columns, for example 3x224x224.
        mean: Of the channels, 0..1.
        std: Of the channels, 0..1.
        labels: A file with one label a line.
        max_batch_size: Of the card.
        formats: What to make.
        int8: Make OpenVINO in 8 bits too.
        target: What `config.pbtxt` is for.
        serve: What `config.pbtxt` serves; None: the fastest that holds its gate.
        calibration: A directory of photographs, for INT8 and to verify on; in folders named by their labels, or not.
        publish: The repository.
        measure_s: Seconds for each candidate at each batch size; 0: nothing is measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    name: ModelName | None = None
    module: ImportPath | None = None
    input: Shape | None = None
    mean: ChannelsText | None = None
    std: ChannelsText | None = None
    labels: Path | None = None
    max_batch_size: int | None = Field(default=None, ge=1, le=1024)
    formats: Formats = DEFAULT_FORMATS
    int8: bool = False
    target: Target = Target.CPU
    serve: Format | None = None
    calibration: Path | None = None
    publish: str = "model_repository"
    measure_s: float = Field(default=1.0, ge=0, le=2)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.input is not None and (self.input[0] != 3 or min(self.input) < 1):
            raise ValueError("input: three channels, rows and columns are wanted, for example 3x224x224")
        if self.int8 and Format.OPENVINO not in self.formats:
            raise ValueError("int8: it is made from OpenVINO, which the formats leave out")
        wanted = Format.ONNX if self.target is Target.GPU and self.serve is None else self.serve
        if wanted is not None and wanted not in self.formats:
            raise ValueError(f"formats: they leave out {wanted}, which config.pbtxt would serve")
        return self

    @classmethod
    def of(cls, fields: dict[str, Any], origin: str = "") -> Self:
        """Check the fields.

        Args:
            origin: The file they are from, for the message; empty: the command line.

        Raises:
            OptionsInvalid: A field is unknown or wrong; the message names it.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = [origin, str(first["loc"][0])] if first["loc"] else [origin]
            message = first["msg"].removeprefix("Value error, ")
            raise OptionsInvalid(": ".join([*filter(None, where), message])) from error


def read_config(path: Path) -> dict[str, Any]:
    """The fields of a tidegate.yaml, unchecked.

    Raises:
        OptionsInvalid: It cannot be read, is not YAML, or holds no fields.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise OptionsInvalid(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise OptionsInvalid(f"{path}{place}: not YAML: {getattr(error, 'problem', None) or 'unreadable'}") from error
    if not isinstance(content, dict):
        raise OptionsInvalid(f"{path}: fields are wanted, such as `source: model.ckpt`")
    return {str(key): value for key, value in content.items()}
