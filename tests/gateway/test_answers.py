"""Both tiers, the calls in flight, and what is kept."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tritonclient.grpc.service_pb2 import ModelInferResponse

from gateway.cache.answers import CachedAnswers
from gateway.cache.memory import MemoryCache
from gateway.call import CacheStatus, Caching, Identity
from gateway.errors import Overloaded
from gateway.figures import CacheTier
from gateway.ports import CacheKey, KeptAnswer, Route
from gateway.settings import CacheSettings
from tests.gateway.fakes import FakeCacheMetrics, FakeLoads, answers_in_memory

_ROUTE = Route("digits", "1", cacheable=True, takes_timeout=True, batches=True)
_CALLER = Identity("key:a", frozenset())


class Far(MemoryCache):
    """Stands for the cache of all machines; keeps what was looked for."""

    def __init__(self) -> None:
        super().__init__(CacheSettings(), lambda: 0.0)
        self.asked: list[CacheKey] = []

    async def get(self, key: CacheKey) -> KeptAnswer | None:
        self.asked.append(key)
        await asyncio.sleep(0)
        return await super().get(key)


class Triton:
    """A version answers, each time something new."""

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.asked = 0
        self.before: Callable[[], Awaitable[None]] | None = None

    async def __call__(self) -> bytes:
        self.asked += 1
        answer = ModelInferResponse(model_version=self.version, raw_output_contents=[b"%d" % self.asked])
        if self.before is not None:
            await self.before()
        return bytes(answer.SerializeToString())


async def _find(answers: CachedAnswers, triton: Triton, caching: Caching = Caching.FREE) -> tuple[bytes, CacheStatus]:
    """The output, and the status."""
    answer, status = await answers.find(answers.key(_ROUTE, _CALLER, b"request"), triton, caching)
    return ModelInferResponse.FromString(answer).raw_output_contents[0], status


@pytest.fixture
def loads() -> FakeLoads:
    return FakeLoads()


async def test_what_one_worker_asked_the_other_finds_in_the_far_cache_once(loads: FakeLoads) -> None:
    far, triton, metrics = Far(), Triton(), FakeCacheMetrics()
    first, second = (answers_in_memory(loads, far, metrics) for _ in range(2))
    assert await _find(first, triton) == (b"1", CacheStatus.MISS)
    assert await _find(second, triton) == (b"1", CacheStatus.HIT)
    assert await _find(second, triton) == (b"1", CacheStatus.HIT)
    assert await _find(first, triton) == (b"1", CacheStatus.HIT)
    assert metrics.hits == [CacheTier.L2, CacheTier.L1, CacheTier.L1]
    assert (triton.asked, len(far.asked)) == (1, 2)


async def test_equal_calls_look_in_the_far_cache_once_too(loads: FakeLoads) -> None:
    far, triton = Far(), Triton()
    answers = answers_in_memory(loads, far)
    found = await asyncio.gather(*(_find(answers, triton) for _ in range(5)))
    assert [status.value for _, status in found] == ["miss"] + ["coalesced"] * 4
    assert (triton.asked, len(far.asked)) == (1, 1)


async def test_a_load_ends_what_was_kept(loads: FakeLoads) -> None:
    answers, triton = answers_in_memory(loads, Far()), Triton()
    assert await _find(answers, triton) == (b"1", CacheStatus.MISS)
    loads.advance()
    assert await _find(answers, triton) == (b"2", CacheStatus.MISS)


async def test_an_answer_that_was_asked_for_before_a_load_is_not_kept(loads: FakeLoads) -> None:
    far, triton = Far(), Triton()
    answers = answers_in_memory(loads, far)

    async def load() -> None:
        loads.advance()

    triton.before = load
    assert await _find(answers, triton) == (b"1", CacheStatus.MISS)
    assert far.held_bytes == 0


async def test_a_call_after_a_load_does_not_wait_for_one_from_before(loads: FakeLoads) -> None:
    answers, old, new = answers_in_memory(loads), Triton(), Triton()
    release = asyncio.Event()

    async def wait() -> None:
        await release.wait()

    old.before = wait
    before = asyncio.create_task(_find(answers, old))
    while not old.asked:
        await asyncio.sleep(0)
    loads.advance()
    new.asked = 10
    assert await _find(answers, new) == (b"11", CacheStatus.MISS)
    release.set()
    assert await before == (b"1", CacheStatus.MISS)
    assert await _find(answers, new) == (b"11", CacheStatus.HIT)


async def test_what_another_version_answered_is_not_kept(loads: FakeLoads) -> None:
    answers, triton = answers_in_memory(loads), Triton(version="2")
    assert [await _find(answers, triton) for _ in range(2)] == [(b"1", CacheStatus.MISS), (b"2", CacheStatus.MISS)]


async def test_what_cannot_be_read_is_not_kept(loads: FakeLoads) -> None:
    answers = answers_in_memory(loads)

    async def broken() -> bytes:
        return b"\xff"

    key = answers.key(_ROUTE, _CALLER, b"request")
    assert [await answers.find(key, broken, Caching.FREE) for _ in range(2)] == [(b"\xff", CacheStatus.MISS)] * 2


async def test_no_cache_asks_anew_and_what_it_finds_is_kept(loads: FakeLoads) -> None:
    answers, triton = answers_in_memory(loads), Triton()
    await _find(answers, triton)
    assert await _find(answers, triton, Caching.NO_CACHE) == (b"2", CacheStatus.MISS)
    assert await _find(answers, triton) == (b"2", CacheStatus.HIT)


async def test_an_error_is_not_kept(loads: FakeLoads) -> None:
    answers, triton = answers_in_memory(loads, Far()), Triton()

    async def fail() -> None:
        raise Overloaded("full")

    triton.before = fail
    with pytest.raises(Overloaded):
        await _find(answers, triton)
    triton.before = None
    assert await _find(answers, triton) == (b"2", CacheStatus.MISS)
