"""The figures of the console, from those of the workers and of Triton."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gateway.call import CacheStatus, Identity, Scope
from gateway.errors import Unavailable
from gateway.figures import CacheTier
from gateway.metrics.caches import CacheCounters
from gateway.metrics.fleet import PrometheusFleet
from gateway.metrics.instruments import BUCKETS_S, PrometheusMetrics
from gateway.metrics.live import Live, LiveFigures, figures
from gateway.metrics.settings import MetricsSettings
from gateway.metrics.triton_statistics import BatchFigures
from gateway.metrics.watchers import CallWatchers
from gateway.routing.catalog import Batching, Model
from gateway.settings import LimitSettings
from tests.gateway.test_metrics import batches_of


class _Replica:
    index, address, health, weight, outstanding = 3, "127.0.0.1:1", "good", 0.5, 2
    serves = frozenset({("digits", "1"), ("digits", "2")})


def _model(name: str, *versions: int) -> Model:
    return Model(name, versions, (), (), batches=True, cacheable=True, takes_timeout=False)


def _figures(registry: CollectorRegistry, *served: Model) -> LiveFigures:
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    return figures(samples, {model.name: model for model in served}, [_Replica()])


@pytest.fixture
def registry() -> CollectorRegistry:
    """Of a worker that answered two calls of `digits`, one of them from Redis, and failed one."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry, MetricsSettings(), LimitSettings(max_in_flight=7), CallWatchers())
    for cache, error in ((CacheStatus.HIT, None), (CacheStatus.MISS, None), (CacheStatus.MISS, Unavailable("away"))):
        try:
            with metrics.observe() as observation:
                observation.called_by(Identity("key:a", frozenset(Scope), tenant="acme"))
                observation.answered_by("digits", "1")
                observation.asked("", 10, 3)
                observation.cached(cache)
                if error is not None:
                    raise error
        except Unavailable:
            pass
    CacheCounters(registry).hit("digits", CacheTier.L2)
    fleet = PrometheusFleet(registry)
    fleet.replica_up(3, True)
    fleet.traffic_weight("digits", "2", 0.1)
    registry.register(BatchFigures({3: batches_of(of_1=5, of_8=2)}, {"digits": Batching(8, True)}))
    return registry


def test_calls_are_counted_by_version_and_outcome(registry: CollectorRegistry) -> None:
    (model,) = _figures(registry, _model("digits", 1, 2)).models
    first, second = model.versions
    assert (first.version, first.ready, first.calls) == ("1", True, {"ok": 2, "unavailable": 1})
    assert (second.version, second.ready, second.calls, second.weight) == ("2", True, {}, 0.1)
    assert model.images == 6


def test_only_answered_calls_have_a_time_and_each_has_one(registry: CollectorRegistry) -> None:
    (model,) = _figures(registry).models
    within = model.versions[0].answered_within
    assert (len(within), sum(within)) == (len(BUCKETS_S) + 1, 2)


def test_hits_are_told_apart_by_where_the_answer_was(registry: CollectorRegistry) -> None:
    (model,) = _figures(registry).models
    assert model.cache == {"l2": 1, "miss": 2}


def test_batches_are_counted_by_size(registry: CollectorRegistry) -> None:
    (model,) = _figures(registry).models
    assert model.batches == {"1.0": 5, "8.0": 2}


def test_a_model_that_nobody_called_is_there(registry: CollectorRegistry) -> None:
    models = _figures(registry, _model("cats", 4), _model("cats_encoded", 4)).models
    assert [(each.model, each.photographs) for each in models] == [
        ("cats", True),
        ("cats_encoded", False),
        ("digits", False),
    ]
    assert [each.ready for each in models[2].versions] == [False, False]


def test_keys_are_there_with_what_they_used(registry: CollectorRegistry) -> None:
    (key,) = _figures(registry).keys
    assert (key.key, key.calls, key.failed, key.images) == ("a", 3, 1, 6)


def test_tenants_replicas_and_room_are_there(registry: CollectorRegistry) -> None:
    read = _figures(registry)
    (tenant,) = read.tenants
    assert (tenant.tenant, tenant.calls, tenant.images) == ("acme", 3, 6)
    (replica,) = read.replicas
    assert (replica.replica, replica.up, replica.weight, replica.calls, replica.serves) == (3, True, 0.5, 2, 2)
    assert (read.in_flight, read.max_in_flight) == (0, 7)


class _Statistics:
    def __init__(self) -> None:
        self.reads = 0

    async def read(self) -> BatchFigures:
        self.reads += 1
        return BatchFigures({}, {})


class _Catalog:
    models: dict[str, Model] = {}


async def test_many_who_ask_at_once_are_one_read(tmp_path: Path) -> None:
    statistics = _Statistics()
    live = Live(tmp_path, statistics, _Catalog(), lambda: [_Replica()])  # type: ignore[arg-type]  # Enough of both.
    answers = await asyncio.gather(*(live.read() for _ in range(20)))
    assert statistics.reads == 1
    assert all(answer is answers[0] for answer in answers)
