"""A real MLflow tracking server, SQLite behind it and S3 for the artifacts, started for tests on a free port."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.s3 import S3Server

_START_S = 120.0
_STOP_S = 30.0
_ADDRESS = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+) ")


@contextmanager
def mlflow_server(directory: Path, s3: S3Server) -> Iterator[str]:
    """Yield the tracking URI when the server answers; its clients need no key of `s3`, which it serves as a proxy."""
    s3.client().create_bucket(Bucket="mlflow")
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "log"
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", "--port=0", "--workers=1"]
    stores = [f"--backend-store-uri=sqlite:///{directory}/mlflow.db", "--artifacts-destination=s3://mlflow"]
    # Jobs would start four more processes.
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*command, *stores],
            cwd=directory,
            env={**os.environ, **s3.environment, **quiet},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _wait_for_address(process, log)
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while not (started := _ADDRESS.search(log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"mlflow server did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return started[1]
