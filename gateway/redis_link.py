"""A Redis that may hang or be away."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from gateway.bounded_wait import BoundedWait
from gateway.settings import RedisSettings

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class RedisLink:
    """Waits for Redis no longer than `timeout_s`. After that one call in `retry_s` tries it again; the others do not wait.

    Args:
        instead: What is done while it is away, for the log.
        clock: Seconds, monotonic.

    Attributes:
        client: Its commands are handed to `ask` or `wait`, and never awaited without.
        errors: What a command raises where Redis refuses, cannot be reached, or does not answer in time.
    """

    def __init__(self, settings: RedisSettings, instead: str, clock: Callable[[], float]) -> None:
        # A twentieth of a worker's start, which most workers have no use for.
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        assert settings.url is not None
        self._retry_s = settings.retry_s
        self._instead = instead
        self._clock = clock
        pool = BlockingConnectionPool.from_url(
            settings.url.get_secret_value(),
            max_connections=settings.max_connections,
            timeout=settings.timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self.client = Redis.from_pool(pool)
        self.errors = (RedisError, OSError)
        self._wait = BoundedWait(settings.timeout_s)
        self._try_at = float("-inf")
        self._away = False

    @property
    def away(self) -> bool:
        """It did not answer when it was last asked."""
        return self._away

    async def ask(self, command: Callable[[], Coroutine[Any, Any, _T]]) -> _T | None:
        """The answer; None where Redis does not give one, or is not asked because it is away."""
        now = self._clock()
        if now < self._try_at:
            return None
        if self._away:
            self._try_at = now + self._retry_s
        try:
            answer = await self.wait(command())
        except self.errors as error:
            if not self._away:
                _log.warning("redis does not answer", instead=self._instead, error=repr(error))
            self._away, self._try_at = True, self._clock() + self._retry_s
            return None
        if self._away:
            _log.info("redis answers again", instead=self._instead)
            self._away, self._try_at = False, float("-inf")
        return answer

    async def wait(self, command: Coroutine[Any, Any, _T]) -> _T:
        """The answer, whatever became of earlier calls.

        Raises:
            RedisError: Redis refuses, or cannot be reached.
            OSError: Likewise; a TimeoutError where it does not answer in time.
        """
        return await self._wait.on(command)

    async def close(self) -> None:
        """Give back the connections."""
        await self._wait.close()
        await self.client.aclose()
