"""Limits of keys and tenants, counted in Redis for all workers and machines together."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.admission.limits import exceeded
from gateway.bounded_wait import BoundedWait
from gateway.call import Identity, Limit, Resource
from gateway.errors import Unavailable
from gateway.ports import Limiter
from gateway.settings import LimiterSettings, RedisSettings

_PREFIX = "tidegate:limit"

_log = structlog.get_logger(__name__)


class NoLimits:
    """Lets every call in."""

    @asynccontextmanager
    async def admit(self, identity: Identity, images: int, deadline: float) -> AsyncIterator[None]:
        """Nothing is counted."""
        yield


class RefuseLimited:
    """Lets in only callers that have no limits."""

    @asynccontextmanager
    async def admit(self, identity: Identity, images: int, deadline: float) -> AsyncIterator[None]:
        """Nothing can be counted."""
        if identity.limits:
            raise Unavailable("limits cannot be counted: Redis does not answer")
        yield


class RedisLimiter:
    """One script, one round trip a call, and one more to give places back; while Redis is away another stands in.

    A call waits for Redis no longer than `timeout_s`. After that one call in `retry_s` tries it again, and the others do
    not wait at all.

    Args:
        instead: What counts while Redis is away.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, redis: RedisSettings, limiter: LimiterSettings, instead: Limiter, clock: Callable[[], float]
    ) -> None:
        assert redis.url is not None
        self._settings = redis
        self._burst_s = limiter.burst_s
        self._instead = instead
        self._clock = clock
        pool = BlockingConnectionPool.from_url(
            redis.url.get_secret_value(),
            max_connections=redis.max_connections,
            timeout=redis.timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(resources.files(__package__).joinpath("admit.lua").read_text())
        self._try_at = float("-inf")
        self._away = False
        self._wait = BoundedWait(redis.timeout_s)
        self._releases: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def admit(self, identity: Identity, images: int, deadline: float) -> AsyncIterator[None]:
        """Count a call against every limit, or against none."""
        if not identity.limits:
            yield
            return
        call = secrets.token_hex(8)
        refused = await self._ask(identity.limits, images, call, deadline)
        if refused is None:
            async with self._instead.admit(identity, images, deadline):
                yield
            return
        number, wait_s = refused
        if number:
            raise exceeded(identity.limits[number - 1], wait_s)
        try:
            yield
        finally:
            await self._give_back(identity.limits, call)

    async def close(self) -> None:
        """Give back the connections."""
        await asyncio.gather(*self._releases)
        await self._wait.close()
        await self._redis.aclose()

    async def _ask(
        self, limits: tuple[Limit, ...], images: int, call: str, deadline: float
    ) -> tuple[int, float] | None:
        """The script's verdict; None where Redis does not answer."""
        now = self._clock()
        if now < self._try_at:
            return None
        if self._away:
            self._try_at = now + self._settings.retry_s
        lease_s = max(0.0, deadline - asyncio.get_running_loop().time())
        arguments = [str(self._burst_s), str(images), call, str(lease_s)]
        for limit in limits:
            arguments += (limit.resource.value, str(limit.amount))
        try:
            number, wait_s = await self._wait.on(self._script([_key(limit) for limit in limits], arguments))
        except (RedisError, OSError) as error:
            if not self._away:
                _log.warning("redis does not answer", instead=self._settings.when_away.value, error=repr(error))
            self._away, self._try_at = True, self._clock() + self._settings.retry_s
            return None
        if self._away:
            _log.info("redis answers again")
            self._away, self._try_at = False, float("-inf")
        return int(number), float(wait_s)

    async def _give_back(self, limits: tuple[Limit, ...], call: str) -> None:
        """Waited for, so that a caller's next call finds the place free; cancelled or not, it is given back."""
        held = [_key(limit) for limit in limits if limit.resource is Resource.IN_FLIGHT]
        if held and not self._away:
            task = asyncio.create_task(self._release(held, call))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)
            await asyncio.shield(task)

    async def _release(self, held: list[str], call: str) -> None:
        """Where it fails, the lease ends with the call's deadline."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in held:
            pipeline.zrem(key, call)
        with contextlib.suppress(RedisError, OSError):
            await self._wait.on(pipeline.execute())


def _key(limit: Limit) -> str:
    return f"{_PREFIX}:{limit.account}:{limit.resource}"
