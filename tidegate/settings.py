"""The settings of `tidegate up`: the gateway's, and those of what it starts."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from gateway.settings import GatewaySettings
from serving.settings import TritonSettings
from tidegate.errors import bad_settings

_DEMO = Path(__file__).parent.parent / "model_repository"


def _default_repository() -> str:
    here = Path("model_repository")
    return str(_DEMO if _DEMO.is_dir() and not here.is_dir() else here)


class UpSettings(GatewaySettings):
    """All of it.

    Attributes:
        model_repository: Any Triton repository: a directory, or an s3:// address. By default `model_repository` in the
            working directory, and where there is none the demo that comes with the package.
        workers: Gateway processes.
        triton: How the embedded Triton is run.
    """

    model_repository: str = Field(default_factory=_default_repository)
    workers: int = Field(default_factory=lambda: min(4, max(1, (os.cpu_count() or 1) // 2)), ge=1, le=256)
    triton: TritonSettings = TritonSettings()

    @model_validator(mode="after")
    def _repository_is_there(self) -> Self:
        if "://" not in self.model_repository and not Path(self.model_repository).is_dir():
            raise ValueError(
                f"model_repository: {self.model_repository!r} is not a directory; set TIDEGATE_MODEL_REPOSITORY"
            )
        return self


def up_settings() -> UpSettings:
    """From the environment.

    Raises:
        BadInput: A variable is wrong; the message names it.
    """
    try:
        return UpSettings()
    except ValidationError as error:
        raise bad_settings(error) from error


def gateway_settings() -> GatewaySettings:
    """From the environment.

    Raises:
        BadInput: A variable is wrong; the message names it.
    """
    try:
        return GatewaySettings()
    except ValidationError as error:
        raise bad_settings(error) from error


def inherited_environment() -> dict[str, str]:
    """What a process started from here gets of this one's environment."""
    return dict(os.environ)
