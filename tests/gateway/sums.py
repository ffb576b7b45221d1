"""A model that sums what it is given, after a wait, and says by a file that it has begun; of an empty row it makes an error."""

from pathlib import Path

_CONFIG = """
backend: "python"
input [
  { name: "x" data_type: TYPE_UINT8 dims: -1 },
  { name: "wait_ms" data_type: TYPE_INT32 dims: 1 optional: true }
]
output [ { name: "sum" data_type: TYPE_UINT64 dims: 1 }, { name: "size" data_type: TYPE_INT64 dims: 1 } ]
instance_group { count: 1 kind: KIND_CPU }
"""

_MODEL = """
import pathlib
import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [_answer(request) for request in requests]


def _answer(request):
    x = pb.get_input_tensor_by_name(request, "x").as_numpy()
    wait = pb.get_input_tensor_by_name(request, "wait_ms")
    if wait is not None:
        pathlib.Path(__file__).with_name("began").touch()
        time.sleep(int(wait.as_numpy()[0]) / 1000)
    if not x.any():
        return pb.InferenceResponse(error=pb.TritonError("all is nothing"))
    made = {"sum": np.array([x.sum(dtype=np.uint64)]), "size": np.array([x.size])}
    return pb.InferenceResponse([pb.Tensor(name, array) for name, array in made.items()])
"""


def repository(made: Path) -> Path:
    """Write it as `sums` into an empty directory."""
    version = made / "sums" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(_CONFIG)
    (version / "model.py").write_text(_MODEL)
    return made
