import pytest

from gateway.cache.memory import MemoryCache
from gateway.ports import CacheKey, Route
from gateway.settings import CacheSettings

_ROUTE = Route("digits", "1", cacheable=True, takes_timeout=True, batches=True)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _cache(clock: Clock, max_bytes: int = 1 << 20, max_entry_bytes: int = 1 << 20) -> MemoryCache:
    return MemoryCache(CacheSettings(max_bytes=max_bytes, max_entry_bytes=max_entry_bytes, ttl_s=10), clock)


def test_an_equal_request_gets_the_answer(clock: Clock) -> None:
    cache = _cache(clock)
    cache.put(cache.key(_ROUTE, b"request"), b"answer")
    assert cache.get(cache.key(_ROUTE, b"request")) == b"answer"
    assert cache.get(cache.key(_ROUTE, b"request ")) is None


def test_another_model_or_version_is_another_key(clock: Clock) -> None:
    cache = _cache(clock)
    cache.put(cache.key(_ROUTE, b"request"), b"answer")
    for model, version in (("digits", "2"), ("letters", "1")):
        route = Route(model, version, cacheable=True, takes_timeout=True, batches=True)
        assert cache.get(cache.key(route, b"request")) is None


def test_the_digest_is_keyed_by_a_secret_of_the_process(clock: Clock) -> None:
    assert _cache(clock).key(_ROUTE, b"request") != _cache(clock).key(_ROUTE, b"request")


def test_an_answer_lives_as_long_as_its_time(clock: Clock) -> None:
    cache = _cache(clock)
    key = cache.key(_ROUTE, b"request")
    cache.put(key, b"answer")
    clock.now = 9.9
    assert cache.get(key) == b"answer"
    clock.now = 10.0
    assert cache.get(key) is None
    assert cache.held_bytes == 0


def test_least_recently_used_goes_first(clock: Clock) -> None:
    cache = _cache(clock, max_bytes=3 * (100 + 512))
    keys = [CacheKey("digits", "1", bytes([number])) for number in range(4)]
    for key in keys[:3]:
        cache.put(key, bytes(100))
    cache.get(keys[0])
    cache.put(keys[3], bytes(100))
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True]


def test_bytes_stay_bounded_and_a_replaced_answer_is_counted_once(clock: Clock) -> None:
    cache = _cache(clock, max_bytes=10_000)
    for number in range(1_000):
        cache.put(CacheKey("digits", "1", number.to_bytes(2, "big")), bytes(number % 700))
        assert cache.held_bytes <= 10_000
    key = CacheKey("digits", "1", b"same")
    before = None
    for _ in range(3):
        cache.put(key, bytes(50))
        before = cache.held_bytes if before is None else before
        assert cache.held_bytes == before


def test_what_is_too_large_is_not_kept(clock: Clock) -> None:
    cache = _cache(clock, max_entry_bytes=10)
    key = cache.key(_ROUTE, b"request")
    cache.put(key, bytes(11))
    assert cache.get(key) is None
    off = _cache(clock, max_bytes=0)
    off.put(key, b"")
    assert off.get(key) is None and off.held_bytes == 0
