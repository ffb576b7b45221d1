"""One suite for both limiters."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from gateway.admission.limits import exceeded
from gateway.admission.local_limiter import LocalLimiter
from gateway.admission.redis_limiter import RedisLimiter, RefuseLimited
from gateway.call import Identity, Limit, Resource, Scope
from gateway.errors import LimitExceeded
from gateway.ports import Limiter
from gateway.redis_link import RedisLink
from gateway.settings import LimiterSettings, RedisSettings
from tests.gateway.fakes import Clock, soon
from tests.gateway.redis_server import RedisServer

_SETTINGS = LimiterSettings(burst_s=0.5)
_numbers = itertools.count()


@dataclass(frozen=True)
class Subject:
    """The limiter under test.

    Attributes:
        sleep: Lets time pass for it.
    """

    limiter: Limiter
    sleep: Callable[[float], Awaitable[None]]

    async def take(self, identity: Identity, images: int = 1) -> None:
        """A call that ends at once."""
        async with self.limiter.admit(identity, images, soon()):
            pass

    async def takes(self, identity: Identity, calls: int, images: int = 1) -> int:
        """How many of some calls are let in."""
        admitted = 0
        for _ in range(calls):
            with contextlib.suppress(LimitExceeded):
                await self.take(identity, images)
                admitted += 1
        return admitted


def shared_limiter(server: RedisServer, settings: LimiterSettings = _SETTINGS) -> RedisLimiter:
    """Counts in Redis, and lets nothing pass that Redis did not count."""
    # A busy machine may take longer than the settings allow; whether a call waits too long is tested elsewhere.
    redis = RedisSettings(url=SecretStr(server.url)).model_copy(update={"timeout_s": 10.0})
    return RedisLimiter(RedisLink(redis, "refuse", time.monotonic), settings, RefuseLimited())


@pytest.fixture(params=["local", "redis"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "local":
        clock = Clock(time.time())

        async def sleep(seconds: float) -> None:
            clock.now += seconds

        yield Subject(LocalLimiter(_SETTINGS, clock), sleep)
    else:
        limiter = shared_limiter(request.getfixturevalue("redis"))
        yield Subject(limiter, asyncio.sleep)
        await limiter.close()


def caller(**limits: float) -> Identity:
    """Of an account that no other test has; the limits are of its key."""
    account = f"key:{next(_numbers)}"
    return Identity(
        account,
        frozenset({Scope.INFER}),
        limits=tuple(
            Limit(account, Resource(resource.replace("_", "-")), amount) for resource, amount in limits.items()
        ),
    )


async def test_who_has_no_limits_has_none(subject: Subject) -> None:
    assert await subject.takes(caller(), 100) == 100


async def test_a_burst_is_let_in_and_then_the_rate(subject: Subject) -> None:
    identity = caller(requests=8)
    assert await subject.takes(identity, 10) == 4
    await subject.sleep(0.3)
    assert await subject.takes(identity, 10) == 2


async def test_a_refusal_says_when_and_what_and_is_true(subject: Subject) -> None:
    identity = caller(requests=4)
    assert await subject.takes(identity, 2) == 2
    with pytest.raises(LimitExceeded, match="the key may use 4 requests a second") as refused:
        await subject.take(identity)
    assert (refused.value.limit, refused.value.amount, refused.value.window_s) == ("key-requests", 4, 1)
    assert 0.05 < refused.value.retry_after_s <= 0.25
    await subject.sleep(refused.value.retry_after_s)
    await subject.take(identity)


async def test_accounts_do_not_share(subject: Subject) -> None:
    first, second = caller(requests=2), caller(requests=2)
    assert await subject.takes(first, 5) == 1
    assert await subject.takes(second, 5) == 1


async def test_images_are_what_a_batch_costs(subject: Subject) -> None:
    identity = caller(images=40)
    await subject.take(identity, images=20)
    with pytest.raises(LimitExceeded, match="images a second"):
        await subject.take(identity, images=4)
    await subject.sleep(0.11)
    await subject.take(identity, images=4)


async def test_a_batch_over_the_burst_is_let_in_when_nothing_is_owed_and_paid_for_after(subject: Subject) -> None:
    identity = caller(images=100)
    await subject.take(identity, images=80)
    with pytest.raises(LimitExceeded) as refused:
        await subject.take(identity, images=80)
    # 50 were there, 80 were taken: back to 50 in 0.8 s.
    assert refused.value.retry_after_s == pytest.approx(0.8, abs=0.1)
    await subject.sleep(refused.value.retry_after_s)
    await subject.take(identity, images=80)


async def test_a_day_has_its_quota(subject: Subject) -> None:
    identity = caller(images_today=100)
    await subject.take(identity, images=60)
    with pytest.raises(LimitExceeded, match="100 images a day") as refused:
        await subject.take(identity, images=41)
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert refused.value.retry_after_s == pytest.approx((midnight - now).total_seconds(), abs=5)
    assert refused.value.window_s == 86_400
    await subject.take(identity, images=40)


async def test_places_are_held_while_a_call_runs(subject: Subject) -> None:
    identity = caller(in_flight=2)
    async with subject.limiter.admit(identity, 1, soon()):
        async with subject.limiter.admit(identity, 1, soon()):
            with pytest.raises(LimitExceeded, match="2 requests in flight"):
                await subject.take(identity)
        await subject.take(identity)
    with pytest.raises(ValueError):
        async with subject.limiter.admit(identity, 1, soon()):
            raise ValueError
    async with subject.limiter.admit(identity, 1, soon()), subject.limiter.admit(identity, 1, soon()):
        pass


async def test_a_call_that_one_limit_refuses_is_charged_to_none(subject: Subject) -> None:
    identity = caller(requests=2, images_today=10, in_flight=5)
    for _ in range(3):
        with pytest.raises(LimitExceeded, match="images a day"):
            await subject.take(identity, images=11)
    await subject.take(identity, images=10)


async def test_the_longest_wait_is_told(subject: Subject) -> None:
    identity = caller(requests=2, images=1)
    await subject.take(identity, images=3)
    with pytest.raises(LimitExceeded, match="images a second") as refused:
        await subject.take(identity)
    assert refused.value.retry_after_s == pytest.approx(3, abs=0.2)


async def test_a_new_day_has_a_new_quota() -> None:
    clock = Clock(86_399.0)
    local = Subject(LocalLimiter(_SETTINGS, clock), asyncio.sleep)
    identity = caller(images_today=1)
    assert await local.takes(identity, 2) == 1
    clock.now = 86_400.0
    assert await local.takes(identity, 2) == 1


async def test_what_is_tracked_in_memory_is_bounded() -> None:
    limiter = LocalLimiter(LimiterSettings(max_tracked=3), Clock(1e9))
    for _ in range(10):
        async with limiter.admit(caller(requests=1, images_today=5), 1, soon()):
            pass
    assert (len(limiter._paid_at), len(limiter._today), len(limiter._held)) == (3, 3, 0)


async def test_places_of_a_process_that_died_are_free_after_its_deadlines(redis: RedisServer) -> None:
    identity = caller(in_flight=1)
    dead, alive = shared_limiter(redis), shared_limiter(redis)
    unfinished = dead.admit(identity, 1, soon(0.3))
    await unfinished.__aenter__()
    with pytest.raises(LimitExceeded):
        await Subject(alive, asyncio.sleep).take(identity)
    await asyncio.sleep(0.35)
    await Subject(alive, asyncio.sleep).take(identity)
    await unfinished.__aexit__(None, None, None)
    await dead.close()
    await alive.close()


async def test_several_instances_keep_one_rate(redis: RedisServer) -> None:
    """Within 10 %: 100/s and a burst of 10 over about 2 s, by four instances of their own connections."""
    settings = LimiterSettings(burst_s=0.1)
    limiters = [shared_limiter(redis, settings) for _ in range(4)]
    identity = caller(requests=100)
    admitted = 0
    started = time.monotonic()

    async def call(limiter: RedisLimiter) -> None:
        nonlocal admitted
        while time.monotonic() - started < 2:
            with contextlib.suppress(LimitExceeded):
                async with limiter.admit(identity, 1, soon()):
                    admitted += 1
            await asyncio.sleep(0.001)

    await asyncio.gather(*(call(limiter) for limiter in limiters for _ in range(2)))
    expected = 10 + 100 * (time.monotonic() - started)
    assert admitted == pytest.approx(expected, rel=0.1)
    for limiter in limiters:
        await limiter.close()


def test_a_refusal_says_its_numbers_in_full() -> None:
    error = exceeded(Limit("key:a", Resource.IMAGES_TODAY, 1_000_000), 25_528.25)
    assert error.message == "the key may use 1,000,000 images a day; try again in 25,528.250 s"
    assert "may use 0.5 requests" in exceeded(Limit("key:a", Resource.REQUESTS, 0.5), 1).message
