"""Exports recorded in a real MLflow server, and in a local store."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from contract.formats import Candidate, Format
from contract.manifest import Manifest, Source, SpeedPoint, Trial, Verification
from export.errors import TrackingFailed
from export.tracking import log_export
from tests.export.conftest import CHECKPOINT
from tests.running import REPOSITORY

VERIFICATION = Verification(
    batch_sizes=(1, 32), images=360, max_abs_error=3e-6, mean_abs_error=5e-7, top1_agreement=1.0, accuracy=0.99
)
SPEED = SpeedPoint(batch_size=32, images_per_s=512.5, p50_ms=60.0, p99_ms=75.0, runs=20)
DROPPED = Trial(verification=VERIFICATION.model_copy(update={"max_abs_error": 0.5}), dropped="a score is off by 0.5")


def manifest_of(name: str, uri: str) -> Manifest:
    """The committed digits under another name, from another source, with figures of our own."""
    committed = Manifest.read(REPOSITORY / "digits" / "1" / "manifest.json")
    update = {
        "model": name,
        "version": 7,
        "source": Source(uri=uri, sha256=committed.source.sha256, run_id="0" * 32),
        "formats": {Format.OPENVINO: VERIFICATION},
        "default_format": Format.OPENVINO,
        "candidates": {
            Candidate.ONNX: DROPPED,
            Candidate.OPENVINO: Trial(verification=VERIFICATION, speed=(SPEED,)),
            Candidate.TENSORRT: Trial(dropped="no GPU"),
        },
        "test_accuracy": 0.9972,
    }
    return committed.model_copy(update=update)


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri)


def test_export_is_logged_with_its_figures_and_files(
    client: MlflowClient, tracking_uri: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    report.write_text("<h1>digits 7</h1>")
    manifest = manifest_of("logged", "model.ckpt")
    run = client.get_run(log_export(manifest, report, tracking_uri=tracking_uri))
    assert capfd.readouterr() == ("", "")

    assert (run.info.run_name, run.info.status) == ("export logged 7", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == "logged"
    assert run.data.params == {
        "formats": "openvino",
        "default_format": "openvino",
        "target": "cpu",
        "max_batch_size": "32",
    }
    assert (
        run.data.metrics.items()
        >= {
            "test_accuracy": 0.9972,
            "openvino/max_abs_error": 3e-6,
            "openvino/accuracy": 0.99,
            "openvino/images_per_s/batch_32": 512.5,
            "openvino/p99_ms/batch_32": 75.0,
            "onnx/max_abs_error": 0.5,
        }.items()
    )
    assert not [name for name in run.data.metrics if name.startswith("tensorrt")]
    assert run.data.tags["tidegate.repository_version"] == "7"
    assert run.data.tags["tidegate.training_run_id"] == "0" * 32
    kept = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path / "kept")))
    assert json.loads((kept / "manifest.json").read_text()) == json.loads(manifest.to_json())
    assert (kept / "report.html").read_bytes() == report.read_bytes()


def test_registered_source_is_tagged_with_what_it_became(client: MlflowClient, tracking_uri: str) -> None:
    experiment_id = client.create_experiment("tagged")
    run = client.create_run(experiment_id).info
    client.log_artifact(run.run_id, str(CHECKPOINT))
    client.create_registered_model("tagged")
    for _ in range(2):
        client.create_model_version("tagged", f"{run.artifact_uri}/digits.ckpt", run.run_id)
    run_id = log_export(manifest_of("tagged", "mlflow:models:/tagged/2"), None, tracking_uri=tracking_uri)

    assert client.get_model_version("tagged", "2").tags == {
        "tidegate.model": "tagged",
        "tidegate.repository_version": "7",
        "tidegate.export_run_id": run_id,
    }
    assert client.get_model_version("tagged", "1").tags == {}
    assert client.get_run(run_id).info.experiment_id == experiment_id


def test_failure_is_told_and_the_run_does_not_seem_to_go_on(client: MlflowClient, tracking_uri: str) -> None:
    with pytest.raises(TrackingFailed, match=f"MLflow at {tracking_uri}: .*name=vanished") as caught:
        log_export(manifest_of("failed", "mlflow:models:/vanished/1"), None, tracking_uri=tracking_uri)
    assert "\n" not in str(caught.value)
    experiment = client.get_experiment_by_name("failed")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


def test_local_store_keeps_artifacts_beside_it_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_id = log_export(manifest_of("local", "model.ckpt"), None, tracking_uri="sqlite:///state/mlflow.db")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert (tmp_path / "state" / "mlflow-artifacts" / run_id / "artifacts" / "manifest.json").is_file()
