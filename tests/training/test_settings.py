from pathlib import Path

import pytest
from pydantic import ValidationError

from export.settings import ExportSettings
from training.settings import TrainingSettings


def test_everything_is_kept_under_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_STATE_DIR", "/srv/state")
    settings = TrainingSettings()
    assert settings.output == Path("/srv/state/checkpoints/digits.ckpt")
    assert settings.tracking_uri == "sqlite:////srv/state/mlflow.db"


def test_environment_sets_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TRAINING_SEED", "3")
    monkeypatch.setenv("TIDEGATE_TRAINING_WIDTHS", "[8, 16]")
    settings = TrainingSettings()
    assert (settings.seed, settings.widths) == (3, (8, 16))


def test_settings_are_bounded() -> None:
    with pytest.raises(ValidationError, match="max_epochs"):
        TrainingSettings(max_epochs=0)


def test_training_and_export_record_in_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_STATE_DIR", "/srv/state")
    assert TrainingSettings().tracking_uri == ExportSettings().tracking_uri
    monkeypatch.setenv("TIDEGATE_TRACKING_URI", "http://mlflow:5000")
    assert TrainingSettings().tracking_uri == ExportSettings().tracking_uri == "http://mlflow:5000"


def test_alias_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TRAINING_REGISTER_ALIAS", "champion")
    with pytest.raises(ValidationError, match="TIDEGATE_TRAINING_REGISTER_AS"):
        TrainingSettings()
