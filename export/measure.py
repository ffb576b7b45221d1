"""How fast each candidate is on this machine, each in its own runtime, on all cores."""

import os
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from contract.formats import Candidate
from contract.manifest import SpeedPoint
from export.exporters import Run

BATCH_SIZES = (1, 4, 8, 16, 32)
# TorchScript compiles a new shape in its second run.
_WARM_UP_RUNS = 3
# Enough for the runtime's threads to settle, and short beside what else a shared machine does.
_SLICE_S = 0.2

Clock = Callable[[], float]


def measure(
    runs: Mapping[Candidate, Run],
    images: NDArray[np.uint8],
    max_batch_size: int,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> dict[Candidate, tuple[SpeedPoint, ...]]:
    """Time batches of each candidate.

    The candidates take turns in short slices, so that whatever else the machine does meets all of them alike.

    Args:
        images: At least as many as the largest batch.
        max_batch_size: Larger batches are left out.
        seconds: For each candidate at each batch size, after the warm-up; a batch that has begun is finished.
        clock: In seconds.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    points: dict[Candidate, list[SpeedPoint]] = {candidate: [] for candidate in runs}
    for batch_size in (size for size in BATCH_SIZES if size <= max_batch_size):
        batch = np.ascontiguousarray(images[:batch_size])
        for candidate, durations in _take_turns(runs, batch, seconds, clock).items():
            points[candidate].append(_point(batch_size, durations))
    return {candidate: tuple(measured) for candidate, measured in points.items()}


def _take_turns(
    runs: Mapping[Candidate, Run], batch: NDArray[np.uint8], seconds: float, clock: Clock
) -> dict[Candidate, list[float]]:
    durations: dict[Candidate, list[float]] = {candidate: [] for candidate in runs}
    for run in runs.values():
        for _ in range(_WARM_UP_RUNS):
            run(batch)
    waiting = dict(runs)
    while waiting:
        for candidate, run in waiting.items():
            durations[candidate] += _slice(run, batch, clock)
        waiting = {candidate: run for candidate, run in waiting.items() if sum(durations[candidate]) < seconds}
    return durations


def _slice(run: Run, batch: NDArray[np.uint8], clock: Clock) -> Sequence[float]:
    durations: list[float] = []
    started = now = clock()
    while now - started < _SLICE_S:
        begun = now
        run(batch)
        now = clock()
        durations.append(now - begun)
    return durations


def _point(batch_size: int, durations: Sequence[float]) -> SpeedPoint:
    p50, p99 = np.percentile(durations, [50, 99])
    return SpeedPoint(
        batch_size=batch_size,
        images_per_s=float(batch_size / p50),
        p50_ms=float(p50 * 1e3),
        p99_ms=float(p99 * 1e3),
        runs=len(durations),
    )
