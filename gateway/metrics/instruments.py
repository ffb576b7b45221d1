"""The gateway's own figures, in files that every worker's exposition reads.

The labels are stages, outcomes, reasons, and names of served models and of tenants: never a caller's text.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.call import CacheStatus, Headers, no_headers
from gateway.errors import LimitExceeded, Overloaded
from gateway.metrics.cells import Add, adding, adding_each, observing
from gateway.metrics.native import NativeDurations
from gateway.metrics.observation import OK, CallObservation, outcome_of
from gateway.metrics.settings import MetricsSettings
from gateway.metrics.watchers import CallWatchers
from gateway.metrics.workers import Predecessor
from gateway.settings import LimitSettings

DURATION = "tidegate_stage_duration_seconds"
TOTAL = "total"
BUCKETS_S = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0,
)  # fmt: skip
STREAM_BUCKETS_S = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0)

_MAX_SERIES = 10_000

# No tenant and no key has such a name.
NONE = "_none"
OTHERS = "_other"
_KEY = "key:"


class PrometheusMetrics:
    """Counts every call, and shows it to who watches calls."""

    def __init__(
        self,
        registry: CollectorRegistry,
        settings: MetricsSettings,
        limits: LimitSettings,
        watchers: CallWatchers,
        predecessor: Predecessor = Predecessor(),
    ) -> None:
        """Begin, or go on where the files are a predecessor's."""
        self._watchers = watchers
        self._calls = _Calls(registry)
        self._calls.lost.inc(predecessor.lost)
        self._calls.most.set(limits.max_in_flight)
        self._begin, self._in_flight = adding(self._calls.started), adding(self._calls.in_flight)
        self._by_outcome = _ByOutcome(registry)
        self._native = NativeDurations(registry)
        self._by_model = _ByModel(registry)
        self._by_tenant = _ByCaller(registry, "tenant")
        self._by_key = _ByCaller(registry, "key")
        self._tenants = _Labels(settings.max_tenants, predecessor.tenants)
        self._keys = _Labels(settings.max_keys, predecessor.keys, _KEY)
        self._series: dict[tuple[str, str, str, CacheStatus, str, str], _Series] = {}

    def observe(self, headers: Headers = no_headers) -> CallObservation:
        """Measure a call from entry to exit; an exception that leaves the block is its outcome."""
        self._begin(1)
        self._in_flight(1)
        return self._watchers.observe(self._record, headers)

    @contextmanager
    def observe_stream(self) -> Iterator[None]:
        """Measure a stream of calls likewise; its calls are measured one by one."""
        started = perf_counter()
        error: BaseException | None = None
        try:
            with self._calls.open_streams.track_inprogress():
                yield
        except BaseException as raised:
            error = raised
            self._count_refusal("unknown", raised)
            raise
        finally:
            self._calls.stream_duration.labels(outcome_of(error)).observe(perf_counter() - started)

    def _record(self, observation: CallObservation, outcome: str) -> None:
        ended = perf_counter()
        key = (
            observation.model,
            observation.version,
            outcome,
            observation.cache,
            self._tenants[observation.tenant],
            self._keys[observation.subject],
        )
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._series_of(*key)
        series.record(observation, ended)
        if observation.error is not None:
            self._count_refusal(observation.model, observation.error)
        self._in_flight(-1)
        self._watchers.ended(observation, outcome, ended)

    def _series_of(
        self, model: str, version: str, outcome: str, cache: CacheStatus, tenant: str, key: str
    ) -> "_Series":
        """Forgets the others when they are many: models come and go."""
        if len(self._series) >= _MAX_SERIES:
            self._series.clear()
        return _Series(
            stages=self._by_outcome.stages(model, version, outcome),
            total=self._native.of(model, version, outcome),
            once=adding_each(
                self._by_model.cache.labels(model, cache.value),
                self._by_tenant.calls.labels(tenant, outcome),
                self._by_key.calls.labels(key, outcome),
            ),
            sizes=self._by_model.sizes(model),
            images=self._images(model, tenant, key) if outcome == OK else None,
        )

    def _images(self, model: str, tenant: str, key: str) -> Add:
        return adding_each(
            self._by_model.images.labels(model),
            self._by_tenant.images.labels(tenant),
            self._by_key.images.labels(key),
        )

    def _count_refusal(self, model: str, error: BaseException) -> None:
        if isinstance(error, Overloaded):
            self._calls.refused.labels(model, error.reason).inc()
        elif isinstance(error, LimitExceeded):
            self._calls.refused.labels(model, error.limit).inc()


class _Calls:
    """What begins, is under way, and is refused or lost."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.started = Counter("tidegate_calls_started_total", "Inference calls begun.", registry=registry)
        self.lost = Counter(
            "tidegate_calls_lost_total", "Inference calls that a worker took with it when it died.", registry=registry
        )
        self.in_flight = _live(registry, "tidegate_in_flight_calls", "Inference calls being worked on.")
        self.most = _live(registry, "tidegate_max_in_flight_calls", "Inference calls that may be worked on at once.")
        self.open_streams = _live(registry, "tidegate_open_streams", "Streams of inference calls that are open.")
        self.stream_duration = Histogram(
            "tidegate_stream_duration_seconds",
            "How long streams of inference calls were open.",
            ("outcome",),
            buckets=STREAM_BUCKETS_S,
            registry=registry,
        )
        self.refused = Counter(
            "tidegate_refused_calls_total",
            "Inference calls and streams refused for want of room, and by which limit.",
            ("model", "reason"),
            registry=registry,
        )


class _ByOutcome:
    """The histogram of stages."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histogram = Histogram(
            DURATION,
            "Time an inference call spent in a stage; the stage 'total' is the whole call.",
            ("stage", "model", "version", "outcome"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._stages: dict[tuple[str, str, str], _Stages] = {}

    def stages(self, model: str, version: str, outcome: str) -> "_Stages":
        """By name; calls that differ in other labels share them."""
        key = (model, version, outcome)
        if key not in self._stages:
            self._stages[key] = _Stages(lambda stage: observing(self._histogram.labels(stage, *key), BUCKETS_S))
        return self._stages[key]


def certificate_expiry() -> Gauge:
    """When the certificate that is served ends, the earliest of all workers."""
    return Gauge(
        "tidegate_certificate_expiry_timestamp_seconds",
        "When the certificate of the public ports expires, seconds since 1970.",
        registry=CollectorRegistry(),
        multiprocess_mode="livemin",
    )


class _ByModel:
    """What the cache did, images, and bytes in and out."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.cache = Counter(
            "tidegate_cache_requests_total",
            "Inference calls by what the response cache did.",
            ("model", "status"),
            registry=registry,
        )
        self.images = Counter(
            "tidegate_images_total", "Images in calls that were answered.", ("model",), registry=registry
        )
        self._request_bytes = Counter(
            "tidegate_request_bytes_total",
            "Bytes of serialized requests that were read.",
            ("model",),
            registry=registry,
        )
        self._response_bytes = Counter(
            "tidegate_response_bytes_total", "Bytes of serialized answers.", ("model",), registry=registry
        )

    def sizes(self, model: str) -> tuple[Add, Add]:
        """What counts the bytes of requests, and of answers."""
        return adding(self._request_bytes.labels(model)), adding(self._response_bytes.labels(model))


class _ByCaller:
    """What tenants use, or keys."""

    def __init__(self, registry: CollectorRegistry, caller: str) -> None:
        self.calls = Counter(
            f"tidegate_{caller}_calls_total", f"Inference calls of a {caller}.", (caller, "outcome"), registry=registry
        )
        self.images = Counter(
            f"tidegate_{caller}_images_total",
            f"Images in a {caller}'s calls that were answered.",
            (caller,),
            registry=registry,
        )


class _Labels(dict[str | None, str]):
    """By name: its label, which the first so many names have for themselves.

    Args:
        kept: Labels that there are already: they have no end while the files last.
        prefix: Of the names that may have one; the label is without it.
    """

    def __init__(self, most: int, kept: frozenset[str], prefix: str = "") -> None:
        super().__init__({prefix + label: label for label in kept - {NONE, OTHERS}})
        self._most = most
        self._prefix = prefix

    def __missing__(self, name: str | None) -> str:
        if name is None or not name.startswith(self._prefix):
            return NONE
        if len(self) >= self._most:
            return OTHERS
        self[name] = label = name.removeprefix(self._prefix)
        return label


class _Stages(dict[str, Add]):
    """What counts the time of a stage, by its name, made when it is first asked for."""

    def __init__(self, of: Callable[[str], Add]) -> None:
        self._of = of

    def __missing__(self, stage: str) -> Add:
        self[stage] = add = self._of(stage)
        return add


@dataclass(frozen=True, slots=True)
class _Series:
    """What calls that have all their labels in common are added to: looked up once a call.

    Attributes:
        stages: The time of each stage, by its name.
        total: That of the whole call once more, in the native histogram.
        once: Calls, by what the cache did and by caller.
        sizes: Bytes of requests, and of answers.
        images: Images; None where the calls were not answered.
    """

    stages: _Stages
    total: Add
    once: Add
    sizes: tuple[Add, Add]
    images: Add | None

    def record(self, observation: CallObservation, ended: float) -> None:
        """Add a call."""
        stages = self.stages
        before = observation.started
        for stage, at in observation.stages:
            stages[stage](at - before)
            before = at
        seconds = ended - observation.started
        stages[TOTAL](seconds)
        self.total(seconds)
        self.once(1)
        if observation.request_bytes:
            self.sizes[0](observation.request_bytes)
            self.sizes[1](observation.response_bytes)
            if self.images is not None:
                self.images(observation.images)


def _live(registry: CollectorRegistry, name: str, documentation: str) -> Gauge:
    """A gauge that is summed over the workers that live."""
    gauge = Gauge(name, documentation, registry=registry, multiprocess_mode="livesum")
    gauge.set(0)
    return gauge
