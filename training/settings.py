"""What a training run is told, from the environment or the command line."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Width = Annotated[int, Field(ge=1, le=2_048)]
# MLflow allows more; these can be written as models:/NAME@ALIAS.
RegistryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


def _default_output(data: dict[str, Any]) -> Path:
    return Path(data["state_dir"]) / "checkpoints" / "digits.ckpt"


def _default_tracking_uri(data: dict[str, Any]) -> str:
    return f"sqlite:///{data['state_dir']}/mlflow.db"


class TrainingSettings(BaseSettings):
    """Settings of one run; `TIDEGATE_TRAINING_SEED` and so on in the environment.

    Attributes:
        state_dir: Where what is not the repository's is kept; TIDEGATE_STATE_DIR.
        output: The checkpoint to write.
        data: An .npz of images and labels that `python -m training.data` wrote; None: scikit-learn's digits.
        tracking_uri: MLflow's server or store; TIDEGATE_TRACKING_URI.
        register_as: The model of MLflow's registry that the checkpoint becomes a version of; None: it is only logged.
        register_alias: The alias that then names this version, and no other.
        max_epochs: The learning rate falls to zero over this many.
        patience: Epochs without a lower validation loss before training stops.
        validation_share: Share of the training images held back to stop early.
        widths: Channels of each stage; a stage halves the resolution of the one before.
    """

    model_config = SettingsConfigDict(
        env_prefix="TIDEGATE_TRAINING_", frozen=True, extra="forbid", populate_by_name=True
    )

    state_dir: Path = Field(default=Path(".tidegate"), validation_alias="TIDEGATE_STATE_DIR")
    output: Path = Field(default_factory=_default_output)
    data: Path | None = None
    tracking_uri: str = Field(default_factory=_default_tracking_uri, validation_alias="TIDEGATE_TRACKING_URI")
    register_as: RegistryName | None = None
    register_alias: RegistryName | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    seed: int = Field(default=0, ge=0, lt=2**32)
    batch_size: int = Field(default=64, ge=2, le=1_024)
    max_epochs: int = Field(default=40, ge=1, le=10_000)
    patience: int = Field(default=10, ge=1, le=10_000)
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    widths: tuple[Width, ...] = Field(default=(16, 32, 64), min_length=1, max_length=5)
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    weight_decay: float = Field(default=1e-2, ge=0, le=1)

    @model_validator(mode="after")
    def _alias_has_a_model(self) -> Self:
        if self.register_alias is not None and self.register_as is None:
            raise ValueError(
                "TIDEGATE_TRAINING_REGISTER_ALIAS names a version of TIDEGATE_TRAINING_REGISTER_AS; set that"
            )
        return self
