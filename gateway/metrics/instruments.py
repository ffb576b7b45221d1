"""The gateway's own figures, in files that every worker's exposition reads.

The labels are stages, outcomes and names of served models: never a caller's text.
"""

from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.call import CacheStatus
from gateway.errors import ErrorKind, GatewayError

BUCKETS_S = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0,
)  # fmt: skip
STREAM_BUCKETS_S = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0)

UNKNOWN = "unknown"
OK = "ok"
CANCELLED = "cancelled"


class CallObservation:
    """The figures of one call: the times at which its stages ended, and what became of it."""

    __slots__ = ("cache", "model", "stages", "started", "version")

    def __init__(self) -> None:
        self.model = UNKNOWN
        self.version = UNKNOWN
        self.cache = CacheStatus.BYPASS
        self.started = perf_counter()
        self.stages: list[tuple[str, float]] = []

    def stage(self, name: str) -> None:
        """The stage `name` ends now; the next begins."""
        self.stages.append((name, perf_counter()))

    def answered_by(self, model: str, version: str) -> None:
        """The model is known to be one that is served."""
        self.model, self.version = model, version

    def cached(self, status: CacheStatus) -> None:
        """What the cache did."""
        self.cache = status


class PrometheusMetrics:
    """Histograms of latency by stage, model, version and outcome; counters of the cache; a gauge of what is in flight."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._duration = Histogram(
            "tidegate_stage_duration_seconds",
            "Time an inference call spent in a stage; the stage 'total' is the whole call.",
            ("stage", "model", "version", "outcome"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._cache = Counter(
            "tidegate_cache_requests_total",
            "Inference calls by what the response cache did.",
            ("model", "status"),
            registry=registry,
        )
        self._in_flight = Gauge(
            "tidegate_in_flight_calls",
            "Inference calls being worked on.",
            registry=registry,
            multiprocess_mode="sum",
        )
        self._in_flight.set(0)
        self._stream_duration = Histogram(
            "tidegate_stream_duration_seconds",
            "How long streams of inference calls were open.",
            ("outcome",),
            buckets=STREAM_BUCKETS_S,
            registry=registry,
        )
        self._open_streams = Gauge(
            "tidegate_open_streams",
            "Streams of inference calls that are open.",
            registry=registry,
            multiprocess_mode="sum",
        )
        self._open_streams.set(0)
        self._durations: dict[tuple[str, str, str, str], Histogram] = {}
        self._statuses: dict[tuple[str, str], Counter] = {}

    @contextmanager
    def observe(self) -> Iterator[CallObservation]:
        """Measure a call from entry to exit; an exception that leaves the block is its outcome."""
        observation = CallObservation()
        with self._in_flight.track_inprogress(), _outcome(lambda outcome: self._record(observation, outcome)):
            yield observation

    @contextmanager
    def observe_stream(self) -> Iterator[None]:
        """Measure a stream of calls likewise; its calls are measured one by one."""
        started = perf_counter()

        def record(outcome: str) -> None:
            self._stream_duration.labels(outcome).observe(perf_counter() - started)

        with self._open_streams.track_inprogress(), _outcome(record):
            yield

    def _record(self, observation: CallObservation, outcome: str) -> None:
        before = observation.started
        for stage, ended in observation.stages:
            self._histogram(stage, observation, outcome).observe(ended - before)
            before = ended
        self._histogram("total", observation, outcome).observe(perf_counter() - observation.started)
        status = (observation.model, observation.cache.value)
        if status not in self._statuses:
            self._statuses[status] = self._cache.labels(*status)
        self._statuses[status].inc()

    def _histogram(self, stage: str, observation: CallObservation, outcome: str) -> Histogram:
        key = (stage, observation.model, observation.version, outcome)
        child = self._durations.get(key)
        if child is None:
            child = self._durations[key] = self._duration.labels(*key)
        return child


def certificate_expiry() -> Gauge:
    """When the certificate that is served ends, the earliest of all workers."""
    return Gauge(
        "tidegate_certificate_expiry_timestamp_seconds",
        "When the certificate of the public ports expires, seconds since 1970.",
        registry=CollectorRegistry(),
        multiprocess_mode="min",
    )


@contextmanager
def _outcome(record: Callable[[str], None]) -> Iterator[None]:
    """Record what became of the block."""
    outcome = ErrorKind.INTERNAL.value
    try:
        yield
        outcome = OK
    except GatewayError as error:
        outcome = error.kind.value
        raise
    except CancelledError:
        outcome = CANCELLED
        raise
    finally:
        record(outcome)
