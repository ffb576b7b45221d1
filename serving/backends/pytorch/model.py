"""Triton's backend `pytorch`: TorchScript files, on the CPU or on the GPU that Triton placed the instance on."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils

from serving.backends.batching import RunFailed, Tensors
from serving.backends.engine_model import EngineModel
from serving.backends.options import CPU, EngineOptions, OptionInvalid
from serving.backends.pytorch.graphs import CudaGraphs, Forward, Graphs, graphs_wanted, outputs_of
from serving.backends.signature import FileTensor, Signature, SignatureMismatch

# On a GPU convolutions of half the precision run on its tensor cores; the CPU has nothing to gain.
_PRECISIONS = ("fp32", "fp16")
_INDEXED = re.compile(r".+__(\d+)")


class TorchScriptEngine:
    """A TorchScript module, its inputs and outputs found as Triton's libtorch backend finds them.

    Inputs are forward()'s arguments by name; or, named SOMETHING__INDEX, by position; or else in config.pbtxt's order.
    Outputs are named SOMETHING__INDEX.
    """

    def __init__(self, path: Path, options: EngineOptions) -> None:
        torch.set_num_threads(options.threads)
        # Otherwise each new batch size is compiled anew, for hundreds of milliseconds.
        torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
        self._device = torch.device(options.device)
        self._half = options.choice("precision", _PRECISIONS) == "fp16"
        if self._half and self._device.type == "cpu":
            raise OptionInvalid("parameter 'precision' is 'fp16', which needs an instance on a GPU")
        graphs = graphs_wanted(options)
        self._module = _load(path, self._device).eval()
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
            self._module.to(memory_format=torch.channels_last)
        self._run: Forward = self._forward
        if graphs:
            log = pb_utils.Logger.log_warn
            self._run = Graphs(self._forward, CudaGraphs(), options.max_batch_size, self._device, log)
        self._inputs = _in_argument_order(options.inputs, _arguments(self._module))
        self._positions = {name: _index(name) for name in options.outputs}

    def _precision(self) -> AbstractContextManager[None]:
        if not self._half:
            return nullcontext()
        # A graph must not refer to weights of half the precision that are freed behind this.
        return torch.autocast(self._device.type, torch.float16, cache_enabled=False)

    def _forward(self, *inputs: torch.Tensor) -> Any:
        with self._precision():
            return self._module(*(tensor.to(self._device, non_blocking=True) for tensor in inputs))

    def _input(self, array: Any) -> torch.Tensor:
        tensor = torch.as_tensor(array)
        # The GPU copies from such memory by itself.
        return tensor.pin_memory() if self._device.type == "cuda" and not tensor.is_cuda else tensor

    @property
    def signature(self) -> Signature:
        """The names that config.pbtxt states: the file knows neither types nor shapes."""
        return Signature(
            tuple(FileTensor(name, None, None) for name in self._inputs),
            tuple(FileTensor(name, None, None) for name in self._positions),
        )

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute all outputs; return the named ones.

        Args:
            inputs: Arrays, or tensors that are on the device already.

        Raises:
            RunFailed: The module refuses the inputs, or returns fewer tensors than an output's index asks for.
        """
        try:
            with torch.inference_mode():
                tensors = outputs_of(self._run(*(self._input(inputs[name]) for name in self._inputs)))
        except RuntimeError as error:
            raise RunFailed(str(error)) from error
        if self._half:  # As config.pbtxt states them.
            tensors = tuple(tensor.float() if tensor.dtype is torch.float16 else tensor for tensor in tensors)
        return {name: _array(tensors, self._positions[name], name) for name in outputs}


class TritonPythonModel(EngineModel):
    """One instance of a model; Triton looks for this name."""

    # torch has one number of threads for the whole process.
    elastic = False

    @classmethod
    def read_signature(cls, path: Path, options: EngineOptions) -> Signature:
        """Refuse: there is nothing to complete a config from.

        Raises:
            SignatureMismatch: Always; the message names the arguments that must be stated.
        """
        arguments = ", ".join(f"'{name}'" for name in _arguments(_load(path, torch.device(CPU))))
        raise SignatureMismatch(
            f"a TorchScript file states no types and shapes: config.pbtxt must, for the inputs {arguments} and the "
            "outputs 'OUTPUT__0', …"
        )

    @classmethod
    def load(cls, path: Path, options: EngineOptions) -> TorchScriptEngine:
        """Load the module and limit its threads."""
        return TorchScriptEngine(path, options)


def _load(path: Path, device: torch.device) -> Any:
    return torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _arguments(module: Any) -> tuple[str, ...]:
    # The first is the module itself, under a name that freezing changes.
    return tuple(argument.name for argument in module.forward.schema.arguments[1:])


def _in_argument_order(names: tuple[str, ...], arguments: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) != len(arguments):
        raise SignatureMismatch(
            f"config.pbtxt states {len(names)} inputs, forward() of the model file takes {', '.join(arguments)}"
        )
    if set(names) == set(arguments):
        return arguments
    if all(_INDEXED.fullmatch(name) for name in names):
        return tuple(sorted(names, key=_index))
    return names


def _index(name: str) -> int:
    match = _INDEXED.fullmatch(name)
    if match is None:
        raise SignatureMismatch(f"output '{name}' of config.pbtxt is not named like OUTPUT__0")
    return int(match[1])


def _array(tensors: Sequence[Any], position: int, name: str) -> Any:
    if position >= len(tensors):
        raise RunFailed(f"output '{name}': the model file returns {len(tensors)} tensors")
    return tensors[position].cpu().numpy()
