"""The protobuf exposition, and the native histogram in it."""

from io import BytesIO
from typing import Any

import pytest
from google.protobuf.proto import parse_length_prefixed
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Exemplar

from gateway.metrics import protobuf
from gateway.metrics.native import BOUNDS_S, NATIVE, NativeDurations, WithoutNative

_TWO_POINT_FORTY_TWO = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (_TWO_POINT_FORTY_TWO, True),
        ("application/openmetrics-text;version=1.0.0,application/vnd.google.protobuf;q=0.5", False),
        ("text/plain;q=nonsense, application/vnd.google.protobuf", True),
        ("*/*", False),
        ("", False),
    ],
)
def test_it_is_given_to_who_likes_it_best(accept: str, wanted: bool) -> None:
    assert protobuf.wanted(accept) is wanted


def _encoded(registry: CollectorRegistry) -> dict[str, Any]:
    """The families that an exposition holds, by name."""
    stream, families = BytesIO(protobuf.encode(registry.collect())), {}
    while (family := parse_length_prefixed(protobuf.MetricFamily, stream)) is not None:
        families[family.name] = family
    return families


def test_every_kind_of_metric_is_written() -> None:
    registry = CollectorRegistry()
    Counter("calls_total", "Calls.", ("model",), registry=registry).labels("digits").inc(2)
    Gauge("weight", "", registry=registry).set(0.5)
    Histogram("seconds", "", buckets=(1, 2), registry=registry).observe(1.5)
    families = _encoded(registry)
    (calls,), (weight,), (seconds,) = (families[name].metric for name in ("calls_total", "weight", "seconds"))
    assert (families["calls_total"].help, families["calls_total"].type, calls.counter.value) == ("Calls.", 0, 2)
    assert [(label.name, label.value) for label in calls.label] == [("model", "digits")]
    assert (families["weight"].type, weight.gauge.value) == (1, 0.5)
    assert (seconds.histogram.sample_count, seconds.histogram.sample_sum) == (1, 1.5)
    assert [(bucket.upper_bound, bucket.cumulative_count) for bucket in seconds.histogram.bucket] == [
        (1, 0),
        (2, 1),
        (float("inf"), 1),
    ]


def test_an_exemplar_stays_with_its_bucket() -> None:
    registry = CollectorRegistry()
    Histogram("seconds", "", buckets=(1,), registry=registry)
    (family,) = registry.collect()
    family.samples[0] = family.samples[0]._replace(exemplar=Exemplar({"trace_id": "ab"}, 0.5, 12.25))
    message: Any = parse_length_prefixed(protobuf.MetricFamily, BytesIO(protobuf.encode([family])))
    exemplar = message.metric[0].histogram.bucket[0].exemplar
    assert (exemplar.label[0].value, exemplar.value, exemplar.timestamp.seconds) == ("ab", 0.5, 12)
    assert exemplar.timestamp.nanos == 250_000_000


@pytest.mark.parametrize("seconds", [0.0006, 0.001, 0.0421, 1.0, 29.0])
def test_a_time_is_in_the_native_bucket_that_holds_it(seconds: float) -> None:
    registry = CollectorRegistry()
    NativeDurations(registry).of("digits", "1", "ok")(seconds)
    histogram = _encoded(registry)[NATIVE].metric[0].histogram
    (span,) = histogram.positive_span
    base = 2.0 ** (2.0**-histogram.schema)
    assert base ** (span.offset - 1) < seconds <= base**span.offset * (1 + 1e-12)
    assert (span.length, list(histogram.positive_delta), histogram.zero_count) == (1, [1], 0)
    assert not histogram.bucket


def test_native_counts_add_up_with_what_is_below_and_above_all_bounds() -> None:
    registry = CollectorRegistry()
    add = NativeDurations(registry).of("digits", "1", "ok")
    for seconds in (0.0001, 0.01, 0.01, 0.02, 1_000.0):
        add(seconds)
    histogram = _encoded(registry)[NATIVE].metric[0].histogram
    counts = [sum(histogram.positive_delta[: place + 1]) for place in range(len(histogram.positive_delta))]
    assert (histogram.zero_threshold, histogram.zero_count) == (BOUNDS_S[0], 1)
    assert sorted(filter(None, counts)) == [1, 1, 2]
    assert histogram.sample_count == histogram.zero_count + sum(counts)


def test_a_series_without_calls_is_native_too() -> None:
    registry = CollectorRegistry()
    NativeDurations(registry).of("digits", "1", "ok")
    histogram = _encoded(registry)[NATIVE].metric[0].histogram
    assert (histogram.sample_count, histogram.zero_threshold) == (0, BOUNDS_S[0])


def test_other_expositions_leave_it_out() -> None:
    registry = CollectorRegistry()
    NativeDurations(registry).of("digits", "1", "ok")(1)
    Gauge("weight", "", registry=registry).set(1)
    assert [metric.name for metric in WithoutNative(registry).collect()] == ["weight"]
