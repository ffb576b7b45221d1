"""The numbers behind prometheus_client's instruments, added to in place.

The library's own way takes a lock, asks for the process id and packs two numbers, for each of the twenty that a call adds to.
A worker counts on one thread, and its numbers lie in memory that is mapped to its files; so they are added to there, which
is as good after a SIGKILL.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

Add = Callable[[float], None]


def adding(instrument: Counter | Gauge) -> Add:
    """What adds to a counter or gauge without labels, or with all of them given."""
    value = instrument._value
    return _Number(value).add if value._multiprocess else instrument.inc


def observing(histogram: Histogram, bounds: Sequence[float]) -> Add:
    """What counts an amount in a histogram without labels, or with all of them given.

    Args:
        bounds: The upper ones of its buckets, without infinity.
    """
    return _Buckets(histogram, bounds).observe if histogram._sum._multiprocess else histogram.observe


class _Number:
    __slots__ = ("_at", "_numbers")

    def __init__(self, value: Any) -> None:
        self._numbers = _numbers_of(value)
        self._at = _place(value)

    def add(self, amount: float) -> None:
        self._numbers[self._at] += amount


class _Buckets:
    __slots__ = ("_bounds", "_buckets", "_numbers", "_sum")

    def __init__(self, histogram: Histogram, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        # All of them: where the file grows in between, the library maps it anew, and more of it.
        self._numbers = _numbers_of(histogram._buckets[-1])
        self._sum = _place(histogram._sum)
        self._buckets = [_place(bucket) for bucket in histogram._buckets]

    def observe(self, amount: float) -> None:
        """An amount on a bound belongs to the bucket below it."""
        self._numbers[self._sum] += amount
        self._numbers[self._buckets[bisect_left(self._bounds, amount)]] += 1.0


def _numbers_of(value: Any) -> "memoryview[float]":
    """The file of a value, as numbers; what was mapped before and what is mapped later are the same memory."""
    return memoryview(value._file._m).cast("d")


def _place(value: Any) -> int:
    """Where a value is among them."""
    return int(value._file._positions[value._key]) // 8
