"""Latencies in buckets that grow by 1 %: counts of many processes add up, and percentiles are exact to half of that."""

import math
from collections import Counter
from collections.abc import Mapping

_GROWTH = 0.01
_FLOOR_S = 1e-5
_CEILING_S = 1_000.0
_LOG_GROWTH = math.log1p(_GROWTH)

Histogram = Counter[int]


def bucket(seconds: float) -> int:
    """The number of the bucket whose middle is nearest, from 10 µs to 1000 s."""
    return round(math.log(min(max(seconds, _FLOOR_S), _CEILING_S) / _FLOOR_S) / _LOG_GROWTH)


def middle(number: int) -> float:
    """Seconds in the middle of a bucket."""
    return _FLOOR_S * math.exp(number * _LOG_GROWTH)


def quantile(counts: Mapping[int, int], fraction: float, beyond: int = 0) -> float:
    """The latency that a fraction did not exceed, seconds.

    Args:
        beyond: Requests slower than any that is counted.

    Returns:
        Infinity where that many were beyond; NaN where there are none at all.
    """
    total = sum(counts.values()) + beyond
    if total == 0:
        return math.nan
    rank = max(1, math.ceil(fraction * total))
    seen = 0
    for number in sorted(counts):
        seen += counts[number]
        if seen >= rank:
            return middle(number)
    return math.inf


def mean(counts: Mapping[int, int]) -> float:
    """Seconds; NaN where there are none."""
    total = sum(counts.values())
    return sum(middle(number) * count for number, count in counts.items()) / total if total else math.nan
