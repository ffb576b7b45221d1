"""The highest rate that holds, found by trying rates."""

from collections.abc import Callable
from typing import Protocol

# Of the first rate: below it the search gives up.
_FLOOR = 1 / 1_024


class Verdict(Protocol):
    """What became of one run."""

    @property
    def held(self) -> bool:
        """The SLO was held."""

    @property
    def close(self) -> bool:
        """It was missed by so little that chance may have done it."""


def find_max(
    run: Callable[[float], Verdict],
    first: float,
    *,
    max_rate: float,
    precision: float,
    step: float = 2.0,
    confirm: bool = True,
) -> float | None:
    """Double or halve until one rate holds and another does not, then halve the distance between the two.

    A rate that misses closely is tried again. The rate that is found must hold once more: else one lower by `precision` is
    tried.

    Args:
        run: Make a run at a rate.
        precision: The two ends, as 1 + this, when the search ends.
        step: More than 1; less than 2 where `first` is known to be near.
        confirm: Without it, once is enough.

    Returns:
        A rate; None where even the lowest that was tried does not hold.
    """

    def holds(rate: float) -> bool:
        verdict = run(rate)
        return verdict.held or (verdict.close and run(rate).held)

    bracket = _bracket(holds, min(first, max_rate), max_rate, step)
    if bracket is None:
        return None
    low, high = bracket
    while high > low * (1 + precision):
        middle = (low * high) ** 0.5
        if holds(middle):
            low = middle
        else:
            high = middle
    if not confirm or holds(low):
        return low
    while (low := low / (1 + precision)) > first * _FLOOR:
        if holds(low) and holds(low):
            return low
    return None


def _bracket(holds: Callable[[float], bool], first: float, max_rate: float, step: float) -> tuple[float, float] | None:
    """The highest rate known to hold and the lowest known not to; equal where the highest allowed holds."""
    rate = first
    if holds(rate):
        while rate < max_rate:
            higher = min(rate * step, max_rate)
            if not holds(higher):
                return rate, higher
            rate = higher
        return rate, rate
    while rate > first * _FLOOR:
        lower = rate / step
        if holds(lower):
            return lower, rate
        rate = lower
    return None
