"""One suite for every cache of responses, and what only the one in Redis does."""

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from pydantic import SecretStr
from redis.exceptions import RedisError

from gateway.cache.keys import CacheKeys
from gateway.cache.loads import REDIS_KEY
from gateway.cache.memory import MemoryCache
from gateway.cache.redis import RedisCache
from gateway.ports import CacheKey, KeptAnswer, ResponseCache
from gateway.redis_link import RedisLink
from gateway.settings import CacheSettings, RedisSettings
from tests.gateway.fakes import FakeCacheMetrics, FakeLoads
from tests.gateway.redis_server import RedisServer

_SETTINGS = CacheSettings(max_entry_bytes=1_000, max_shared_entry_bytes=1_000)
_KEYS = CacheKeys(b"secret")
_numbers = itertools.count()


def _key(load: bytes | None = None) -> CacheKey:
    """Of a request that no other test has."""
    digest = next(_numbers).to_bytes(32, "big")
    return CacheKey("digits", "1", digest, load or FakeLoads().current)


def _answer(body: bytes = b"answer", left_s: float = 60.0) -> KeptAnswer:
    return KeptAnswer(body, time.monotonic() + left_s)


@dataclass(frozen=True)
class Shared:
    """A cache in Redis, and what stands around it."""

    cache: RedisCache
    link: RedisLink
    loads: FakeLoads
    metrics: FakeCacheMetrics

    async def body(self, key: CacheKey) -> bytes | None:
        """When what was put is written."""
        await self.cache.written()
        kept = await self.cache.get(key)
        return None if kept is None else kept.body

    def place(self, key: CacheKey) -> str:
        """Where the answer lies."""
        return f"tidegate:cache:{key.digest.hex()}"


async def _shared(server: RedisServer, timeout_s: float = 10.0) -> Shared:
    """The machines have agreed on the load. A busy machine may take longer than the settings allow."""
    redis = RedisSettings(url=SecretStr(server.url), retry_s=0.1).model_copy(update={"timeout_s": timeout_s})
    link = RedisLink(redis, "tested", time.monotonic)
    loads, metrics = FakeLoads(), FakeCacheMetrics()
    await link.client.set(REDIS_KEY, loads.current)
    return Shared(RedisCache(_SETTINGS, link, _KEYS, loads, time.monotonic, metrics), link, loads, metrics)


@pytest.fixture
async def shared(redis: RedisServer) -> AsyncIterator[Shared]:
    made = await _shared(redis)
    yield made
    await made.cache.close()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> ResponseCache:
    if request.param == "memory":
        return MemoryCache(_SETTINGS, time.monotonic)
    made: Shared = request.getfixturevalue("shared")
    return made.cache


async def _found(cache: ResponseCache, key: CacheKey) -> bytes | None:
    if isinstance(cache, RedisCache):
        await cache.written()
    kept = await cache.get(key)
    return None if kept is None else kept.body


async def test_what_was_put_is_found_and_the_latest_counts(cache: ResponseCache) -> None:
    key = _key()
    assert await _found(cache, key) is None
    cache.put(key, _answer())
    assert await _found(cache, key) == b"answer"
    cache.put(key, _answer(b""))
    assert await _found(cache, key) == b""


async def test_another_request_or_load_finds_nothing(cache: ResponseCache) -> None:
    key = _key()
    cache.put(key, _answer())
    assert await _found(cache, _key()) is None
    assert await _found(cache, key._replace(load=bytes(15) + b"\x01")) is None


async def test_an_answer_tells_when_it_ends_and_ends_then(cache: ResponseCache) -> None:
    key, answer = _key(), _answer(left_s=30)
    cache.put(key, answer)
    assert await _found(cache, key) is not None
    kept = await cache.get(key)
    # Redis counts in milliseconds, and a reading takes a moment.
    assert kept is not None and answer.expires_at - 1 < kept.expires_at <= answer.expires_at + 1
    cache.put(key, _answer(left_s=0.05))
    async with asyncio.timeout(10):
        while await _found(cache, key) is not None:
            await asyncio.sleep(0.01)


async def test_what_is_too_large_or_over_is_not_kept(cache: ResponseCache) -> None:
    key = _key()
    cache.put(key, _answer(bytes(1_001)))
    assert await _found(cache, key) is None
    cache.put(key, _answer(bytes(1_000)))
    assert await _found(cache, key) == bytes(1_000)
    over = _key()
    cache.put(over, _answer(left_s=-1))
    assert await _found(cache, over) is None


async def test_an_answer_of_a_load_that_another_machine_ended_is_not_given(shared: Shared) -> None:
    key = _key()
    shared.cache.put(key, _answer())
    assert await shared.body(key) == b"answer"
    await shared.link.client.set(REDIS_KEY, b"another load....")
    assert await shared.body(key) is None
    assert shared.loads.agreements == 1, "and this machine learns of it"


async def test_an_answer_of_an_earlier_load_in_the_same_place_is_not_given(shared: Shared) -> None:
    key = _key()
    shared.cache.put(key, _answer())
    await shared.cache.written()
    shared.loads.advance()
    await shared.link.client.set(REDIS_KEY, shared.loads.current)
    assert await shared.body(key._replace(load=shared.loads.current)) is None
    assert shared.metrics.rejections == 0


_Corruption = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda value: value[:-1] + bytes([value[-1] ^ 1]),
        lambda value: value + b"!",
        lambda value: value[:-1],
        lambda value: value[:16] + bytes(32) + value[48:],
        lambda value: value[:20],
        lambda value: value[:16] + b"x" * 100_000,
        lambda value: value[:16] + CacheKeys(b"another").mark(_key(), value[48:]) + value[48:],
    ],
    ids=["a bit", "longer", "shorter", "no mark", "cut off", "huge", "another secret"],
)
async def test_a_corrupt_or_foreign_value_is_a_miss(shared: Shared, corrupt: _Corruption) -> None:
    key = _key()
    shared.cache.put(key, _answer())
    await shared.cache.written()
    value = await shared.link.client.get(shared.place(key))
    assert isinstance(value, bytes)
    await shared.link.client.set(shared.place(key), corrupt(value), keepttl=True)
    assert await shared.body(key) is None
    assert shared.metrics.rejections == 1
    shared.cache.put(key, _answer())
    assert await shared.body(key) == b"answer", "it is put right by the next answer"


async def test_a_value_in_anothers_place_is_a_miss(shared: Shared) -> None:
    mine, other = _key(), _key()
    shared.cache.put(mine, _answer())
    await shared.cache.written()
    await shared.link.client.copy(shared.place(mine), shared.place(other))
    assert await shared.body(other) is None
    assert shared.metrics.rejections == 1


async def test_a_value_of_another_type_or_without_an_end_is_a_miss(shared: Shared) -> None:
    listed, endless = _key(), _key()
    await shared.link.client.rpush(shared.place(listed), "value")
    shared.cache.put(endless, _answer())
    await shared.cache.written()
    await shared.link.client.persist(shared.place(endless))
    assert await shared.body(listed) is None and await shared.body(endless) is None
    assert shared.metrics.rejections == 2 and not shared.link.away


async def _agree(made: Shared) -> bool:
    """Tell a Redis that kept nothing the load; whether it took it: a connection that is left from before is closed."""
    try:
        await made.link.client.set(REDIS_KEY, made.loads.current)
    except RedisError:
        return False
    return True


async def test_no_call_waits_for_a_redis_that_is_away_and_none_gets_a_wrong_answer(failing: RedisServer) -> None:
    made = await _shared(failing, timeout_s=0.03)
    keys = [_key() for _ in range(20)]
    seen: list[bytes | None] = []
    waits: list[float] = []

    async def load(number: int) -> None:
        while True:
            key = keys[number]
            started = time.monotonic()
            kept = await made.cache.get(key)
            waits.append(time.monotonic() - started)
            seen.append(None if kept is None else kept.body)
            assert kept is None or kept.body == key.digest
            made.cache.put(key, _answer(key.digest))
            await asyncio.sleep(0.005)

    async def until(hit: bool) -> None:
        seen.clear()
        async with asyncio.timeout(20):
            while not (len(seen) > 40 and (seen[-1] is not None) is hit):
                await asyncio.sleep(0.01)

    callers = [asyncio.create_task(load(number)) for number in range(len(keys))]
    try:
        await until(hit=True)
        failing.signal(signal.SIGSTOP)
        await until(hit=False)
        failing.signal(signal.SIGCONT)
        await until(hit=True)
        await asyncio.to_thread(failing.kill)
        await until(hit=False)
        await asyncio.to_thread(failing.start)
        async with asyncio.timeout(20):
            while made.link.away or not await _agree(made):
                await asyncio.sleep(0.01)
        await until(hit=True)
        assert not any(caller.done() for caller in callers)
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await made.cache.close()
    # The bound is 0.03 s for a call that finds Redis away; a machine that does other work may hold the whole test up.
    assert max(waits) < 0.5
