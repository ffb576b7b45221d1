"""What an export is told of its surroundings, from the environment; what it is to do is said in its options."""

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _default_tracking_uri(data: dict[str, Any]) -> str:
    return f"sqlite:///{data['state_dir']}/mlflow.db"


class ExportSettings(BaseSettings):
    """Settings of one export; `TIDEGATE_EXPORT_MAX_SOURCE_BYTES` and so on in the environment.

    Attributes:
        state_dir: Where what is not the repository's is kept; TIDEGATE_STATE_DIR.
        tracking_uri: MLflow's server or store; TIDEGATE_TRACKING_URI.
        max_source_bytes: A checkpoint elsewhere that is larger is not downloaded.
    """

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_EXPORT_", frozen=True, extra="forbid", populate_by_name=True)

    state_dir: Path = Field(default=Path(".tidegate"), validation_alias="TIDEGATE_STATE_DIR")
    tracking_uri: str = Field(default_factory=_default_tracking_uri, validation_alias="TIDEGATE_TRACKING_URI")
    max_source_bytes: int = Field(default=8 << 30, ge=1)
