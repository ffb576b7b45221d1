"""What a run tells MLflow: its figures, its checkpoint and, where asked, a version in the registry."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import requests
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from training.digits import NAME
from training.errors import TrackingFailed
from training.settings import TrainingSettings


def mlflow_logger(settings: TrainingSettings) -> MLFlowLogger:
    """Lightning's logger; it connects with the first thing it logs."""
    # A tracking server has a place of its own for artifacts; MLflow would put a local store's into the working directory.
    local = settings.tracking_uri.startswith("sqlite:")
    artifacts = (settings.state_dir / "mlflow-artifacts").resolve().as_uri() if local else None
    return MLFlowLogger(experiment_name=NAME, tracking_uri=settings.tracking_uri, artifact_location=artifacts)


@contextmanager
def tracked(tracking_uri: str) -> Iterator[None]:
    """Turn MLflow's failures into one line each.

    Raises:
        TrackingFailed: The server does not answer or refuses.
    """
    try:
        yield
    except MlflowException as error:
        cause = error.__context__
        # MLflow's message would repeat the whole request, with the password an address may hold.
        away = isinstance(cause, requests.ConnectionError | requests.Timeout)
        reason = f"the server does not answer ({type(cause).__name__})" if away else " ".join(str(error).split())
        raise TrackingFailed(f"MLflow at {urlsplit(tracking_uri).netloc.rpartition('@')[2]}: {reason}") from error


def register(client: MlflowClient, run_id: str, artifact: str, name: str, alias: str | None) -> str:
    """Make a version that points at an artifact of the run; the model is created with its first.

    Args:
        artifact: Its path in the run.
        alias: Moved to this version, from the one it names now.

    Returns:
        The version, as `tidegate export` takes it.
    """
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{artifact}"
    version = client.create_model_version(name, source, run_id).version
    if alias is not None:
        client.set_registered_model_alias(name, alias, version)
    return f"mlflow:models:/{name}/{version}"
