import numpy as np
import pytest
from numpy.typing import NDArray

from contract.formats import Candidate
from export.machine import machine
from export.measure import measure

IMAGES = np.zeros((32, 2, 2, 3), dtype=np.uint8)


class Clock:
    """Moves only when a candidate runs."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Takes:
    """A candidate that takes some seconds for every image."""

    def __init__(self, clock: Clock, seconds: float, order: list[float]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._order = order

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._clock.now_s += self._seconds * len(images)
        self._order.append(self._seconds)
        return np.zeros((len(images), 2), dtype=np.float32)


def test_figures_are_those_of_the_clock() -> None:
    clock = Clock()
    speeds = measure({Candidate.ONNX: Takes(clock, 0.01, [])}, IMAGES, 8, 1.0, clock)[Candidate.ONNX]
    assert [point.batch_size for point in speeds] == [1, 4, 8]
    for point in speeds:
        # The clock adds binary fractions.
        assert point.images_per_s == pytest.approx(100)
        assert point.p50_ms == pytest.approx(10 * point.batch_size)
        assert point.p99_ms == pytest.approx(10 * point.batch_size)
        assert 1.0 <= point.runs * point.p50_ms / 1e3 < 1.0 + 0.2 + point.p50_ms / 1e3


def test_candidates_take_turns() -> None:
    clock = Clock()
    order: list[float] = []
    runs = {Candidate.ONNX: Takes(clock, 0.1, order), Candidate.OPENVINO: Takes(clock, 0.05, order)}
    measure(runs, IMAGES, 1, 1.0, clock)
    turns = sum(1 for before, after in zip(order, order[1:], strict=False) if before != after)
    assert turns >= 8


def test_batch_slower_than_the_limit_is_timed_once() -> None:
    clock = Clock()
    (point,) = measure({Candidate.ONNX: Takes(clock, 3.0, [])}, IMAGES, 1, 1.0, clock)[Candidate.ONNX]
    assert point.runs == 1
    assert point.p50_ms == pytest.approx(3_000)


def test_machine_is_this_one() -> None:
    assert machine().cores >= 1
    assert machine().processor
