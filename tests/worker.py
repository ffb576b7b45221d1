"""A real gateway worker, started for tests on free ports and stopped after."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.auth.migrations import upgrade
from tidegate.ports import held

_START_S = 60.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Worker:
    """Where it is: host:port, but for the directory of its state."""

    http: str
    grpc: str
    metrics: str
    pid: int
    state_dir: Path


@contextmanager
def worker(state_dir: Path, **settings: str) -> Iterator[Worker]:
    """Start a worker that lets every caller in, and yield when its ports answer, whether or not a Triton does.

    Args:
        settings: `TIDEGATE_…` variables, less the prefix.
    """
    upgrade(f"sqlite+aiosqlite:///{state_dir / 'tidegate.db'}")
    with held("127.0.0.1", 0, "") as http, held("127.0.0.1", 0, "") as rpc, held("127.0.0.1", 0, "") as metrics:
        ports = {"HTTP_PORT": http, "GRPC_PORT": rpc, "METRICS_PORT": metrics}
        variables = {**ports, "STATE_DIR": state_dir, "AUTH__MODE": "off", **settings}
        with (state_dir / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tidegate", "gateway"],
                env={**os.environ, **{f"TIDEGATE_{name}": str(value) for name, value in variables.items()}},
                stdout=log,
                stderr=log,
            )
        try:
            _wait(process, f"http://127.0.0.1:{metrics}/v2/health/live", state_dir / "log")
            yield Worker(f"127.0.0.1:{http}", f"127.0.0.1:{rpc}", f"127.0.0.1:{metrics}", process.pid, state_dir)
        finally:
            process.terminate()
            process.wait(_STOP_S)


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
