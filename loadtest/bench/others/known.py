"""The other servers: how each is started, what it is asked, and which packages it needs."""

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtest.bench.workloads import Workload, form, photograph


@dataclass(frozen=True, slots=True)
class Other:
    """A server of somebody else's.

    Attributes:
        command: Given three free ports and an empty folder: what to run, by the Python of its environment.
        ask: The photograph as it takes it.
        packages: Of its environment; empty: Tidegate's own.
    """

    command: Callable[[list[int], Path], list[str]]
    ask: Workload
    packages: tuple[str, ...] = ()


def others() -> dict[str, Other]:
    """By name."""
    file = photograph()
    json_type = {"content-type": "application/json"}
    raw = Workload("J", b"", "/classify", file, {"content-type": "image/jpeg"})
    body, content_type = form([file])
    tensor = {"name": "photograph", "datatype": "BYTES", "shape": [1, 1]}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 4 + len(file)}}]}).encode()
    binary = head + len(file).to_bytes(4, "little") + file
    text = {"inputs": [{**tensor, "shape": [1], "data": [base64.b64encode(file).decode()]}]}
    engine = ("numpy==1.26.4", "openvino==2026.4.1", "pillow==13.0.0")
    return {
        "FastAPI": Other(partial(_module, "with_fastapi"), raw),
        "PyTriton": Other(
            partial(_module, "with_pytriton"),
            Workload(
                "J", b"", "/v2/models/classify/infer", binary, {"inference-header-content-length": str(len(head))}
            ),
        ),
        "LitServe": Other(
            partial(_module, "with_litserve"),
            Workload("J", b"", "/classify", body, {"content-type": content_type}),
            (*engine, "litserve==0.2.19", "python-multipart"),
        ),
        "BentoML": Other(_bentoml, raw, (*engine, "bentoml==1.4.40")),
        "MLServer": Other(
            _mlserver,
            Workload("J", b"", "/v2/models/photographs/infer", json.dumps(text).encode(), json_type),
            (*engine, "mlserver==1.7.1", "uvloop<0.22"),
        ),
        "Ray Serve": Other(partial(_module, "with_ray_serve"), raw, (*engine, "ray[serve]==2.60.0")),
    }


def _module(name: str, ports: list[int], folder: Path) -> list[str]:
    return ["-m", f"loadtest.bench.others.{name}", *map(str, ports)]


def _bentoml(ports: list[int], folder: Path) -> list[str]:
    service = "loadtest.bench.others.with_bentoml:Photographs"
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
        "name": "photographs",
        "implementation": "loadtest.bench.others.with_mlserver.Photographs",
        "max_batch_size": 4,
        "max_batch_time": 0.01,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return ["-c", "from mlserver.cli import main; main()", "start", str(folder)]
