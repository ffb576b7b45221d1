"""`tidegate export` from where checkpoints live to where versions are published, over real MLflow and S3 servers."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from contract.manifest import Manifest
from tests.export.conftest import CHECKPOINT
from tests.running import tidegate
from tests.s3 import S3Server


@pytest.fixture
def environment(tmp_path: Path, s3: S3Server, tracking_uri: str) -> dict[str, str]:
    (s3.directory / "road").mkdir(exist_ok=True)
    return {
        "TIDEGATE_STATE_DIR": str(tmp_path / "state"),
        "TIDEGATE_TRACKING_URI": tracking_uri,
        **s3.environment,
    }


def test_a_checkpoint_in_s3_is_exported(tmp_path: Path, s3: S3Server, environment: dict[str, str]) -> None:
    s3.client().upload_file(str(CHECKPOINT), "road", "digits.ckpt")
    repository = tmp_path / "models"
    arguments = ("s3://road/digits.ckpt", "--publish", repository, "--formats", "onnx", "--measure-s", "0")
    exported = tidegate("export", *arguments, environment=environment)
    assert exported.returncode == 0, exported.stderr
    assert "digits version 1 is in" in exported.stdout
    manifest = Manifest.read(repository / "digits" / "1" / "manifest.json")
    manifest.check(repository)
    assert manifest.source.uri == "s3://road/digits.ckpt"


def test_a_registered_model_is_exported_to_s3_and_tagged(
    s3: S3Server, environment: dict[str, str], tracking_uri: str
) -> None:
    client = MlflowClient(tracking_uri)
    run = client.create_run(client.create_experiment("road"))
    client.log_artifact(run.info.run_id, str(CHECKPOINT))
    client.create_registered_model("road-digits")
    registered = client.create_model_version(
        "road-digits", f"{run.info.artifact_uri}/{CHECKPOINT.name}", run.info.run_id
    )
    client.set_registered_model_alias("road-digits", "champion", registered.version)

    arguments = ("--publish", f"s3://{s3.endpoint}/road/models", "--formats", "onnx", "--measure-s", "0")
    exported = tidegate("export", "mlflow:models:/road-digits@champion", *arguments, environment=environment)
    assert exported.returncode == 0, exported.stderr
    manifest = Manifest.read(s3.directory / "road" / "models" / "digits" / "1" / "manifest.json")
    manifest.check(s3.directory / "road" / "models")
    assert manifest.source.run_id == run.info.run_id
    tags = client.get_model_version("road-digits", registered.version).tags
    assert tags["tidegate.repository_version"] == "1"


def test_an_alias_that_is_not_there_is_one_line(environment: dict[str, str]) -> None:
    ended = tidegate("export", "mlflow:models:/road-nothing@champion", environment=environment)
    assert ended.returncode in (1, 2)
    assert "road-nothing" in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
