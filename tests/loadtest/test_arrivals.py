import math
from itertools import islice, pairwise
from random import Random

import pytest

from loadtest.arrivals import arrivals
from loadtest.levels import LEVELS
from loadtest.settings import Pattern, ShapeName


def test_constant_arrivals_of_several_users_are_one_even_stream() -> None:
    users = [arrivals(Pattern.CONSTANT, 10, 2, phase=number / 4, random=Random(0)) for number in range(4)]
    merged = sorted(offset for user in users for offset in user)
    assert len(merged) == 80
    assert all(later - earlier == pytest.approx(1 / 40) for earlier, later in pairwise(merged))


def test_poisson_arrivals_are_as_many_as_asked_for_and_as_irregular() -> None:
    offsets = list(arrivals(Pattern.POISSON, 100, 100, random=Random(0)))
    gaps = [later - earlier for earlier, later in pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    # 10,000 arrivals: one standard deviation of their number is 1 %, of the gaps' variation about 1.4 %.
    assert len(offsets) == pytest.approx(10_000, rel=0.04)
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert spread / mean == pytest.approx(1, rel=0.06)


def test_arrivals_without_an_end_go_on() -> None:
    assert len(list(islice(arrivals(Pattern.CONSTANT, 1, random=Random(0)), 1_000))) == 1_000


@pytest.mark.parametrize("pattern", Pattern)
def test_arrivals_follow_a_shape(pattern: Pattern) -> None:
    level = LEVELS[ShapeName.SPIKE]
    offsets = list(arrivals(pattern, 1_000, 10, random=Random(0), level=level))
    # About 1000 in the second of the spike, where one standard deviation is 3 %, and 1800 in the rest.
    assert sum(4.5 <= offset < 5.5 for offset in offsets) == pytest.approx(1_000, rel=0.12)
    assert len(offsets) == pytest.approx(2_800, rel=0.1)


@pytest.mark.parametrize("shape", ShapeName)
def test_a_shape_reaches_its_peak_and_never_stops(shape: ShapeName) -> None:
    levels = [LEVELS[shape](step / 1_000) for step in range(1_000)]
    assert max(levels) == pytest.approx(1, abs=1e-4) and 0.15 < min(levels) <= 1
