"""Checkpoints fetched from a real S3 server and a real MLflow registry."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from contract.manifest import Artifact
from export.errors import CheckpointInvalid, SourceFailed
from export.load import load_checkpoint
from export.settings import ExportSettings
from export.sources.remote import fetch
from export.sources.source import SourceFile
from tests.export.conftest import CHECKPOINT
from tests.export.test_load import Change, Poison
from tests.s3 import S3Server

BUCKET = "checkpoints"
SHA256 = Artifact.of(CHECKPOINT).sha256

Register = Callable[[str, Path, str], str]


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> Path:
    """The folder behind s3://checkpoints, with the digits in it."""
    s3.client().create_bucket(Bucket=BUCKET)
    s3.client().upload_file(str(CHECKPOINT), BUCKET, "runs/7/digits.ckpt")
    return s3.directory / BUCKET


@pytest.fixture
def aws(s3: S3Server, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def away() -> Iterator[str]:
    """The address of a server that takes no connection."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def settings(tracking_uri: str) -> ExportSettings:
    return ExportSettings(tracking_uri=tracking_uri)


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri)


@pytest.fixture
def register(client: MlflowClient) -> Register:
    """Logs a file in a run of its own and registers `path` of the run; returns the id of the run."""

    def log(name: str, file: Path, path: str) -> str:
        run = client.create_run("0").info
        client.log_artifact(run.run_id, str(file), "checkpoints")
        client.create_registered_model(name)
        client.create_model_version(name, f"{run.artifact_uri}{path}", run.run_id)
        return str(run.run_id)

    return log


@pytest.mark.usefixtures("aws")
def test_object_is_fetched_with_its_digest(tmp_path: Path) -> None:
    fetched = fetch("s3://checkpoints/runs/7/digits.ckpt", tmp_path, ExportSettings())
    assert fetched == SourceFile(tmp_path / "digits.ckpt", "s3://checkpoints/runs/7/digits.ckpt", SHA256)
    assert load_checkpoint(fetched.path).sha256 == SHA256


@pytest.mark.usefixtures("aws")
def test_object_over_the_limit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    size = CHECKPOINT.stat().st_size
    fetch("s3://checkpoints/runs/7/digits.ckpt", tmp_path, ExportSettings(max_source_bytes=size))
    (tmp_path / "digits.ckpt").unlink()
    with pytest.raises(SourceFailed, match=f"digits.ckpt: {size} bytes, more than the {size - 1}"):
        fetch("s3://checkpoints/runs/7/digits.ckpt", tmp_path, ExportSettings(max_source_bytes=size - 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://checkpoints/runs/8/digits.ckpt", "NoSuchKey"),
        ("s3://elsewhere/digits.ckpt", "NoSuchBucket"),
        ("s3://checkpoints", "not s3://BUCKET/KEY"),
        ("s3://checkpoints/runs/", "not s3://BUCKET/KEY"),
    ],
)
def test_object_that_is_not_there_is_named_in_one_line(tmp_path: Path, uri: str, words: str) -> None:
    with pytest.raises(SourceFailed, match=words) as caught:
        fetch(uri, tmp_path, ExportSettings())
    assert str(caught.value).startswith(f"{uri}: ") and "\n" not in str(caught.value)


@pytest.mark.usefixtures("aws")
def test_wrong_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    with pytest.raises(SourceFailed, match="SignatureDoesNotMatch"):
        fetch("s3://checkpoints/runs/7/digits.ckpt", tmp_path, ExportSettings())


@pytest.mark.usefixtures("aws")
def test_s3_that_is_away_is_told(tmp_path: Path, away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", away)
    with pytest.raises(SourceFailed, match="Could not connect to the endpoint"):
        fetch("s3://checkpoints/runs/7/digits.ckpt", tmp_path, ExportSettings())


@pytest.mark.usefixtures("aws")
def test_poison_from_s3_is_refused_and_never_executed(changed_checkpoint: Change, bucket: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    changed_checkpoint(lambda content: content.update(callbacks=Poison(marker))).rename(bucket / "poisoned.ckpt")
    with pytest.raises(CheckpointInvalid, match="refused, as loading it could execute code"):
        load_checkpoint(fetch("s3://checkpoints/poisoned.ckpt", tmp_path, ExportSettings()).path)
    assert not marker.exists()


def test_alias_is_fetched_as_the_version_it_names(
    client: MlflowClient, register: Register, settings: ExportSettings, tmp_path: Path
) -> None:
    run_id = register("aliased", CHECKPOINT, "/checkpoints/digits.ckpt")
    client.set_registered_model_alias("aliased", "champion", "1")
    fetched = fetch("mlflow:models:/aliased@champion", tmp_path, settings)
    assert (fetched.uri, fetched.sha256, fetched.run_id) == ("mlflow:models:/aliased/1", SHA256, run_id)
    assert load_checkpoint(fetched.path).sha256 == SHA256


@pytest.mark.parametrize("path", ["/checkpoints/digits.ckpt", "/checkpoints"])
def test_version_may_point_at_a_checkpoint_or_at_its_folder(
    register: Register, settings: ExportSettings, tmp_path: Path, path: str
) -> None:
    name = f"pointed-{len(path)}"
    register(name, CHECKPOINT, path)
    assert fetch(f"mlflow:models:/{name}/1", tmp_path, settings).sha256 == SHA256


def test_artifact_over_the_limit_is_refused_before_it_is_downloaded(
    register: Register, tracking_uri: str, tmp_path: Path
) -> None:
    register("large", CHECKPOINT, "/checkpoints/digits.ckpt")
    limited = ExportSettings(tracking_uri=tracking_uri, max_source_bytes=1_000)
    with pytest.raises(SourceFailed, match="more than the 1000 a checkpoint may have"):
        fetch("mlflow:models:/large/1", tmp_path, limited)
    assert list(tmp_path.iterdir()) == []


def test_version_without_a_checkpoint_is_told(register: Register, settings: ExportSettings, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no model")
    register("noted", notes, "/checkpoints")
    with pytest.raises(SourceFailed, match=r"mlflow:models:/noted/1: 0 checkpoints \(\*\.ckpt\) at "):
        fetch("mlflow:models:/noted/1", tmp_path, settings)


def test_name_that_only_ends_like_the_checkpoint_is_another(
    register: Register, settings: ExportSettings, tmp_path: Path
) -> None:
    register("gone", CHECKPOINT, "/checkpoints/gits.ckpt")
    with pytest.raises(SourceFailed, match="0 checkpoints"):
        fetch("mlflow:models:/gone/1", tmp_path, settings)


def test_model_version_and_alias_that_are_not_there_are_told(
    register: Register, settings: ExportSettings, tmp_path: Path
) -> None:
    register("lonely", CHECKPOINT, "/checkpoints")
    for uri in ("mlflow:models:/absent@champion", "mlflow:models:/lonely@champion", "mlflow:models:/lonely/2"):
        with pytest.raises(SourceFailed, match=f"{uri}: the registry has no such model, version or alias"):
            fetch(uri, tmp_path, settings)


@pytest.mark.parametrize(
    "uri", ["mlflow:models:/digits", "mlflow:models:/digits/newest", "mlflow:runs:/1/a", "ftp://a/b"]
)
def test_other_spelling_is_refused(settings: ExportSettings, tmp_path: Path, uri: str) -> None:
    with pytest.raises(SourceFailed, match=f"{uri}: not "):
        fetch(uri, tmp_path, settings)


def test_mlflow_that_is_away_is_told_without_its_password(tmp_path: Path, away: str) -> None:
    settings = ExportSettings(tracking_uri=away.replace("//", "//user:secret@"))
    with pytest.raises(SourceFailed, match=f"MLflow at {away}: the server does not answer"):
        fetch("mlflow:models:/digits/1", tmp_path, settings)


def test_poison_from_mlflow_is_refused_and_never_executed(
    changed_checkpoint: Change, register: Register, settings: ExportSettings, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    register("poisoned", changed_checkpoint(lambda content: content.update(callbacks=Poison(marker))), "/checkpoints")
    with pytest.raises(CheckpointInvalid, match="refused, as loading it could execute code"):
        load_checkpoint(fetch("mlflow:models:/poisoned/1", tmp_path / "fetched", settings).path)
    assert not marker.exists()
