"""Models whose work is to wait, so that two cores can have a capacity that is known and not used up by the doors."""

from pathlib import Path

# The time that one instance needs for one request.
SERVICE_MS = 40
INSTANCES = 2

_WORK_CONFIG = """
backend: "python"
max_batch_size: 1
input { name: "x" data_type: TYPE_INT32 dims: 1 }
output [ { name: "y" data_type: TYPE_FP32 dims: 4 }, { name: "version" data_type: TYPE_INT32 dims: 1 } ]
dynamic_batching { }
instance_group { count: %d kind: KIND_CPU }
version_policy { specific { versions: [%s] } }
"""

# `fault` is one of: none, wrong, slow, failing.
_WORK = """
import time

import numpy as np
import triton_python_backend_utils as pb

FAULT, SERVICE_S = "%s", %g


class TritonPythonModel:
    def initialize(self, args):
        self.version = int(args["model_version"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = int(pb.get_input_tensor_by_name(request, "x").as_numpy().flat[0])
        time.sleep(SERVICE_S * (4 if FAULT == "slow" else 1))
        if FAULT == "failing":
            return pb.InferenceResponse(error=pb.TritonError("broken on purpose"))
        y = np.zeros((1, 4), np.float32)
        y[0, (x + (FAULT == "wrong")) %% 4] = 1
        return pb.InferenceResponse([pb.Tensor("y", y), pb.Tensor("version", np.array([[self.version]], np.int32))])
"""

_REFUSING_CONFIG = """
backend: "python"
input { name: "x" data_type: TYPE_INT32 dims: 1 }
output { name: "y" data_type: TYPE_INT32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
"""

_REFUSING = """
import os
import pathlib

import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.asked = open(pathlib.Path(__file__).with_name(f"asked-{os.getpid()}"), "ab", buffering=0)

    def execute(self, requests):
        self.asked.write(b"." * len(requests))
        refusal = pb.TritonError("no", pb.TritonError.UNAVAILABLE)
        return [pb.InferenceResponse(error=refusal) for _ in requests]
"""


def write_work(
    repository: Path, faults: dict[int, str], served: tuple[int, ...] = (1,), service_ms: int = SERVICE_MS
) -> None:
    """The model `work`: a version for each fault, of which some are served."""
    for version, fault in faults.items():
        directory = repository / "work" / str(version)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.py").write_text(_WORK % (fault, service_ms / 1_000))
    serve_work(repository, served)


def serve_work(repository: Path, served: tuple[int, ...]) -> None:
    """Have Triton serve these versions of `work` when it loads it next."""
    staging = repository / "work" / "config.staging"
    staging.write_text(_WORK_CONFIG % (INSTANCES, ", ".join(map(str, served))))
    staging.replace(repository / "work" / "config.pbtxt")


def write_refusing(repository: Path) -> None:
    """The model `refusing`: it answers UNAVAILABLE, always and at once."""
    (repository / "refusing" / "1").mkdir(parents=True)
    (repository / "refusing" / "config.pbtxt").write_text(_REFUSING_CONFIG)
    (repository / "refusing" / "1" / "model.py").write_text(_REFUSING)


def refusals(repository: Path) -> int:
    """How many requests came to `refusing`, by its own count."""
    return sum(file.stat().st_size for file in (repository / "refusing" / "1").glob("asked-*"))
