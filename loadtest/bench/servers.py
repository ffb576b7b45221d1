"""The servers that are compared: the gateway, the Triton behind it, a bare relay and a C proxy before that Triton."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import psutil
from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract.model_config import from_pbtxt, to_pbtxt
from loadtest.bench.drivers import Endpoint
from loadtest.bench.errors import BenchFailed

_ROOT = Path(__file__).parents[2]
_START_S = 180.0
_STOP_S = 60.0
# A model that is asked anew each time, so that a repeated request is no repeated answer.
_NOT_CACHED = {"cache-control": "no-cache"}


@contextmanager
def compared(models: Path, work: Path, workers: int | None) -> Iterator[dict[str, Endpoint]]:
    """Start all of them on free ports, and stop them after.

    Args:
        models: A repository with `resnet50` and its twin.
        work: An empty directory for what they write.
        workers: Of the gateway; None: as many as `tidegate up` has here.

    Yields:
        By name: gateway, cached (the gateway, which may answer from its cache), direct, relay, nginx.
    """
    repository = repository_with(models, work / "model_repository")
    with ExitStack() as stack:
        gateway, triton = stack.enter_context(running_gateway(repository, work / "state", workers))
        endpoints = {
            "gateway": gateway,
            "cached": Endpoint("cached", gateway.grpc, gateway.rest, _less(gateway.headers), gateway.pids),
            "direct": triton,
            "relay": stack.enter_context(_relay(triton)),
        }
        if shutil.which("nginx"):
            endpoints["nginx"] = stack.enter_context(_nginx(triton, work / "nginx"))
        yield endpoints


def with_resnet(models: Path) -> Path:
    """Export ResNet-50 in 8 bits, where that was not done before."""
    if not (models / "resnet50_encoded").is_dir():
        command = ["export", "torchvision:resnet50", "--name", "resnet50", "--int8", "--publish", str(models)]
        subprocess.run([sys.executable, "-m", "tidegate", *command], check=True)
    return models


def repository_with(models: Path, path: Path) -> Path:
    """A copy of the demo's repository, with these beside."""
    shutil.copytree(_ROOT / "model_repository", path)
    for model in models.iterdir():
        shutil.copytree(model, path / model.name)
    return path


def add_variant(repository: Path, model: str, name: str, change: Callable[[ModelConfig], None]) -> None:
    """Put a copy of a model beside it, under another name, whose config differs."""
    shutil.copytree(repository / model, repository / name)
    path = repository / name / "config.pbtxt"
    config = from_pbtxt(path.read_text())
    config.name = name
    change(config)
    path.write_text(to_pbtxt(config))


def _less(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _NOT_CACHED}


@contextmanager
def running_gateway(repository: Path, state: Path, workers: int | None) -> Iterator[tuple[Endpoint, Endpoint]]:
    settings = {
        "HTTP_PORT": "0",
        "GRPC_PORT": "0",
        "METRICS_PORT": "0",
        "STATE_DIR": str(state),
        "MODEL_REPOSITORY": str(repository),
    }
    if workers is not None:
        settings["WORKERS"] = str(workers)
    environment = {**os.environ, **{f"TIDEGATE_{name}": value for name, value in settings.items()}}
    state.mkdir()
    with (state / "log").open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "tidegate", "up"], cwd=_ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        addresses = state / "endpoints.json"
        wait(addresses.exists, up, state / "log")
        where = json.loads(addresses.read_text())
        headers = {"authorization": f"Bearer {(state / 'dev-key').read_text()}", **_NOT_CACHED}
        triton = Endpoint(
            "direct", _triton_address(state / "log"), pids=lambda: {"triton": _processes(up.pid)["triton"]}
        )
        yield Endpoint("gateway", where["grpc"], where["http"], headers, lambda: _processes(up.pid)), triton
    finally:
        stop(up)


@contextmanager
def _relay(triton: Endpoint) -> Iterator[Endpoint]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "loadtest.bench.relay", str(port), triton.grpc], cwd=_ROOT)
    try:
        address = f"127.0.0.1:{port}"
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(_START_S)
        yield Endpoint("relay", address, pids=lambda: {**triton.pids(), "relay": [process.pid]})
    finally:
        stop(process)


@contextmanager
def _nginx(triton: Endpoint, folder: Path) -> Iterator[Endpoint]:
    port = free_port()
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; client_max_body_size 0; client_body_temp_path {folder};\n"
        f"  upstream triton {{ server {triton.grpc}; keepalive 64; }}\n"
        f"  server {{ listen 127.0.0.1:{port} http2 reuseport; keepalive_requests 1000000000;\n"
        "    location / { client_body_buffer_size 8m; grpc_pass grpc://triton; } }\n"
        "}\n"
    )
    process = subprocess.Popen(["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"])
    try:
        wait(lambda: answers(port), process, folder / "error.log")
        yield Endpoint("nginx", f"127.0.0.1:{port}", pids=lambda: {**triton.pids(), "nginx": tree(process.pid)})
    finally:
        stop(process)


def _processes(up: int) -> dict[str, list[int]]:
    """The pids of what `tidegate up` runs: its workers, and Triton with its models."""
    gateway, triton = [], []
    for child in psutil.Process(up).children(recursive=True):
        line = " ".join(child.cmdline())
        if "tritonserver" in line or "triton_python_backend_stub" in line:
            triton.append(child.pid)
        elif "tidegate.workers" in line:
            gateway.append(child.pid)
    return {"gateway": gateway, "triton": triton}


def tree(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _triton_address(log: Path) -> str:
    for line in log.read_text().splitlines():
        if '"triton.ready"' in line:
            return str(json.loads(line)["grpc"])
    raise BenchFailed(f"{log} does not say where Triton is")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something listens on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchFailed(f"a server did not start:\n{log.read_text()}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(_STOP_S)
