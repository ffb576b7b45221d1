"""A real `tidegate up`, started for tests on free ports and stopped after."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tritonclient.grpc as triton
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
REPOSITORY = ROOT / "model_repository"

_START_S = 120.0
_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and how to get in."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    http: str
    grpc: str
    metrics: str
    key: str
    environment: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """With the development key, which may do everything."""
        return {"authorization": f"Bearer {self.key}"}

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return (self.state_dir / "log").read_text()

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `tidegate` with this server's settings."""
        return tidegate(*arguments, environment=self.environment)

    def triton_pid(self) -> int:
        """The process id of the tritonserver it runs now."""
        started = [json.loads(line) for line in self.log.splitlines() if '"process.started"' in line]
        return int([entry["pid"] for entry in started if entry["process"] == "tritonserver"][-1])

    def workers(self) -> list[psutil.Process]:
        """The gateway's workers, of one parent."""
        return self.parent_of_workers().children()

    def parent_of_workers(self) -> psutil.Process:
        """The process that they are forked from."""
        children = psutil.Process(self.process.pid).children()
        (parent,) = [child for child in children if "tidegate.workers" in child.cmdline()]
        return parent

    def triton_address(self) -> str:
        """host:port of its own gRPC service."""
        return f"127.0.0.1:{_value(psutil.Process(self.triton_pid()).cmdline(), '--grpc-port=')}"


def _value(arguments: list[str], option: str) -> str:
    (value,) = [argument.removeprefix(option) for argument in arguments if argument.startswith(option)]
    return value


def tidegate(
    *arguments: str | Path, environment: Mapping[str, str], cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "tidegate", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


@contextmanager
def running(state_dir: Path, **settings: str) -> Iterator[Server]:
    """Start `tidegate up` and yield when it serves.

    Args:
        settings: `TIDEGATE_…` variables, less the prefix.
    """
    environment = {
        "TIDEGATE_HTTP_PORT": "0",
        "TIDEGATE_GRPC_PORT": "0",
        "TIDEGATE_METRICS_PORT": "0",
        "TIDEGATE_STATE_DIR": str(state_dir),
        "TIDEGATE_MODEL_REPOSITORY": str(REPOSITORY),
        **{f"TIDEGATE_{name}": value for name, value in settings.items()},
    }
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "log").open("wb") as log, (state_dir / "banner").open("wb") as banner:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidegate", "up"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=banner,
            stderr=log,
        )
        try:
            endpoints = _wait_for_endpoints(process, state_dir)
            yield Server(
                process=process,
                state_dir=state_dir,
                key=(state_dir / "dev-key").read_text(),
                environment=environment,
                **endpoints,
            )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_S)


def _wait_for_endpoints(process: subprocess.Popen[bytes], state_dir: Path) -> dict[str, str]:
    path = state_dir / "endpoints.json"
    deadline = time.monotonic() + _START_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"tidegate up did not start:\n{(state_dir / 'log').read_text()}")
        time.sleep(0.05)
    endpoints = json.loads(path.read_text())
    return {name: endpoints[name] for name in ("http", "grpc", "metrics")}


def images_input(images: NDArray[np.uint8]) -> list[triton.InferInput]:
    """The input of `digits`: (N, 32, 32, 3)."""
    tensor = triton.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    return [tensor]


def encoded_input(files: list[bytes]) -> list[triton.InferInput]:
    """The input of `digits_encoded`: a file an image."""
    tensor = triton.InferInput("encoded", [len(files), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(files, dtype=np.object_).reshape(-1, 1))
    return [tensor]
