"""Triton's backend `openvino`: OpenVINO IR on the CPU plugin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino

from serving.backends.batching import RunFailed, Tensors
from serving.backends.engine_model import EngineModel
from serving.backends.options import EngineOptions
from serving.backends.signature import FileTensor, Signature, SignatureMismatch

_DATA_TYPES = {
    "boolean": "TYPE_BOOL",
    "u8": "TYPE_UINT8",
    "u16": "TYPE_UINT16",
    "u32": "TYPE_UINT32",
    "u64": "TYPE_UINT64",
    "i8": "TYPE_INT8",
    "i16": "TYPE_INT16",
    "i32": "TYPE_INT32",
    "i64": "TYPE_INT64",
    "f16": "TYPE_FP16",
    "f32": "TYPE_FP32",
    "f64": "TYPE_FP64",
}
# An instance runs one batch at a time: all its cores on that one are right, and more streams would idle.
_PERFORMANCE_HINTS = ("LATENCY", "THROUGHPUT")
# Not the plugin's own choice, which is BF16 on some processors: the error that was measured is then not the one served.
_PRECISIONS = ("f32", "bf16", "f16")


class OpenVinoEngine:
    """A compiled model and its one inference request."""

    def __init__(self, model: Any, options: EngineOptions) -> None:
        self._signature = _signature(model, options)
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": options.choice("performance_hint", _PERFORMANCE_HINTS),
                "INFERENCE_PRECISION_HINT": options.choice("inference_precision", _PRECISIONS),
                "INFERENCE_NUM_THREADS": options.threads,
                # Each process would pin its threads to the first cores, and the instances of a model share those.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._request = compiled.create_infer_request()

    @property
    def signature(self) -> Signature:
        """The inputs and outputs, by the names config.pbtxt states where a tensor has several."""
        return self._signature

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute the named outputs.

        Raises:
            RunFailed: The model refuses the inputs.
        """
        try:
            self._request.infer(inputs, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise RunFailed(str(error)) from error
        # Copied, because the next run writes to the same memory.
        return {name: self._request.get_tensor(name).data.copy() for name in outputs}


class TritonPythonModel(EngineModel):
    """One instance of a model; Triton looks for this name."""

    @classmethod
    def read_signature(cls, path: Path, options: EngineOptions) -> Signature:
        """Read the model without compiling it."""
        return _signature(openvino.Core().read_model(path), options)

    @classmethod
    def load(cls, path: Path, options: EngineOptions) -> OpenVinoEngine:
        """Compile the model for this machine."""
        return OpenVinoEngine(openvino.Core().read_model(path), options)


def _signature(model: Any, options: EngineOptions) -> Signature:
    return Signature(
        tuple(_tensor(port, options.inputs) for port in model.inputs),
        tuple(_tensor(port, options.outputs) for port in model.outputs),
    )


def _tensor(port: Any, stated: Sequence[str]) -> FileTensor:
    names = sorted(port.get_names())
    if not names:
        raise SignatureMismatch(f"a tensor of the model file has no name: {port}")
    name = next((name for name in names if name in stated), names[0])
    element_type = port.get_element_type().get_type_name()
    data_type = _DATA_TYPES.get(element_type)
    if data_type is None:
        raise SignatureMismatch(f"tensor '{name}' of the model file holds {element_type}, which is not served")
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise SignatureMismatch(f"tensor '{name}' of the model file has no fixed number of dimensions")
    return FileTensor(name, data_type, tuple(-1 if size.is_dynamic else size.get_length() for size in shape))
