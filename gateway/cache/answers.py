"""An answer is looked for near, then under way, then in Redis; then Triton is asked, once."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from gateway import wire
from gateway.cache.flights import Flights
from gateway.cache.keys import CacheKeys
from gateway.call import CacheStatus, Caching, Identity
from gateway.errors import InvalidArgument
from gateway.figures import CacheMetrics, CacheTier
from gateway.ports import CacheKey, KeptAnswer, Loads, ResponseCache, Route

_Ask = Callable[[], Awaitable[bytes]]

_log = structlog.get_logger(__name__)


class CachedAnswers:
    """Two tiers of caches with the calls in flight between them.

    Args:
        near: The one that answers at once.
        far: The one that workers and machines share, where there is one.
        clock: Seconds, monotonic; that of the caches.
    """

    def __init__(
        self,
        keys: CacheKeys,
        loads: Loads,
        near: ResponseCache,
        far: ResponseCache | None,
        ttl_s: float,
        clock: Callable[[], float],
        metrics: CacheMetrics,
    ) -> None:
        self._keys = keys
        self._loads = loads
        self._near = near
        self._far = far
        self._ttl_s = ttl_s
        self._clock = clock
        self._metrics = metrics
        self._flights: Flights[tuple[bytes, CacheStatus]] = Flights()

    def key(self, route: Route, identity: Identity, request: bytes) -> CacheKey:
        """The key of a request, which must be without its id."""
        return self._keys.key(route, identity, request, self._loads.current)

    async def find(self, key: CacheKey, ask: _Ask, caching: Caching) -> tuple[bytes, CacheStatus]:
        """The answer, and where it comes from."""
        if caching is not Caching.FREE:
            return await self._ask(key, ask), CacheStatus.MISS
        kept = await self._near.get(key)
        if kept is not None:
            self._metrics.hit(key.model, CacheTier.L1)
            return kept.body, CacheStatus.HIT
        (answer, status), asked = await self._flights.join(key, partial(self._fetch, key, ask))
        return answer, status if asked else CacheStatus.COALESCED

    async def _fetch(self, key: CacheKey, ask: _Ask) -> tuple[bytes, CacheStatus]:
        """From the far cache, else from Triton."""
        if self._far is not None and (kept := await self._far.get(key)) is not None:
            self._metrics.hit(key.model, CacheTier.L2)
            self._near.put(key, kept)
            return kept.body, CacheStatus.HIT
        return await self._ask(key, ask), CacheStatus.MISS

    async def _ask(self, key: CacheKey, ask: _Ask) -> bytes:
        """Ask Triton, and keep what it says while that is good."""
        answer = await ask()
        if key.load == self._loads.current and _answered_by(key.version, answer):
            kept = KeptAnswer(answer, self._clock() + self._ttl_s)
            self._near.put(key, kept)
            if self._far is not None:
                self._far.put(key, kept)
        return answer


def _answered_by(version: str, answer: bytes) -> bool:
    """Whether that version answered. Where a newer one was loaded just now, it may have been another."""
    try:
        return wire.read_header(answer).version == version
    except InvalidArgument as error:
        _log.warning("an answer of Triton cannot be read", error=error.message)
        return False
