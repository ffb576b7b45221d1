"""CUDA graphs: all that a module launches for a batch is recorded once, and launched together from then on.

A graph is of one batch size, so that batches are filled up to the next of a few.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from serving.backends.options import CPU, EngineOptions, OptionInvalid

Forward = Callable[..., Any]
# TorchScript profiles, optimises and only then runs as it will; cuDNN and cuBLAS choose and allocate meanwhile.
_WARM_UP_RUNS = 3
# Models of tensors of any size would otherwise fill the memory with graphs of each.
_MAX_GRAPHS = 32


class CaptureFailed(Exception):
    """What the module does cannot be recorded, as where it decides by values. The message is CUDA's."""


class Recording(Protocol):
    """A module's work on tensors that stay in place.

    Attributes:
        outputs: What the last replay computed from what the inputs then held.
    """

    outputs: tuple[Tensor, ...]

    def replay(self) -> None:
        """Do it again."""


Record = Callable[[Forward, tuple[Tensor, ...]], Recording]


def graphs_wanted(options: EngineOptions) -> bool:
    """Whether parameter `cuda_graphs` is `on`, which it is by default on a GPU, and the model batches.

    Raises:
        OptionInvalid: It is neither `on` nor `off`, or `on` for an instance that is not on a GPU.
    """
    on_gpu = options.device != CPU
    wanted = options.choice("cuda_graphs", ("on", "off") if on_gpu else ("off", "on")) == "on"
    if wanted and not on_gpu:
        raise OptionInvalid("parameter 'cuda_graphs' is 'on', which needs an instance on a GPU")
    return wanted and options.max_batch_size > 0


def batch_sizes(largest: int) -> tuple[int, ...]:
    """The sizes that have graphs: 1, 2, 4, … below the largest, and that one."""
    return (*(1 << power for power in range((largest - 1).bit_length())), largest)


def outputs_of(returned: Any) -> tuple[Tensor, ...]:
    """The tensors that `forward()` returned, one or several."""
    return tuple(returned) if isinstance(returned, tuple | list) else (returned,)


class Graphs:
    """A module that is recorded at the first batch of each size, and run as it is where it cannot be."""

    def __init__(
        self, forward: Forward, record: Record, largest: int, device: torch.device, log: Callable[[str], None]
    ) -> None:
        self._forward = forward
        self._record: Record | None = record
        self._sizes = batch_sizes(largest)
        self._device = device
        self._log = log
        self._recordings: dict[Any, tuple[tuple[Tensor, ...], Recording]] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, which the next call overwrites.

        Args:
            inputs: On the device or the host, of one batch size.

        Raises:
            RuntimeError: The module refuses the inputs.
        """
        size = _batch_size(inputs)
        if self._record is None or size is None or size > self._sizes[-1]:
            return outputs_of(self._forward(*inputs))
        filled = self._sizes[bisect_left(self._sizes, size)]
        key = filled, *((tensor.dtype, tensor.shape[1:]) for tensor in inputs)
        if key in self._recordings:
            fixed, recording = self._recordings[key]
            _fill(fixed, inputs, size)
        elif len(self._recordings) == _MAX_GRAPHS:
            return outputs_of(self._forward(*inputs))
        else:
            fixed = tuple(tensor.new_empty((filled, *tensor.shape[1:]), device=self._device) for tensor in inputs)
            _fill(fixed, inputs, size)
            try:
                recording = self._record(self._forward, fixed)
            except CaptureFailed as error:
                self._log(f"no CUDA graphs, the model is run without them: {error}")
                self._record = None
                self._recordings.clear()
                return outputs_of(self._forward(*inputs))
            self._recordings[key] = fixed, recording
        recording.replay()
        return tuple(_own_rows(output, filled, size) for output in recording.outputs)


class CudaGraphs:
    """Records on the current GPU. What it recorded shares memory, so that one must be done before another is replayed."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, forward: Forward, inputs: tuple[Tensor, ...]) -> Recording:
        """Warm up, then record.

        Raises:
            CaptureFailed: Where recording failed.
            RuntimeError: Where the module refuses the inputs.
        """
        current = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                forward(*inputs)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                outputs = outputs_of(forward(*inputs))
        except RuntimeError as error:
            # Torch leaves its own where the recording cannot even be ended.
            torch.cuda.set_stream(current)
            raise CaptureFailed(str(error).strip().partition("\n")[0]) from error
        return _CudaGraph(graph, outputs)


class _CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, outputs: tuple[Tensor, ...]) -> None:
        self._graph = graph
        self.outputs = outputs

    def replay(self) -> None:
        self._graph.replay()


def _batch_size(inputs: Sequence[Tensor]) -> int | None:
    sizes = {len(tensor) if tensor.dim() else 0 for tensor in inputs}
    return sizes.pop() or None if len(sizes) == 1 else None


def _fill(fixed: Sequence[Tensor], inputs: Sequence[Tensor], size: int) -> None:
    for target, tensor in zip(fixed, inputs, strict=True):
        target[:size].copy_(tensor, non_blocking=True)
        # Any other values might be none that the module takes.
        target[size:] = target[size - 1]


def _own_rows(output: Tensor, filled: int, size: int) -> Tensor:
    return output[:size] if output.dim() and len(output) == filled else output
