from gateway.cache.memory import MemoryCache
from gateway.ports import CacheKey, KeptAnswer
from gateway.settings import CacheSettings
from tests.gateway.fakes import Clock


def _cache(clock: Clock, max_bytes: int = 1 << 20, max_entry_bytes: int = 1 << 20) -> MemoryCache:
    return MemoryCache(CacheSettings(max_bytes=max_bytes, max_entry_bytes=max_entry_bytes), clock)


def _key(number: int) -> CacheKey:
    return CacheKey("digits", "1", number.to_bytes(2, "big"), b"load")


def _answer(size: int) -> KeptAnswer:
    return KeptAnswer(bytes(size), expires_at=10.0)


async def test_an_answer_lives_as_long_as_its_time(clock: Clock) -> None:
    cache = _cache(clock)
    cache.put(_key(0), _answer(1))
    clock.now = 9.9
    assert await cache.get(_key(0)) == _answer(1)
    clock.now = 10.0
    assert await cache.get(_key(0)) is None
    assert cache.held_bytes == 0


async def test_least_recently_used_goes_first(clock: Clock) -> None:
    cache = _cache(clock, max_bytes=3 * (100 + 512))
    for number in range(3):
        cache.put(_key(number), _answer(100))
    await cache.get(_key(0))
    cache.put(_key(3), _answer(100))
    assert [await cache.get(_key(number)) is not None for number in range(4)] == [True, False, True, True]


async def test_bytes_stay_bounded_and_a_replaced_answer_is_counted_once(clock: Clock) -> None:
    cache = _cache(clock, max_bytes=10_000)
    for number in range(1_000):
        cache.put(_key(number), _answer(number % 700))
        assert cache.held_bytes <= 10_000
    cache.put(_key(0), _answer(50))
    before = cache.held_bytes
    cache.put(_key(0), _answer(50))
    assert cache.held_bytes == before


async def test_a_cache_without_room_keeps_nothing(clock: Clock) -> None:
    off = _cache(clock, max_bytes=0)
    off.put(_key(0), _answer(0))
    assert await off.get(_key(0)) is None and off.held_bytes == 0
