"""The figures of now in one small answer, for the console: counted since the workers began, so that a reader subtracts."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from gateway.metrics.instruments import BUCKETS_S, DURATION, TOTAL
from gateway.metrics.observation import OK
from gateway.metrics.triton_statistics import TritonStatistics
from gateway.routing.catalog import Model, ModelCatalog, takes_photographs

_AT_MOST_EVERY_S = 0.5
_BOUNDS = {repr(bound): place for place, bound in enumerate(BUCKETS_S)}


@dataclass(slots=True)
class VersionFigures:
    """One version of a model.

    Attributes:
        calls: By outcome.
        answered_within: Answered calls by the place of their time among `bounds_s`; the last were slower than all.
        weight: Its share of the model's calls by policy, 0 to 1; None where no policy says.
        ready: It is served.
    """

    version: str
    ready: bool = False
    calls: dict[str, int] = field(default_factory=dict)
    answered_within: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    weight: float | None = None


@dataclass(slots=True)
class ModelFigures:
    """One model.

    Attributes:
        images: In calls that were answered.
        cache: Calls by what the cache did; `l1` and `l2` are hits, by where the answer was.
        batches: Batches that Triton executed, by the bucket of their size.
        photographs: `classify` takes it.
    """

    model: str
    photographs: bool = False
    images: int = 0
    cache: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    versions: list[VersionFigures] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """What a tenant used."""

    tenant: str
    calls: int
    images: int


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """What a key used.

    Attributes:
        key: Its id.
        failed: Of its calls, those that were not answered.
    """

    key: str
    calls: int
    failed: int
    images: int


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """One Triton, as the worker that was asked sees it, but for `up`.

    Attributes:
        health: What its last check found.
        up: It takes calls from every worker.
        weight: Its share of the calls that a warm one gets.
        calls: Under way.
        serves: Versions that are ready.
    """

    replica: int
    address: str
    health: str
    up: bool
    weight: float
    calls: int
    serves: int


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """All of it.

    Attributes:
        at: When it was read, seconds since 1970.
        bounds_s: Upper ones, of the times by which calls are counted.
        in_flight: Calls being worked on, of `max_in_flight`.
    """

    at: float
    bounds_s: Sequence[float]
    in_flight: int
    max_in_flight: int
    models: list[ModelFigures]
    tenants: list[TenantFigures]
    keys: list[KeyFigures]
    replicas: list[ReplicaFigures]


class Replica(Protocol):
    """What is shown of a replica; `gateway/upstream/replica.py` says what each is."""

    @property
    def index(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def health(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def outstanding(self) -> int: ...
    @property
    def serves(self) -> frozenset[tuple[str, str]]: ...


class Live:
    """Reads the files of all workers, and asks the Tritons, at most twice a second, however many ask.

    Args:
        replicas: Gives those there are now.
    """

    def __init__(
        self,
        metrics_dir: Path,
        statistics: TritonStatistics,
        catalog: ModelCatalog,
        replicas: Callable[[], Sequence[Replica]],
    ) -> None:
        self._metrics_dir = metrics_dir
        self._statistics = statistics
        self._catalog = catalog
        self._replicas = replicas
        self._reading = asyncio.Lock()
        self._read: LiveFigures | None = None
        self._again_at = 0.0

    async def read(self) -> LiveFigures:
        """The figures, up to half a second old."""
        async with self._reading:
            if self._read is None or time.monotonic() >= self._again_at:
                batches = await self._statistics.read()
                collectors = (MultiProcessCollector(None, str(self._metrics_dir)), batches)  # type: ignore[no-untyped-call]  # Untyped library.
                served, replicas = dict(self._catalog.models), tuple(self._replicas())
                self._read = await asyncio.to_thread(lambda: figures(_samples(collectors), served, replicas))
                self._again_at = time.monotonic() + _AT_MOST_EVERY_S
            return self._read


def _samples(collectors: Iterable[Collector]) -> Iterator[Sample]:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return (sample for metric in registry.collect() for sample in metric.samples)


def figures(samples: Iterable[Sample], served: Mapping[str, Model], replicas: Iterable[Replica]) -> LiveFigures:
    """Sum samples up.

    Args:
        served: By name.
    """
    named: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        named[sample.name].append(sample)
    up = {sample.labels["replica"]: bool(sample.value) for sample in named["tidegate_replica_up"]}
    return LiveFigures(
        at=time.time(),
        bounds_s=BUCKETS_S,
        in_flight=_sum(named["tidegate_in_flight_calls"]),
        max_in_flight=_sum(named["tidegate_max_in_flight_calls"]),
        models=list(_models(named, served)),
        tenants=list(_tenants(named)),
        keys=list(_keys(named)),
        replicas=[
            ReplicaFigures(
                replica=replica.index,
                address=replica.address,
                health=str(replica.health),
                up=up.get(str(replica.index), False),
                weight=replica.weight,
                calls=replica.outstanding,
                serves=len(replica.serves),
            )
            for replica in replicas
        ],
    )


def _models(named: dict[str, list[Sample]], served: Mapping[str, Model]) -> Iterator[ModelFigures]:
    versions = _versions(named, served)
    cache = _sums(_cache_samples(named))
    batches = _sums(
        (sample.labels["model"], sample.labels["le"], sample.value) for sample in named["tidegate_batch_size_bucket"]
    )
    images = _sums((sample.labels["model"], "", sample.value) for sample in named["tidegate_images_total"])
    for model in sorted(versions):
        sizes = sorted(batches[model], key=float)
        counts = _apart([batches[model][size] for size in sizes])
        yield ModelFigures(
            model=model,
            photographs=model in served and takes_photographs(served, model),
            images=images[model][""],
            cache=dict(cache[model]),
            batches={size: count for size, count in zip(sizes, counts, strict=True) if count},
            versions=sorted(versions[model].values(), key=lambda each: (len(each.version), each.version)),
        )


def _versions(named: dict[str, list[Sample]], served: Mapping[str, Model]) -> dict[str, dict[str, VersionFigures]]:
    """By model and version, those that are served and those that were called."""
    versions: dict[str, dict[str, VersionFigures]] = {
        name: {str(version): VersionFigures(str(version), ready=True) for version in model.versions}
        for name, model in served.items()
    }

    def of(sample: Sample) -> VersionFigures:
        version = sample.labels["version"]
        return versions.setdefault(sample.labels["model"], {}).setdefault(version, VersionFigures(version))

    for sample in named[f"{DURATION}_count"]:
        if sample.labels["stage"] == TOTAL:
            of(sample).calls[sample.labels["outcome"]] = int(sample.value)
    for sample in named[f"{DURATION}_bucket"]:
        if sample.labels["stage"] == TOTAL and sample.labels["outcome"] == OK:
            of(sample).answered_within[_BOUNDS.get(sample.labels["le"], -1)] = int(sample.value)
    for sample in named["tidegate_traffic_weight"]:
        of(sample).weight = sample.value
    for version in (version for found in versions.values() for version in found.values()):
        version.answered_within = _apart(version.answered_within)
    return versions


def _cache_samples(named: dict[str, list[Sample]]) -> Iterator[tuple[str, str, float]]:
    """Hits are counted by tier; what else the cache does is counted by status."""
    for sample in named["tidegate_cache_hits_total"]:
        yield sample.labels["model"], sample.labels["tier"], sample.value
    for sample in named["tidegate_cache_requests_total"]:
        if sample.labels["status"] != "hit":
            yield sample.labels["model"], sample.labels["status"], sample.value


def _sums(amounts: Iterable[tuple[str, str, float]]) -> dict[str, Counter[str]]:
    summed: dict[str, Counter[str]] = defaultdict(Counter)
    for whose, name, amount in amounts:
        summed[whose][name] += int(amount)
    return summed


def _tenants(named: dict[str, list[Sample]]) -> Iterator[TenantFigures]:
    calls, images = _used(named, "tenant")
    for tenant in sorted(calls):
        yield TenantFigures(tenant, calls[tenant].total(), images[tenant].total())


def _keys(named: dict[str, list[Sample]]) -> Iterator[KeyFigures]:
    calls, images = _used(named, "key")
    for key in sorted(calls):
        made = calls[key].total()
        yield KeyFigures(key, made, made - calls[key][OK], images[key].total())


def _used(named: dict[str, list[Sample]], caller: str) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
    """Calls by outcome, and images, of each."""
    calls, images = named[f"tidegate_{caller}_calls_total"], named[f"tidegate_{caller}_images_total"]
    return (
        _sums((sample.labels[caller], sample.labels["outcome"], sample.value) for sample in calls),
        _sums((sample.labels[caller], "", sample.value) for sample in images),
    )


def _apart(cumulative: Sequence[int]) -> list[int]:
    """Counts of buckets, from how many are in each and all below."""
    return [count - below for below, count in zip([0, *cumulative], cumulative, strict=False)]


def _sum(samples: Iterable[Sample]) -> int:
    return round(sum(sample.value for sample in samples))
