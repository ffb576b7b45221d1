"""CUDA graphs: with torch's own CPU in place of a GPU, and on a GPU where there is one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from serving.backends.options import EngineOptions, OptionInvalid
from serving.backends.pytorch.graphs import (
    CaptureFailed,
    CudaGraphs,
    Forward,
    Graphs,
    Record,
    batch_sizes,
    graphs_wanted,
    outputs_of,
)

CPU = torch.device("cpu")
LARGEST = 6


def options(device: str, max_batch_size: int = 8, **parameters: str) -> EngineOptions:
    return EngineOptions(1, 1, parameters, ("x",), ("OUTPUT__0",), device, max_batch_size)


class Repeating:
    """As a GPU does it: from the inputs' memory to the outputs', whatever is in there."""

    def __init__(self, forward: Forward, inputs: tuple[Tensor, ...]) -> None:
        self._forward = forward
        self._inputs = inputs
        self.outputs = tuple(torch.full_like(output, torch.nan) for output in outputs_of(forward(*inputs)))

    def replay(self) -> None:
        for kept, output in zip(self.outputs, outputs_of(self._forward(*self._inputs)), strict=True):
            kept.copy_(output)


class Recorder:
    """Counts what it records."""

    def __init__(self, record: Record = Repeating) -> None:
        self._record = record
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, forward: Forward, inputs: tuple[Tensor, ...]) -> Any:
        self.shapes.append(tuple(inputs[0].shape))
        return self._record(forward, inputs)


def below_best(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of all rows, so that others than the batch's own would show."""
    return x - x.amax(0), x @ y.mT


def batch(rows: int, columns: int = 3, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    made = torch.randn((2, rows, 1, columns), generator=torch.Generator().manual_seed(rows))
    return made[0].to(device), made[1].to(device)


def test_sizes_double_up_to_the_largest() -> None:
    assert batch_sizes(1) == (1,)
    assert batch_sizes(2) == (1, 2)
    assert batch_sizes(24) == (1, 2, 4, 8, 16, 24)
    assert batch_sizes(64) == (1, 2, 4, 8, 16, 32, 64)


def test_graphs_are_for_models_that_batch_on_a_gpu() -> None:
    assert graphs_wanted(options("cuda:0"))
    assert not graphs_wanted(options("cuda:0", cuda_graphs="off"))
    assert not graphs_wanted(options("cuda:0", max_batch_size=0))
    assert not graphs_wanted(options("cpu"))
    assert not graphs_wanted(options("cpu", cuda_graphs="off"))
    with pytest.raises(OptionInvalid, match="'cuda_graphs' is 'on', which needs an instance on a GPU"):
        graphs_wanted(options("cpu", cuda_graphs="on"))
    with pytest.raises(OptionInvalid, match="'cuda_graphs' is 'yes', not one of on, off"):
        graphs_wanted(options("cuda:0", cuda_graphs="yes"))


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
    ],
)
def test_every_batch_has_the_modules_own_outputs(device: str) -> None:
    on = torch.device(device)
    recorder = Recorder(CudaGraphs() if on.type == "cuda" else Repeating)
    lines: list[str] = []
    graphs = Graphs(below_best, recorder, LARGEST, on, lines.append)
    with torch.inference_mode():
        for rows in (3, 1, 6, 5, 2, 4, 3, 7, 1):
            inputs = batch(rows, device=on)
            for output, expected in zip(graphs(*inputs), below_best(*inputs), strict=True):
                # The same operations on as many or more rows: in float32, to the last bits.
                torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    assert [shape[0] for shape in recorder.shapes] == [4, 1, 6, 2]
    assert lines == []


def test_other_shapes_have_graphs_of_their_own_but_not_without_end() -> None:
    recorder = Recorder()
    graphs = Graphs(below_best, recorder, LARGEST, CPU, print)
    for columns in [*range(1, 60), 1, 59]:
        inputs = batch(2, columns)
        for output, expected in zip(graphs(*inputs), below_best(*inputs), strict=True):
            torch.testing.assert_close(output, expected)
    assert len(recorder.shapes) == len(set(recorder.shapes)) == 32


def test_a_module_that_cannot_be_recorded_is_run_as_it_is_and_one_line_says_so() -> None:
    def fail(forward: Forward, inputs: tuple[Tensor, ...]) -> Any:
        if len(inputs[0]) > 1:
            raise CaptureFailed("operation not permitted when stream is capturing")
        return Repeating(forward, inputs)

    recorder = Recorder(fail)
    lines: list[str] = []
    graphs = Graphs(below_best, recorder, LARGEST, CPU, lines.append)
    for rows in (1, 2, 3, 1):
        inputs = batch(rows)
        for output, expected in zip(graphs(*inputs), below_best(*inputs), strict=True):
            torch.testing.assert_close(output, expected)
    assert [shape[0] for shape in recorder.shapes] == [1, 2]
    (line,) = lines
    assert line.endswith("without them: operation not permitted when stream is capturing")


def test_a_batch_that_the_module_refuses_leaves_the_others_their_graphs() -> None:
    recorder = Recorder()
    graphs = Graphs(below_best, recorder, LARGEST, CPU, print)
    x, _ = batch(2)
    with pytest.raises(RuntimeError, match="size"):
        graphs(x, torch.zeros(2, 1, 5))
    with pytest.raises(RuntimeError, match="size"):
        graphs(x, torch.zeros(3, 1, 3))
    for output, expected in zip(graphs(*batch(2)), below_best(*batch(2)), strict=True):
        torch.testing.assert_close(output, expected)
    # The second has no one size of batch.
    assert len(recorder.shapes) == 2
