"""Runs the requests of one execution as few batches, and gives each its own part or its own error."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[Any]
Tensors = Mapping[str, Tensor]
Run = Callable[[Tensors, Sequence[str]], Tensors]


class RunFailed(ValueError):
    """The engine refused its inputs. The message is the engine's."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        inputs: By name, with the batch dimension where the model batches.
        outputs: The names asked for.
    """

    inputs: Tensors
    outputs: tuple[str, ...]

    @property
    def size(self) -> int:
        """Rows of its batch."""
        return len(next(iter(self.inputs.values())))


def run_calls(run: Run, calls: Sequence[Call], *, batches: bool) -> list[Tensors | RunFailed]:
    """Run all calls, those of equal shapes together.

    A batch that fails is run again call by call, so that only the one at fault fails.

    Args:
        run: Computes the named outputs.
        batches: The first dimension of every tensor is the batch; otherwise each call is run alone.

    Returns:
        For each call, in order, the outputs it asked for or why it has none.
    """
    results: list[Tensors | RunFailed] = [RunFailed("not run")] * len(calls)
    for group in _groups(calls, batches):
        members = [calls[index] for index in group]
        for index, result in zip(group, _run_group(run, members, batches), strict=True):
            results[index] = result
    return results


def _groups(calls: Sequence[Call], batches: bool) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index, call in enumerate(calls):
        shapes = tuple(sorted((name, array.shape[1:]) for name, array in call.inputs.items()))
        groups.setdefault(shapes if batches else index, []).append(index)
    return list(groups.values())


def _run_group(run: Run, calls: Sequence[Call], batches: bool) -> Sequence[Tensors | RunFailed]:
    if len(calls) == 1:
        return [_run_alone(run, calls[0], batches)]
    names = tuple(dict.fromkeys(name for call in calls for name in call.outputs))
    inputs = {name: np.concatenate([call.inputs[name] for call in calls]) for name in calls[0].inputs}
    sizes = [call.size for call in calls]
    try:
        outputs = run(inputs, names)
        _check_batch(outputs, sum(sizes))
    except RunFailed:
        return [_run_alone(run, call, batches) for call in calls]
    ends = np.cumsum(sizes)
    return [
        {name: outputs[name][end - size : end] for name in call.outputs}
        for call, size, end in zip(calls, sizes, ends, strict=True)
    ]


def _run_alone(run: Run, call: Call, batches: bool) -> Tensors | RunFailed:
    try:
        outputs = run(call.inputs, call.outputs)
        if batches:
            _check_batch(outputs, call.size)
    except RunFailed as error:
        return error
    return outputs


def _check_batch(outputs: Tensors, size: int) -> None:
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != size:
            raise RunFailed(f"output '{name}' has the shape {list(array.shape)} for a batch of {size}")
