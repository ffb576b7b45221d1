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
    if not value._multiprocess:
        return instrument.inc
    numbers, place = _numbers_of(value), _place(value)

    def add(amount: float) -> None:
        numbers[place] += amount

    return add


def adding_each(*counters: Counter) -> Add:
    """What adds the same to each of several counters, likewise."""
    values = [counter._value for counter in counters]
    if not values[0]._multiprocess:
        return _instead(counters)
    numbers, places = _numbers_of(values[0]), tuple(map(_place, values))  # Counters are in one file.

    def add(amount: float) -> None:
        for place in places:
            numbers[place] += amount

    return add


def observing(histogram: Histogram, bounds: Sequence[float]) -> Add:
    """What counts an amount in a histogram without labels, or with all of them given.

    Args:
        bounds: The upper ones of its buckets, without infinity.
    """
    if not histogram._sum._multiprocess:
        return histogram.observe
    # Of the last bucket: where the file grows in between, the library maps it anew, and more of it.
    numbers, total = _numbers_of(histogram._buckets[-1]), _place(histogram._sum)
    buckets = tuple(map(_place, histogram._buckets))

    def observe(amount: float) -> None:
        numbers[total] += amount
        numbers[buckets[bisect_left(bounds, amount)]] += 1.0  # One on a bound belongs to the bucket below it.

    return observe


def _instead(counters: Sequence[Counter]) -> Add:
    def add(amount: float) -> None:
        for counter in counters:
            counter.inc(amount)

    return add


def _numbers_of(value: Any) -> "memoryview[float]":
    """The file of a value, as numbers; what was mapped before and what is mapped later are the same memory."""
    return memoryview(value._file._m).cast("d")


def _place(value: Any) -> int:
    """Where a value is among them."""
    return int(value._file._positions[value._key]) // 8
