"""A server whose models take a known time, whatever the machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Server, running

PACE_S = 0.02
STALL_S = 0.5

_CONFIG = """
backend: "python" max_batch_size: 1
input { name: "images" data_type: TYPE_UINT8 dims: [ 8, 8, 3 ] }
output { name: "scores" data_type: TYPE_FP32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
"""

# Answers after a time: at every hundredth request another one.
_MODEL = """
import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.seen = 0

    def execute(self, requests):
        responses = []
        for request in requests:
            self.seen += 1
            time.sleep({hundredth} if self.seen % 100 == 0 else {usual})
            responses.append(pb.InferenceResponse([pb.Tensor("scores", np.zeros((1, 1), np.float32))]))
        return responses
"""


@pytest.fixture(scope="package")
def paced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves `paced`, which takes PACE_S for each image in turn, and `stalling`, which takes STALL_S for each hundredth."""
    repository = tmp_path_factory.mktemp("repository")
    _write(repository / "paced", _MODEL.format(usual=PACE_S, hundredth=PACE_S))
    _write(repository / "stalling", _MODEL.format(usual=0, hundredth=STALL_S))
    with running(tmp_path_factory.mktemp("paced"), MODEL_REPOSITORY=str(repository), WORKERS="1") as server:
        yield server


def _write(model: Path, code: str) -> None:
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(_CONFIG)
    (model / "1" / "model.py").write_text(code)
