"""Answers in Redis, for all workers and machines."""

import asyncio
import hmac
from collections.abc import Callable

from blake3 import blake3

from gateway.cache.keys import CacheKeys
from gateway.cache.loads import REDIS_KEY
from gateway.figures import CacheMetrics
from gateway.ports import CacheKey, KeptAnswer, Loads
from gateway.redis_link import RedisLink
from gateway.settings import CacheSettings

_PREFIX = "tidegate:cache:"
_LOAD_BYTES = 16
_HEAD_BYTES = _LOAD_BYTES + blake3.digest_size
_MAX_WRITES = 64


class RedisCache:
    """An answer lies behind its load, and a mark that only who has the secret can make: all else that is found is a miss.

    A reading is one round trip, which brings the load that the machines agreed on too, so that no answer of an earlier load
    is given once another was told. While Redis is away nothing is found and nothing kept, without a wait.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        settings: CacheSettings,
        link: RedisLink,
        keys: CacheKeys,
        loads: Loads,
        clock: Callable[[], float],
        metrics: CacheMetrics,
    ) -> None:
        self._settings = settings
        self._link = link
        self._keys = keys
        self._loads = loads
        self._clock = clock
        self._metrics = metrics
        self._writes: set[asyncio.Task[object]] = set()

    async def get(self, key: CacheKey) -> KeptAnswer | None:
        """The answer, or None where there is none that is certainly ours."""
        found = await self._link.ask(lambda: self._read(_place(key)))
        if found is None:
            return None
        load, value, left_ms = found
        if load != key.load:
            await self._loads.agree()
            return None
        if value == b"":
            return None
        if not isinstance(value, bytes) or not isinstance(left_ms, int) or left_ms <= 0:
            self._metrics.rejected(key.model)
            return None
        if value[:_LOAD_BYTES] != key.load:
            return None
        mark, body = value[_LOAD_BYTES:_HEAD_BYTES], value[_HEAD_BYTES:]
        if not hmac.compare_digest(mark, self._keys.mark(key, body)):
            self._metrics.rejected(key.model)
            return None
        return KeptAnswer(body, self._clock() + min(left_ms / 1_000, self._settings.ttl_s))

    def put(self, key: CacheKey, answer: KeptAnswer) -> None:
        """Keep an answer, unless it is over the size of an entry, or too many are being written."""
        if len(answer.body) > self._settings.max_shared_entry_bytes or len(self._writes) >= _MAX_WRITES:
            return
        left_ms = int((answer.expires_at - self._clock()) * 1_000)
        if self._link.away or left_ms <= 0:
            return
        value = key.load + self._keys.mark(key, answer.body) + answer.body
        task = asyncio.create_task(self._link.ask(lambda: self._write(_place(key), value, left_ms)))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def written(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writes)

    async def close(self) -> None:
        """Give back the connections."""
        await self.written()
        await self._link.close()

    async def _read(self, place: str) -> list[object]:
        """The load that the machines agreed on, what lies in a place, and how many ms it still will."""
        pipeline = self._link.client.pipeline(transaction=False)
        pipeline.get(REDIS_KEY)
        # No more is read than was ever written, whatever lies there.
        pipeline.getrange(place, 0, _HEAD_BYTES + self._settings.max_shared_entry_bytes)
        pipeline.pttl(place)
        return await pipeline.execute(raise_on_error=False)

    async def _write(self, place: str, value: bytes, left_ms: int) -> list[object]:
        pipeline = self._link.client.pipeline(transaction=False)
        pipeline.set(place, value, px=left_ms)
        return await pipeline.execute(raise_on_error=False)  # A Redis that is full answers all the same.


def _place(key: CacheKey) -> str:
    return _PREFIX + key.digest.hex()
