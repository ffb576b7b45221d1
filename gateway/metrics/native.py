"""The time of whole calls in a native histogram: exponential buckets that Prometheus can merge and draw as they are.

A worker keeps it as it keeps the others, with the bounds of a native histogram; the exposition for scrapers that ask for
protobuf makes one of it, and the others leave it out. It has a name of its own, because a Prometheus that takes native
histograms drops classic buckets of the same name.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.metrics.cells import Add, observing

NATIVE = "tidegate_call_duration_seconds"

# Four buckets from one power of 2 to the next: each reaches 19 % further than the one below.
_SCHEMA = 2
# The places of the first bound and the last, 0.5 ms and 304 s; a bound is 2 ** (place / 4).
_FIRST, _LAST = -44, 33
BOUNDS_S = tuple(2 ** (place / 2**_SCHEMA) for place in range(_FIRST, _LAST + 1))


class NativeDurations:
    """Times of calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histogram = Histogram(
            NATIVE,
            "Time of an inference call, as a native histogram; only in protobuf.",
            ("model", "version", "outcome"),
            buckets=BOUNDS_S,
            registry=registry,
        )

    def of(self, model: str, version: str, outcome: str) -> Add:
        """What counts the time of a call."""
        return observing(self._histogram.labels(model, version, outcome), BOUNDS_S)


def make_native(histogram: Any, cumulative: Sequence[int]) -> None:
    """Fill in the native fields of an `io.prometheus.client.Histogram`.

    Args:
        cumulative: Counts up to each of the bounds, and up to infinity. What is over the last bound counts as just over.
    """
    lowest, *counts = (count - below for below, count in zip((0, *cumulative), cumulative, strict=False))
    histogram.schema = _SCHEMA
    histogram.zero_threshold, histogram.zero_count = BOUNDS_S[0], lowest
    filled = [place for place, count in enumerate(counts) if count]
    if not filled:
        return
    first, last = filled[0], filled[-1]
    histogram.positive_span.add(offset=_FIRST + 1 + first, length=last - first + 1)
    run = counts[first : last + 1]
    histogram.positive_delta.extend(count - before for before, count in zip((0, *run), run, strict=False))


class WithoutNative(Collector):
    """What another collector gives, but for the native histogram."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        """Every metric but that."""
        return (metric for metric in self._collector.collect() if metric.name != NATIVE)
