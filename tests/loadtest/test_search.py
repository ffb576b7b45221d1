from collections import Counter
from dataclasses import dataclass

import pytest

from loadtest.search import find_max


@dataclass(frozen=True, slots=True)
class _Verdict:
    held: bool
    close: bool = False


@pytest.mark.parametrize("first", [1, 50, 97, 3_000])
def test_the_capacity_is_found_from_either_side(first: float) -> None:
    found = find_max(lambda rate: _Verdict(rate <= 97), first, max_rate=10_000, precision=0.05)
    assert found is not None and 97 / 1.05 <= found <= 97


def test_no_rate_over_the_highest_is_tried() -> None:
    tried: list[float] = []

    def run(rate: float) -> _Verdict:
        tried.append(rate)
        return _Verdict(True)

    assert find_max(run, 50, max_rate=300, precision=0.05) == 300
    assert max(tried) == 300


def test_there_may_be_none() -> None:
    assert find_max(lambda rate: _Verdict(False), 50, max_rate=300, precision=0.05) is None


def test_a_close_miss_is_tried_again_and_another_is_not() -> None:
    tried: Counter[float] = Counter()

    def run(rate: float) -> _Verdict:
        tried[rate] += 1
        # By chance every first run misses.
        return _Verdict(rate <= 100 and tried[rate] > 1, close=rate <= 100)

    assert find_max(run, 50, max_rate=10_000, precision=0.05) == pytest.approx(100, rel=0.05)
    assert tried[200] == 1


def test_a_rate_that_held_by_chance_is_not_the_answer() -> None:
    tried: Counter[float] = Counter()

    def run(rate: float) -> _Verdict:
        tried[rate] += 1
        return _Verdict(rate <= 90 or (rate <= 100 and tried[rate] == 1))

    found = find_max(run, 50, max_rate=10_000, precision=0.05)
    assert found is not None and 90 / 1.05 <= found <= 90
