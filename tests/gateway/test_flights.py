import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.cache.flights import Flights
from gateway.errors import DeadlineExceeded, GatewayError, InvalidArgument, Overloaded
from gateway.ports import CacheKey

_KEY = CacheKey("digits", "1", b"digest", b"load")

Task = asyncio.Task[tuple[bytes, bool]]


class Triton:
    """Answers when told to, or fails, for all or for those of `failures`; keeps who asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.open = asyncio.Event()
        self.failure: Exception | None = None
        self.failures: dict[int, Exception] = {}

    def asks(self, caller: int) -> Callable[[], Awaitable[bytes]]:
        async def ask() -> bytes:
            self.asked.append(caller)
            await self.open.wait()
            failure = self.failures.get(caller, self.failure)
            if failure is not None:
                raise failure
            return b"answer"

        return ask


@pytest.fixture
def triton() -> Triton:
    return Triton()


async def _waiting(triton: Triton, callers: int, flights: Flights[bytes] | None = None) -> list[Task]:
    """Equal calls, of which the first asks."""
    flights = flights or Flights()
    tasks = [asyncio.create_task(flights.join(_KEY, triton.asks(caller))) for caller in range(callers)]
    await asyncio.sleep(0)
    assert triton.asked == [0]
    return tasks


async def _until_asked(triton: Triton, *callers: int) -> None:
    async with asyncio.timeout(5):
        while triton.asked != list(callers):
            await asyncio.sleep(0)


async def test_equal_calls_ask_once(triton: Triton) -> None:
    tasks = await _waiting(triton, 200)
    triton.open.set()
    assert await asyncio.gather(*tasks) == [(b"answer", True)] + [(b"answer", False)] * 199
    assert triton.asked == [0]


async def test_different_calls_do_not_wait_for_each_other(triton: Triton) -> None:
    flights: Flights[bytes] = Flights()
    await _waiting(triton, 1, flights)
    other = flights.join(CacheKey("digits", "1", b"other", b"load"), Triton().asks(1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await other
    later = Triton()
    later.open.set()
    assert await flights.join(CacheKey("digits", "1", b"digest", b"next load"), later.asks(2)) == (b"answer", True)
    triton.open.set()


async def test_a_call_after_the_answer_asks_anew(triton: Triton) -> None:
    flights: Flights[bytes] = Flights()
    triton.open.set()
    assert [await flights.join(_KEY, triton.asks(caller)) for caller in (1, 2)] == [(b"answer", True)] * 2
    assert triton.asked == [1, 2]


async def test_a_cancelled_follower_harms_nobody(triton: Triton) -> None:
    tasks = await _waiting(triton, 3)
    tasks[1].cancel()
    triton.open.set()
    assert await tasks[0] == (b"answer", True) and await tasks[2] == (b"answer", False)
    assert tasks[1].cancelled()


async def test_a_cancelled_leader_passes_the_lead_on(triton: Triton) -> None:
    tasks = await _waiting(triton, 4)
    tasks[1].cancel()
    tasks[0].cancel()
    await _until_asked(triton, 0, 2)
    triton.open.set()
    assert await tasks[2] == (b"answer", True) and await tasks[3] == (b"answer", False)
    assert triton.asked == [0, 2]


async def test_the_lead_passes_a_follower_that_is_cancelled_as_it_comes(triton: Triton) -> None:
    flights: Flights[bytes] = Flights()
    followers: list[Task] = []

    async def lead() -> bytes:
        try:
            return await triton.asks(0)()
        finally:  # The lead comes to the next, and before that can run, it is cancelled.
            asyncio.get_running_loop().call_soon(followers[0].cancel)

    leader = asyncio.create_task(flights.join(_KEY, lead))
    await _until_asked(triton, 0)
    followers += [asyncio.create_task(flights.join(_KEY, triton.asks(caller))) for caller in (1, 2)]
    await asyncio.sleep(0)
    leader.cancel()
    await _until_asked(triton, 0, 2)
    triton.open.set()
    assert await followers[1] == (b"answer", True)
    assert followers[0].cancelled()


async def test_a_leaders_own_deadline_is_not_its_followers(triton: Triton) -> None:
    tasks = await _waiting(triton, 2)
    triton.failures[0] = DeadlineExceeded("in Triton's queue")
    triton.open.set()
    with pytest.raises(DeadlineExceeded):
        await tasks[0]
    assert await tasks[1] == (b"answer", True)


@pytest.mark.parametrize("failure", [InvalidArgument("no"), Overloaded("full")])
async def test_what_the_leader_is_told_the_others_are_told(triton: Triton, failure: GatewayError) -> None:
    tasks = await _waiting(triton, 3)
    triton.failure = failure
    triton.open.set()
    assert await asyncio.gather(*tasks, return_exceptions=True) == [failure] * 3
    assert triton.asked == [0]


async def test_a_fault_of_ours_is_each_ones_own(triton: Triton) -> None:
    tasks = await _waiting(triton, 2)
    triton.failure = RuntimeError("bug")
    triton.open.set()
    assert all(isinstance(end, RuntimeError) for end in await asyncio.gather(*tasks, return_exceptions=True))
    assert triton.asked == [0, 1]


async def test_nothing_is_left_when_all_are_gone(triton: Triton) -> None:
    flights: Flights[bytes] = Flights()
    tasks = await _waiting(triton, 5, flights)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not flights._waiting
