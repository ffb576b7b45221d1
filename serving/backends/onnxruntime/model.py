"""Triton's backend `onnxruntime`: ONNX files on ONNX Runtime's CPU provider."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from serving.backends.batching import RunFailed, Tensor, Tensors
from serving.backends.engine_model import EngineModel
from serving.backends.options import EngineOptions
from serving.backends.signature import FileTensor, Signature, SignatureMismatch

_DATA_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
_RUN_ERRORS = (errors.Fail, errors.InvalidArgument, errors.NotImplemented, errors.RuntimeException, ValueError)


class OnnxEngine:
    """A session of ONNX Runtime."""

    def __init__(self, path: Path, options: onnxruntime.SessionOptions) -> None:
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._texts = {node.name for node in self._session.get_inputs() if node.type == "tensor(string)"}

    @property
    def signature(self) -> Signature:
        """The graph's inputs and outputs."""
        return Signature(
            tuple(_tensor(node) for node in self._session.get_inputs()),
            tuple(_tensor(node) for node in self._session.get_outputs()),
        )

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute the named outputs.

        Raises:
            RunFailed: A string is not UTF-8, or the graph refuses the inputs.
        """
        feed = {name: _decoded(name, array) if name in self._texts else array for name, array in inputs.items()}
        try:
            arrays = self._session.run(list(outputs), feed)
        except _RUN_ERRORS as error:
            raise RunFailed(str(error)) from error
        return dict(zip(outputs, arrays, strict=True))


class TritonPythonModel(EngineModel):
    """One instance of a model; Triton looks for this name."""

    @classmethod
    def read_signature(cls, path: Path, options: EngineOptions) -> Signature:
        """Read the graph without optimising it."""
        session_options = onnxruntime.SessionOptions()
        session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return OnnxEngine(path, session_options).signature

    @classmethod
    def load(cls, path: Path, options: EngineOptions) -> OnnxEngine:
        """Optimise the graph for this machine."""
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = options.threads
        # Threads that spin between runs take the cores of Triton, the gateway and the decoders.
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return OnnxEngine(path, session_options)


def _tensor(node: Any) -> FileTensor:
    data_type = _DATA_TYPES.get(node.type)
    if data_type is None:
        raise SignatureMismatch(f"tensor '{node.name}' of the model file is a {node.type}, which is not served")
    return FileTensor(node.name, data_type, tuple(size if isinstance(size, int) else -1 for size in node.shape))


def _decoded(name: str, array: Tensor) -> Tensor:
    try:
        texts = [item.decode() for item in array.flat]
    except UnicodeDecodeError as error:
        raise RunFailed(f"input '{name}': a string is not UTF-8: {error.reason}") from error
    return np.array(texts, dtype=np.object_).reshape(array.shape)
