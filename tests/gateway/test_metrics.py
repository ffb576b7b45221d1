"""The figures beside those that a running server is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tritonclient.grpc.service_pb2 import ModelStatisticsResponse

from gateway.call import Identity, Scope
from gateway.errors import LimitExceeded, Overloaded, Unavailable
from gateway.metrics.exemplars import ExemplarFile, WithExemplars
from gateway.metrics.instruments import PrometheusMetrics
from gateway.metrics.observation import CallObservation
from gateway.metrics.settings import MetricsSettings
from gateway.metrics.triton_statistics import BatchFigures, Closed, TritonStatistics, why
from gateway.metrics.watchers import CallWatchers
from gateway.metrics.workers import Predecessor, predecessor
from gateway.routing.catalog import Batching
from gateway.settings import LimitSettings
from tests.running import ROOT


def _metrics(registry: CollectorRegistry, max_tenants: int = 100, max_keys: int = 100) -> PrometheusMetrics:
    settings = MetricsSettings(max_tenants=max_tenants, max_keys=max_keys)
    before = Predecessor(lost=2, tenants=frozenset({"before", "_none", "_other"}))
    return PrometheusMetrics(registry, settings, LimitSettings(), CallWatchers(), before)


def _call(
    metrics: PrometheusMetrics, tenant: str | None = None, error: Exception | None = None, subject: str = "key:a"
) -> None:
    with metrics.observe() as observation:
        observation.called_by(Identity(subject, frozenset(Scope), tenant=tenant))
        observation.answered_by("digits", "1")
        observation.asked("", 10, 3)
        if error is not None:
            raise error


def test_tenants_past_the_bound_are_counted_together() -> None:
    registry = CollectorRegistry()
    metrics = _metrics(registry, max_tenants=3)
    for tenant in ("a", "b", "c", "d", "a", None, "before"):
        _call(metrics, tenant)
    counted = {
        tenant: registry.get_sample_value("tidegate_tenant_calls_total", {"tenant": tenant, "outcome": "ok"})
        for tenant in ("a", "b", "c", "d", "_other", "_none", "before")
    }
    assert counted == {"a": 2, "b": 1, "c": None, "d": None, "_other": 2, "_none": 1, "before": 1}
    assert registry.get_sample_value("tidegate_tenant_images_total", {"tenant": "_other"}) == 6


def test_keys_past_the_bound_are_counted_together_and_who_has_none_by_itself() -> None:
    registry = CollectorRegistry()
    metrics = _metrics(registry, max_keys=2)
    for subject in ("key:a", "key:b", "key:c", "key:a", "token:someone", "anonymous"):
        _call(metrics, subject=subject)
    counted = {
        key: registry.get_sample_value("tidegate_key_calls_total", {"key": key, "outcome": "ok"})
        for key in ("a", "b", "c", "_other", "_none", "someone")
    }
    assert counted == {"a": 2, "b": 1, "c": None, "_other": 1, "_none": 2, "someone": None}
    assert registry.get_sample_value("tidegate_key_images_total", {"key": "_none"}) == 6


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Overloaded("full", "in-flight"), "in-flight"),
        (Overloaded("full"), "upstream"),
        (LimitExceeded("no", "key-images", 1, 1, 1), "key-images"),
    ],
)
def test_a_refusal_is_counted_by_its_limit(error: Exception, reason: str) -> None:
    registry = CollectorRegistry()
    metrics = _metrics(registry)
    with pytest.raises(type(error)):
        _call(metrics, error=error)
    labels = {"model": "digits", "reason": reason}
    assert registry.get_sample_value("tidegate_refused_calls_total", labels) == 1


def test_a_refused_stream_is_counted_by_its_limit() -> None:
    registry = CollectorRegistry()
    with pytest.raises(Overloaded), _metrics(registry).observe_stream():
        raise Overloaded("full", "streams")
    labels = {"model": "unknown", "reason": "streams"}
    assert registry.get_sample_value("tidegate_refused_calls_total", labels) == 1
    assert registry.get_sample_value("tidegate_stream_duration_seconds_count", {"outcome": "overloaded"}) == 1
    assert registry.get_sample_value("tidegate_open_streams") == 0


def test_what_a_predecessor_lost_is_counted() -> None:
    registry = CollectorRegistry()
    _metrics(registry)
    assert registry.get_sample_value("tidegate_calls_lost_total") == 2


def test_a_predecessors_files_tell_what_it_lost_and_which_labels_it_had(tmp_path: Path) -> None:
    """Written by a process of its own, because the library is told once where its files are."""
    ended = subprocess.run(
        [sys.executable, "-c", _DIE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 9, ended.stderr
    assert predecessor(tmp_path, 0) == Predecessor(1, frozenset({"acme"}), frozenset({"a", "_none"}))
    assert predecessor(tmp_path, 1) == Predecessor()


_DIE = """
import os, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from gateway.call import Identity
from gateway.metrics.instruments import PrometheusMetrics
from gateway.metrics.settings import MetricsSettings
from gateway.metrics.watchers import CallWatchers
from gateway.metrics.workers import use_files
from gateway.settings import LimitSettings

use_files(Path(sys.argv[1]), 0)
metrics = PrometheusMetrics(CollectorRegistry(), MetricsSettings(), LimitSettings(), CallWatchers())
for subject in ("key:a", "token:b"):
    with metrics.observe() as observation:
        observation.called_by(Identity(subject, frozenset(), tenant="acme"))
metrics.observe()
os._exit(9)
"""


@pytest.mark.parametrize(
    ("size", "batching", "reason"),
    [
        (8, Batching(8, True, frozenset(), 0.01), Closed.FULL),
        (4, Batching(8, True, frozenset({4}), 0.01), Closed.FULL),
        (3, Batching(8, True, frozenset({4}), 0.01), Closed.DELAY_OVER),
        (3, Batching(8, True), Closed.QUEUE_EMPTY),
        (8, Batching(8, False), Closed.NOT_BATCHED),
    ],
)
def test_the_configuration_tells_why_a_batch_was_no_larger(size: int, batching: Batching, reason: Closed) -> None:
    assert why(size, batching) is reason


def batches_of(**executed: int) -> ModelStatisticsResponse:
    """What a Triton says that executed so many batches of each size, as `of_8=2`."""
    response = ModelStatisticsResponse()
    model = response.model_stats.add(name="digits", version="1")
    for size, count in executed.items():
        model.batch_stats.add(batch_size=int(size.removeprefix("of_"))).compute_infer.count = count
    return response


def test_batches_become_a_histogram_for_each_replica() -> None:
    registry = CollectorRegistry()
    batching = {"digits": Batching(8, True, frozenset(), 0.002)}
    registry.register(BatchFigures({0: batches_of(of_1=5, of_8=2), 1: batches_of(of_3=1)}, batching))
    of = {"model": "digits", "version": "1", "replica": "0"}
    assert registry.get_sample_value("tidegate_batch_size_count", of) == 7
    assert registry.get_sample_value("tidegate_batch_size_sum", of) == 21
    assert registry.get_sample_value("tidegate_batch_size_bucket", {**of, "le": "6.0"}) == 5
    assert registry.get_sample_value("tidegate_batches_total", {**of, "reason": "delay-over"}) == 5
    assert registry.get_sample_value("tidegate_batches_total", {**of, "reason": "full"}) == 2
    assert registry.get_sample_value("tidegate_batch_size_sum", {**of, "replica": "1"}) == 3
    assert registry.get_sample_value("tidegate_max_queue_delay_seconds", of) == 0.002


class _Triton:
    def __init__(self, index: int, answer: ModelStatisticsResponse | None) -> None:
        self.index = index
        self._answer = answer

    async def call(self, method: str, request: bytes, deadline: float) -> bytes:
        if self._answer is None:
            raise Unavailable("away")
        return bytes(self._answer.SerializeToString())


class _NoModels:
    models: dict[str, object] = {}


async def test_a_triton_that_does_not_answer_says_nothing() -> None:
    tritons = [_Triton(0, None), _Triton(2, batches_of(of_1=4))]
    registry = CollectorRegistry()
    registry.register(await TritonStatistics(lambda: tritons, _NoModels()).read())  # type: ignore[arg-type]  # Enough of one.
    of = {"model": "digits", "version": "1"}
    assert registry.get_sample_value("tidegate_batch_size_count", {**of, "replica": "2"}) == 4
    assert registry.get_sample_value("tidegate_batch_size_count", {**of, "replica": "0"}) is None


def test_exemplars_of_all_workers_are_read_and_half_written_ones_are_not(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry, MetricsSettings(), LimitSettings(), CallWatchers())
    for worker, seconds in ((0, 0.0035), (1, 0.18)):
        observation = CallObservation(lambda ended, outcome: None)
        observation.trace_id = f"{worker:032x}"
        observation.answered_by("digits", "1")
        ExemplarFile(tmp_path, worker).ended(observation, "ok", observation.started + seconds)
    (tmp_path / "exemplars_2").write_bytes(b'[{"stage": "to\n'.ljust(512, b"\0"))
    _call(metrics)
    kept = WithExemplars(registry, tmp_path)
    found = {
        sample.labels["le"]: sample.exemplar.labels["trace_id"]
        for metric in kept.collect()
        for sample in metric.samples
        if sample.exemplar is not None
    }
    assert found == {"0.004": f"{0:032x}", "0.2": f"{1:032x}"}


def test_without_traces_their_exporter_is_not_imported() -> None:
    code = "import gateway.server, sys; sys.exit('opentelemetry.exporter' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("written", ["in place", "by the library"])
def test_numbers_written_in_place_are_those_of_the_library(tmp_path: Path, written: str) -> None:
    """In a process of its own, because the library is told once where its files are; with labels that make a file grow."""
    ended = subprocess.run(
        [sys.executable, "-c", _WRITE, str(tmp_path), written], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"prometheus_client is not what gateway/metrics/cells.py knows: {ended.stderr}"
    counted = dict(line.split() for line in ended.stdout.splitlines())
    assert counted.pop("series") == str(_SERIES)
    assert counted == {"count": "3", "sum": "6.5", "le1": "1", "le2": "2", "inf": "3", "counter": "2.5", "gauge": "1"}


_SERIES = 3_000
_WRITE = f"""
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector
from gateway.metrics.cells import adding, observing
from gateway.metrics.workers import use_files

folder = Path(sys.argv[1])
use_files(folder, 0)
histogram = Histogram("h", "", ("n",), buckets=(1, 2), registry=None)
counter, gauge = Counter("c", "", registry=None), Gauge("g", "", registry=None, multiprocess_mode="livesum")
first = histogram.labels("0")
in_place = sys.argv[2] == "in place"
observe, count, move = (
    (observing(first, (1, 2)), adding(counter), adding(gauge)) if in_place else (first.observe, counter.inc, gauge.inc)
)
observe(1)
for n in range(1, {_SERIES}):
    histogram.labels(str(n))
observe(2)
observe(3.5)
count(1)
count(1.5)
move(2)
move(-1)
registry = CollectorRegistry()
MultiProcessCollector(registry, str(folder))
for name, sample, labels in (
    ("count", "h_count", {{"n": "0"}}), ("sum", "h_sum", {{"n": "0"}}), ("le1", "h_bucket", {{"n": "0", "le": "1.0"}}),
    ("le2", "h_bucket", {{"n": "0", "le": "2.0"}}), ("inf", "h_bucket", {{"n": "0", "le": "+Inf"}}),
    ("counter", "c_total", {{}}), ("gauge", "g", {{}}),
):
    print(name, f"{{registry.get_sample_value(sample, labels):g}}")
print("series", sum(s.name == "h_count" for m in registry.collect() for s in m.samples))
"""
