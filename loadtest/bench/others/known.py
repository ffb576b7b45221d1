"""The other servers: how each is started, what it is asked, and which packages it needs."""

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from loadtest.bench.others.classifier import TINY_SHAPE, batch_size
from loadtest.bench.workloads import Workload, form, photograph

FILES = {"J": photograph(), "S": np.random.default_rng(0).integers(0, 256, TINY_SHAPE, np.uint8).tobytes()}


@dataclass(frozen=True, slots=True)
class Other:
    """A server of somebody else's.

    Attributes:
        command: Given three free ports and an empty folder: what to run, by the Python of its environment.
        ask: What it is asked, by the name of the workload.
        packages: Of its environment; empty: Tidegate's own.
    """

    command: Callable[[list[int], Path], list[str]]
    ask: Mapping[str, Workload]
    packages: tuple[str, ...] = ()


def others() -> dict[str, Other]:
    """By name."""
    engine = ("numpy==1.26.4", "openvino==2026.4.1", "pillow==13.0.0")
    litserve = (*engine, "litserve==0.2.19", "python-multipart")
    mlserver = (*engine, "mlserver==1.7.1", "uvloop<0.22")
    return {
        "FastAPI": Other(partial(_module, "with_fastapi"), _asked(_raw)),
        "PyTriton": Other(partial(_module, "with_pytriton"), _asked(_tensor)),
        "LitServe": Other(partial(_module, "with_litserve"), _asked(_form), litserve),
        "BentoML": Other(_bentoml, _asked(_raw), (*engine, "bentoml==1.4.40")),
        "MLServer": Other(_mlserver, _asked(_base64), mlserver),
        "Ray Serve": Other(partial(_module, "with_ray_serve"), _asked(_raw), (*engine, "ray[serve]==2.60.0")),
    }


def _asked(request: Callable[[str, bytes], Workload]) -> dict[str, Workload]:
    return {letter: request(letter, file) for letter, file in FILES.items()}


def _raw(letter: str, file: bytes) -> Workload:
    return Workload(letter, b"", "/classify", file, {"content-type": "image/jpeg"})


def _form(letter: str, file: bytes) -> Workload:
    body, content_type = form([file])
    return Workload(letter, b"", "/classify", body, {"content-type": content_type})


def _tensor(letter: str, file: bytes) -> Workload:
    """Binary data after JSON: a file is preceded by its length."""
    data = len(file).to_bytes(4, "little") + file if letter == "J" else file
    shape, datatype = ([1, 1], "BYTES") if letter == "J" else ([1, *TINY_SHAPE], "UINT8")
    tensor = {
        "name": "file",
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    return Workload(letter, b"", "/v2/models/classify/infer", head + data, headers)


def _base64(letter: str, file: bytes) -> Workload:
    tensor = {"name": "file", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(file).decode()]}
    body = json.dumps({"inputs": [tensor]}).encode()
    return Workload(letter, b"", "/v2/models/files/infer", body, {"content-type": "application/json"})


def _module(name: str, ports: list[int], folder: Path) -> list[str]:
    return ["-m", f"loadtest.bench.others.{name}", *map(str, ports)]


def _bentoml(ports: list[int], folder: Path) -> list[str]:
    service = "loadtest.bench.others.with_bentoml:Files"
    return ["-m", "bentoml", "serve", service, "--host=127.0.0.1", f"--port={ports[0]}"]


def _mlserver(ports: list[int], folder: Path) -> list[str]:
    settings = {
        "http_port": ports[0],
        "grpc_port": ports[1],
        "metrics_port": ports[2],
        "parallel_workers": len(os.sched_getaffinity(0)),
        "host": "127.0.0.1",
        "metrics_dir": str(folder),
    }
    model = {
        "name": "files",
        "implementation": "loadtest.bench.others.with_mlserver.Files",
        "max_batch_size": batch_size(),
        "max_batch_time": 0.01,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return ["-c", "from mlserver.cli import main; main()", "start", str(folder)]
