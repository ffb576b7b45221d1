"""The models of the suite: small, in Triton's own python backend, each for one part of the protocol."""

from pathlib import Path

DATA_TYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES",
)  # fmt: skip


def write(repository: Path) -> None:
    """Write every model into an empty directory."""
    for name, (config, code) in _MODELS.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text('backend: "python"\n' + config)
        (version / "model.py").write_text(code)


def names() -> tuple[str, ...]:
    """Of every model."""
    return tuple(_MODELS)


def _echo_config() -> str:
    config_type = {"BYTES": "STRING"}
    return "\n".join(
        f'input {{ name: "in_{name}" data_type: TYPE_{config_type.get(name, name)} dims: -1 optional: true }}\n'
        f'output {{ name: "out_{name}" data_type: TYPE_{config_type.get(name, name)} dims: -1 }}'
        for name in DATA_TYPES
    )


# Gives back what it is given, of any type; every input is optional. numpy has no BF16, DLPack has.
_ECHO = """
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([_same(tensor) for tensor in request.inputs()]) for request in requests]


def _same(tensor):
    name = tensor.name().replace("in_", "out_")
    if name == "out_BF16":
        return pb.Tensor.from_dlpack(name, tensor)
    return pb.Tensor(name, tensor.as_numpy())
"""

_SUM_CONFIG = """
max_batch_size: 8
input [ { name: "a" data_type: TYPE_INT32 dims: 4 }, { name: "b" data_type: TYPE_INT32 dims: 4 } ]
output [ { name: "sum" data_type: TYPE_INT32 dims: 4 }, { name: "difference" data_type: TYPE_INT32 dims: 4 } ]
"""

_SUM = """
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            a, b = (pb.get_input_tensor_by_name(request, name).as_numpy() for name in "ab")
            responses.append(pb.InferenceResponse([pb.Tensor("sum", a + b), pb.Tensor("difference", a - b)]))
        return responses
"""

# One input, so that a raw request may name none; fails for a negative first element, with a traceback.
_NEGATE_CONFIG = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, 2 ] }
"""

_NEGATE = """
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            if x.size and x.flat[0] == 666:
                raise RuntimeError("cannot open " + __file__)
            responses.append(pb.InferenceResponse([pb.Tensor("y", -x)]))
        return responses
"""

_TEXT_CONFIG = """
input { name: "text" data_type: TYPE_STRING dims: 1 }
output { name: "upper" data_type: TYPE_STRING dims: 1 }
"""

_TEXT = """
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            (text,) = pb.get_input_tensor_by_name(request, "text").as_numpy()
            responses.append(pb.InferenceResponse([pb.Tensor("upper", np.array([text.upper()], np.object_))]))
        return responses
"""

# `times` answers 0, 1, 2, …, with `wait_ms` after each; a negative number of times is an error. Where it waits, it leaves
# behind how far it came before it was done or cancelled.
_REPEAT_CONFIG = """
model_transaction_policy { decoupled: true }
input [
  { name: "times" data_type: TYPE_INT32 dims: 1 },
  { name: "wait_ms" data_type: TYPE_INT32 dims: 1 optional: true }
]
output { name: "turn" data_type: TYPE_INT32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
"""

_REPEAT = """
import pathlib
import threading
import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=_answer, args=(request, request.get_response_sender())).start()


def _answer(request, sender):
    times = int(pb.get_input_tensor_by_name(request, "times").as_numpy()[0])
    wait = pb.get_input_tensor_by_name(request, "wait_ms")
    wait_s = int(wait.as_numpy()[0]) / 1000 if wait is not None else 0
    if times < 0:
        failure = pb.TritonError("times is negative", pb.TritonError.INVALID_ARG)
        sender.send(pb.InferenceResponse(error=failure))
    turn = 0
    while turn < times and not sender.is_cancelled():
        sender.send(pb.InferenceResponse([pb.Tensor("turn", np.array([turn], np.int32))]))
        time.sleep(wait_s)
        turn += 1
    sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    if wait_s:
        written = pathlib.Path(__file__).with_name(f"turns.{threading.get_ident()}")
        written.write_text(str(turn))
        written.rename(written.with_name("turns"))
"""

_ACCUMULATE_CONFIG = """
max_batch_size: 4
sequence_batching {
  max_sequence_idle_microseconds: 30000000
  control_input [
    { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } },
    { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
  ]
}
input { name: "x" data_type: TYPE_INT32 dims: 1 }
output { name: "total" data_type: TYPE_INT32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
"""

_ACCUMULATE = """
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        responses = []
        for request in requests:
            x, start, sequence = (
                int(pb.get_input_tensor_by_name(request, name).as_numpy().flat[0]) for name in ("x", "START", "CORRID")
            )
            self.totals[sequence] = x + (0 if start else self.totals[sequence])
            total = np.array([[self.totals[sequence]]], np.int32)
            responses.append(pb.InferenceResponse([pb.Tensor("total", total)]))
        return responses
"""

_MODELS = {
    "echo": (_echo_config(), _ECHO),
    "sum": (_SUM_CONFIG, _SUM),
    "negate": (_NEGATE_CONFIG, _NEGATE),
    "text": (_TEXT_CONFIG, _TEXT),
    "unloaded": (_TEXT_CONFIG, _TEXT),
    "repeat": (_REPEAT_CONFIG, _REPEAT),
    "accumulate": (_ACCUMULATE_CONFIG, _ACCUMULATE),
}
