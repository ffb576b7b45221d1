import socket
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from export.settings import ExportSettings
from export.sources.remote import fetch
from training.classifier import ImageClassifier
from training.digits import DigitsDataModule, digits
from training.errors import TrackingFailed
from training.run import Epoch, train_digits
from training.settings import TrainingSettings


def test_short_run_is_recorded_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDEGATE_STATE_DIR", raising=False)
    epochs: list[Epoch] = []
    settings = TrainingSettings(max_epochs=2, widths=(4, 8), accelerator="cpu")
    result = train_digits(settings, epochs.append)

    assert capfd.readouterr() == ("", "")
    assert [(epoch.number, epoch.of) for epoch in epochs] == [(1, 2), (2, 2)]
    assert [path.name for path in tmp_path.iterdir()] == [".tidegate"]
    assert [path.name for path in result.checkpoint.parent.iterdir()] == ["digits.ckpt"]

    content = torch.load(result.checkpoint, weights_only=True)
    assert content["run_id"] == result.run_id
    assert "optimizer_states" not in content
    ImageClassifier.from_checkpoint(content)

    client = MlflowClient(f"sqlite:///{tmp_path}/.tidegate/mlflow.db")
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert {"seed", "max_epochs", "learning_rate", "batch_size", "widths"} <= set(run.data.params)
    assert run.data.metrics["test_accuracy"] == result.test_accuracy
    assert len(client.get_metric_history(result.run_id, "validation_loss")) == 2
    assert run.info.artifact_uri.startswith((tmp_path / ".tidegate").as_uri())
    artifact = Path(client.download_artifacts(result.run_id, "digits.ckpt", str(tmp_path)))
    assert artifact.read_bytes() == result.checkpoint.read_bytes()


def test_full_run_reaches_98_percent(tmp_path: Path) -> None:
    settings = TrainingSettings(state_dir=tmp_path, accelerator="cpu")
    assert train_digits(settings, lambda epoch: None).test_accuracy >= 0.98


def test_registered_checkpoint_is_fetched_by_its_alias(tracking_uri: str, tmp_path: Path) -> None:
    settings = TrainingSettings(
        state_dir=tmp_path,
        tracking_uri=tracking_uri,
        max_epochs=1,
        widths=(4,),
        accelerator="cpu",
        register_as="trained",
        register_alias="champion",
    )
    client = MlflowClient(tracking_uri)
    for version in ("1", "2"):
        result = train_digits(settings, lambda epoch: None)
        assert result.registered == f"mlflow:models:/trained/{version}"
        found = client.get_model_version_by_alias("trained", "champion")
        assert (found.version, found.run_id) == (version, result.run_id)
    fetched = fetch("mlflow:models:/trained@champion", tmp_path / "fetched", ExportSettings(tracking_uri=tracking_uri))
    assert fetched.path.read_bytes() == result.checkpoint.read_bytes()
    assert fetched.run_id == result.run_id


def test_mlflow_that_is_away_stops_the_run_before_it_trains(tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        settings = TrainingSettings(state_dir=tmp_path, tracking_uri=f"http://me:secret@{address}", accelerator="cpu")
        with pytest.raises(TrackingFailed, match=f"MLflow at {address}: the server does not answer"):
            train_digits(settings, epochs.append)
    assert epochs == []


def test_images_come_from_a_file(tmp_path: Path) -> None:
    few = digits().split(0.5, seed=1)[0]
    few.save(tmp_path / "few.npz")
    settings = TrainingSettings(
        state_dir=tmp_path, data=tmp_path / "few.npz", max_epochs=2, widths=(4,), accelerator="cpu"
    )
    content = torch.load(train_digits(settings, lambda epoch: None).checkpoint, weights_only=True)
    assert content["card"]["preprocessing"] == DigitsDataModule(64, 0.1, 0, few).card.preprocessing.model_dump(
        mode="json"
    )
