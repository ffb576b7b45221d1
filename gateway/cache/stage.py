"""The parts of the cache, built together."""

import time
from dataclasses import dataclass
from typing import Self

from gateway.cache.answers import CachedAnswers
from gateway.cache.keys import CacheKeys, read_secret
from gateway.cache.loads import FILE, MachineLoads, SharedLoads
from gateway.cache.memory import MemoryCache
from gateway.cache.redis import RedisCache
from gateway.figures import CacheMetrics
from gateway.redis_link import RedisLink
from gateway.settings import GatewaySettings

# Longer than Triton is silent while it has much to do.
_LEASE_REFRESHES = 10


@dataclass(frozen=True, slots=True)
class CacheStage:
    """What answers from the cache, and what knows how long that is good."""

    answers: CachedAnswers
    loads: MachineLoads | SharedLoads
    far: RedisCache | None

    @classmethod
    def build(cls, settings: GatewaySettings, metrics: CacheMetrics) -> Self:
        """In the state directory, which is there, and in Redis where the settings say so."""
        keys = CacheKeys(read_secret(settings.cache, settings.state_dir))
        machine = MachineLoads(settings.state_dir / FILE)
        loads: MachineLoads | SharedLoads = machine
        far = None
        if settings.cache.shared:
            link = RedisLink(settings.redis, "answers are not shared", time.monotonic)
            loads = SharedLoads(machine, link, _LEASE_REFRESHES * settings.upstream.refresh_s)
            far = RedisCache(settings.cache, link, keys, loads, time.monotonic, metrics)
        near = MemoryCache(settings.cache, time.monotonic)
        answers = CachedAnswers(keys, loads, near, far, settings.cache.ttl_s, time.monotonic, metrics)
        return cls(answers, loads, far)

    async def close(self) -> None:
        """Give back the connections and the file."""
        if self.far is not None:
            await self.far.close()
        self.loads.close()
