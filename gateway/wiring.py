"""Every object of a worker, built from its settings. Nothing else builds any."""

import asyncio
import time
from dataclasses import dataclass
from typing import Self

from prometheus_client import CollectorRegistry

from gateway.admission.concurrency import Concurrency
from gateway.admission.in_flight import InFlightLimit, Places
from gateway.admission.local_limiter import LocalLimiter
from gateway.admission.redis_limiter import NoLimits, RedisLimiter, RefuseLimited
from gateway.auth.identities import Identities
from gateway.cache.stage import CacheStage
from gateway.metrics.caches import CacheCounters
from gateway.metrics.call_log import CallLog
from gateway.metrics.exemplars import ExemplarFile
from gateway.metrics.exposition import Exposition
from gateway.metrics.fleet import PrometheusFleet
from gateway.metrics.instruments import PrometheusMetrics, certificate_expiry
from gateway.metrics.live import Live
from gateway.metrics.settings import LoggedCalls
from gateway.metrics.triton_statistics import TritonStatistics
from gateway.metrics.watchers import CallWatchers, Tracer, Watcher
from gateway.metrics.workers import predecessor, use_files
from gateway.operations import Operations, Readiness
from gateway.ports import Limiter
from gateway.redis_link import RedisLink
from gateway.rest.door import Door
from gateway.routing.catalog import ModelCatalog
from gateway.routing.counters import InferenceCounters
from gateway.routing.policies import Policies
from gateway.routing.rollouts import Rollouts
from gateway.routing.traffic import TrafficRouter
from gateway.rpc.health import Health
from gateway.rpc.servicer import InferenceHandler
from gateway.service import InferenceService
from gateway.settings import GatewaySettings, WithoutRedis
from gateway.stream import StreamService
from gateway.tls import Certificates
from gateway.upstream.triton import TritonUpstream


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that `server.py` puts on ports."""

    handler: InferenceHandler
    door: Door
    health: Health
    exposition: Exposition
    traces: Tracer | None
    catalog: ModelCatalog
    readiness: Readiness
    upstream: TritonUpstream
    identities: Identities
    limiter: LocalLimiter | RedisLimiter
    certificates: Certificates | None
    cache: CacheStage
    fleet: PrometheusFleet
    router: TrafficRouter
    rollouts: Rollouts

    @classmethod
    def build(cls, settings: GatewaySettings) -> Self:
        """Build all of it, on the event loop that will run it."""
        use_files(settings.metrics_dir, settings.worker)
        registry = CollectorRegistry()
        traces = _traces(settings)
        metrics = PrometheusMetrics(
            registry,
            settings.metrics,
            settings.limits,
            CallWatchers(traces, _watchers(settings)),
            predecessor(settings.metrics_dir, settings.worker),
        )
        certificates = Certificates(settings.tls, certificate_expiry().set) if settings.tls.certificate else None
        identities = Identities.build(settings)
        authenticator = identities.authenticator
        fleet = PrometheusFleet(registry)
        upstream = TritonUpstream(settings.upstream, settings.limits.max_body_bytes, fleet)
        cache = CacheStage.build(settings, CacheCounters(registry))
        counters = InferenceCounters(upstream.answering)
        catalog = ModelCatalog(upstream, counters, cache.loads, settings.cache, settings.upstream.refresh_s)
        limiter = _limiter(settings)
        admission = InFlightLimit(settings.limits)
        loop = asyncio.get_running_loop()
        concurrency = Concurrency(settings.concurrency, loop.time, fleet)
        policies = Policies(identities.database)
        router = TrafficRouter(catalog, policies, settings.traffic.poll_s, fleet)
        rollouts = Rollouts(settings.traffic, router, policies, upstream, concurrency, fleet)
        service = InferenceService(
            authenticator=authenticator,
            admission=admission,
            limiter=limiter,
            router=router,
            answers=cache.answers,
            concurrency=concurrency,
            upstream=upstream,
            rollouts=rollouts,
            metrics=metrics,
        )
        streams = StreamService(
            authenticator=authenticator,
            streams=Places(settings.limits.max_streams, "streams are open", "streams"),
            admission=admission,
            limiter=limiter,
            router=router,
            concurrency=concurrency,
            upstream=upstream,
            rollouts=rollouts,
            metrics=metrics,
            max_in_flight=settings.limits.max_stream_in_flight,
        )
        readiness = Readiness(catalog)
        statistics = TritonStatistics(upstream.answering, catalog)
        live = Live(settings.metrics_dir, statistics, catalog, upstream.members)
        operations = Operations(authenticator, catalog, upstream, readiness, identities.audit)
        return cls(
            handler=InferenceHandler(service, streams, operations, settings.limits),
            door=Door(service, streams, operations, catalog, readiness, settings.limits, identities, policies, live),
            health=Health(),
            exposition=Exposition(settings.metrics_dir, settings.upstream.metrics_url, statistics, readiness),
            traces=traces,
            catalog=catalog,
            readiness=readiness,
            upstream=upstream,
            identities=identities,
            limiter=limiter,
            certificates=certificates,
            cache=cache,
            fleet=fleet,
            router=router,
            rollouts=rollouts,
        )

    async def close(self) -> None:
        """Give back every connection."""
        await self.exposition.close()
        if self.traces is not None:
            await self.traces.close()
        await self.rollouts.close()
        await self.upstream.close()
        if isinstance(self.limiter, RedisLimiter):
            await self.limiter.close()
        await self.cache.close()
        await self.identities.close()


def _traces(settings: GatewaySettings) -> Tracer | None:
    if settings.tracing.endpoint is None:
        return None
    from gateway.metrics.tracing import Traces  # Half a second and 20 MB, which only those pay who want traces.

    return Traces(settings.tracing, settings.worker)


def _watchers(settings: GatewaySettings) -> tuple[Watcher, ...]:
    watchers: list[Watcher] = []
    if settings.call_log.calls is not LoggedCalls.OFF:
        watchers.append(CallLog(settings.call_log, time.monotonic))
    if settings.tracing.endpoint is not None:
        watchers.append(ExemplarFile(settings.metrics_dir, settings.worker))
    return tuple(watchers)


def _limiter(settings: GatewaySettings) -> LocalLimiter | RedisLimiter:
    local = LocalLimiter(settings.limiter, time.time)
    if settings.redis.url is None:
        return local
    instead: dict[WithoutRedis, Limiter] = {
        WithoutRedis.LOCAL: local,
        WithoutRedis.ALLOW: NoLimits(),
        WithoutRedis.REFUSE: RefuseLimited(),
    }
    link = RedisLink(settings.redis, f"limits: {settings.redis.when_away}", time.monotonic)
    return RedisLimiter(link, settings.limiter, instead[settings.redis.when_away])
