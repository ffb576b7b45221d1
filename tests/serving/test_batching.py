"""Requests of one execution as few batches."""

from collections.abc import Sequence

import numpy as np
import pytest

from serving.backends.batching import Call, RunFailed, Tensors, run_calls


class Doubling:
    """Doubles x into y and z; refuses a negative number."""

    def __init__(self) -> None:
        self.runs: list[tuple[tuple[int, ...], tuple[str, ...]]] = []

    def __call__(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x = inputs["x"]
        self.runs.append((x.shape, tuple(outputs)))
        if (x < 0).any():
            raise RunFailed("negative")
        return {name: x * 2 for name in outputs}


def call(*shape: int, value: float = 1.0, outputs: tuple[str, ...] = ("y",)) -> Call:
    return Call({"x": np.full(shape, value)}, outputs)


def doubled(result: Tensors | RunFailed) -> float:
    assert not isinstance(result, RunFailed)
    (value,) = np.unique(result["y"])
    return float(value)


def test_equal_shapes_are_one_run_and_each_gets_its_own_rows() -> None:
    run = Doubling()
    results = run_calls(run, [call(2, 3, value=1), call(1, 3, value=2), call(3, 3, value=3)], batches=True)
    assert run.runs == [((6, 3), ("y",))]
    assert [doubled(result) for result in results] == [2, 4, 6]
    assert [result["y"].shape for result in results if not isinstance(result, RunFailed)] == [(2, 3), (1, 3), (3, 3)]


def test_different_shapes_are_grouped_and_keep_their_order() -> None:
    run = Doubling()
    results = run_calls(run, [call(1, 3, value=1), call(1, 4, value=2), call(1, 3, value=3)], batches=True)
    assert [shape for shape, _ in run.runs] == [(2, 3), (1, 4)]
    assert [doubled(result) for result in results] == [2, 4, 6]


def test_a_model_that_does_not_batch_is_run_for_each_call() -> None:
    run = Doubling()
    run_calls(run, [call(1, 3), call(1, 3)], batches=False)
    assert [shape for shape, _ in run.runs] == [(1, 3), (1, 3)]


def test_the_call_at_fault_fails_alone() -> None:
    good, bad, other = run_calls(Doubling(), [call(1, 3, value=value) for value in (1, -1, 2)], batches=True)
    assert isinstance(bad, RunFailed)
    assert (doubled(good), doubled(other)) == (2, 4)


def test_only_outputs_asked_for_are_computed_and_returned() -> None:
    run = Doubling()
    first, second = run_calls(run, [call(1, 3, outputs=("y",)), call(1, 3, outputs=("z", "y"))], batches=True)
    assert run.runs == [((2, 3), ("y", "z"))]
    assert isinstance(first, dict) and list(first) == ["y"]
    assert isinstance(second, dict) and list(second) == ["z", "y"]


def test_an_output_that_is_not_a_row_a_request_is_not_split() -> None:
    def summed(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {name: inputs["x"].sum(axis=0, keepdims=True) for name in outputs}

    results = run_calls(summed, [call(1, 3), call(2, 3)], batches=True)
    assert isinstance(results[0], dict)
    assert isinstance(results[1], RunFailed)
    assert str(results[1]) == "output 'y' has the shape [1, 3] for a batch of 2"


@pytest.mark.parametrize("batches", [True, False])
def test_no_calls_are_no_runs(batches: bool) -> None:
    run = Doubling()
    assert run_calls(run, [], batches=batches) == []
    assert run.runs == []
