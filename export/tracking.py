"""Records an export in MLflow, beside the training runs of its model."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from contract.manifest import Manifest
from contract.repository import MANIFEST
from export.errors import TrackingFailed
from export.mlflow_client import FAILURES, connected
from export.sources.registry import registered_version

_SQLITE = "sqlite:///"


def log_export(manifest: Manifest, report: Path | None, *, tracking_uri: str) -> str:
    """Log a published version: what was asked, what was measured, its manifest and its report.

    A source that was a version of MLflow's registry is tagged with the version it became; of several exports of it, the
    last one's tags stay.

    Args:
        report: A file to keep with the run.

    Returns:
        The id of the run.

    Raises:
        TrackingFailed: The server does not answer or refuses. The version is published nonetheless.
    """
    with connected(tracking_uri, TrackingFailed) as client:
        experiment_id = _experiment(client, manifest.model, tracking_uri)
        run_name = f"export {manifest.model} {manifest.version}"
        run_id: str = client.create_run(experiment_id, run_name=run_name).info.run_id
        with _ended(client, run_id):
            client.log_batch(run_id, _metrics(manifest), _parameters(manifest), _tags(manifest))
            client.log_text(run_id, manifest.to_json(), MANIFEST)
            if report is not None:
                client.log_artifact(run_id, str(report))
            _tag_source(client, manifest, run_id)
    return run_id


def _experiment(client: MlflowClient, name: str, tracking_uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        experiment_id: str = found.experiment_id
        return experiment_id
    # A tracking server has a place of its own for artifacts; MLflow would put a local store's into the working directory.
    local = tracking_uri.startswith(_SQLITE)
    database = Path(tracking_uri.removeprefix(_SQLITE)).resolve()
    created: str = client.create_experiment(name, database.with_name("mlflow-artifacts").as_uri() if local else None)
    return created


@contextmanager
def _ended(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Leave no run that seems to go on."""
    try:
        yield
    except FAILURES:
        # The first failure is the one to tell.
        with suppress(*FAILURES):
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)


def _parameters(manifest: Manifest) -> list[Param]:
    return [
        Param("formats", ", ".join(manifest.formats)),
        Param("default_format", manifest.default_format.value),
        Param("target", manifest.target.value),
        Param("max_batch_size", str(manifest.card.batching.max_batch_size)),
    ]


def _metrics(manifest: Manifest) -> list[Metric]:
    timestamp_ms = int(manifest.created_at.timestamp() * 1_000)
    return [Metric(name, value, timestamp_ms, step=0) for name, value in _measured(manifest)]


def _measured(manifest: Manifest) -> Iterator[tuple[str, float]]:
    """What was measured of every candidate, the dropped ones too, for example onnx/max_abs_error."""
    if manifest.test_accuracy is not None:
        yield "test_accuracy", manifest.test_accuracy
    for candidate, trial in manifest.candidates.items():
        if trial.verification is not None:
            figures = trial.verification.model_dump(exclude={"batch_sizes", "images"}, exclude_none=True)
            yield from ((f"{candidate}/{name}", figure) for name, figure in figures.items())
        for point in trial.speed:
            yield f"{candidate}/images_per_s/batch_{point.batch_size}", point.images_per_s
            yield f"{candidate}/p99_ms/batch_{point.batch_size}", point.p99_ms


def _tags(manifest: Manifest) -> list[RunTag]:
    tags = {
        "tidegate.model": manifest.model,
        "tidegate.repository_version": str(manifest.version),
        "tidegate.source_uri": manifest.source.uri,
        "tidegate.source_sha256": manifest.source.sha256,
    }
    if manifest.source.run_id is not None:
        tags["tidegate.training_run_id"] = manifest.source.run_id
    return [RunTag(key, value) for key, value in tags.items()]


def _tag_source(client: MlflowClient, manifest: Manifest, run_id: str) -> None:
    registered = registered_version(manifest.source.uri)
    if registered is None:
        return
    tags = {
        "tidegate.model": manifest.model,
        "tidegate.repository_version": str(manifest.version),
        "tidegate.export_run_id": run_id,
    }
    for key, value in tags.items():
        client.set_model_version_tag(*registered, key, value)
