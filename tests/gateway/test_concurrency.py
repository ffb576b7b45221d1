"""Who waits, in which order, and who is told at once that it is in vain."""

import asyncio

import pytest

from gateway.admission.concurrency import Concurrency
from gateway.admission.settings import ConcurrencySettings
from gateway.call import Tier
from gateway.errors import Overloaded
from tests.gateway.fakes import soon
from tests.gateway.tritons import Figures


class Stage:
    """One place, and who had it in which order."""

    def __init__(self, **settings: float) -> None:
        loop = asyncio.get_running_loop()
        fixed = {"floor": 1, "initial": 1, "ceiling": 1, "max_wait_s": 5, **settings}
        self.figures = Figures()
        self.concurrency = Concurrency(ConcurrencySettings(**fixed), loop.time, self.figures)
        self.order: list[str] = []
        self.release = asyncio.Event()

    async def call(self, name: str, tier: Tier = Tier.STANDARD, deadline_s: float = 10) -> None:
        async with self.concurrency.turn("digits", tier, soon(deadline_s)):
            self.order.append(name)
            await self.release.wait()

    async def waiting(self, *calls: tuple[str, Tier, float]) -> list[asyncio.Task[None]]:
        """Calls that came one after the other, behind one that has the place."""
        tasks = [asyncio.create_task(self.call("first"))]
        await asyncio.sleep(0)
        for name, tier, deadline_s in calls:
            tasks.append(asyncio.create_task(self.call(name, tier, deadline_s)))
            await asyncio.sleep(0)
        return tasks


async def test_a_better_tier_goes_first_and_within_it_who_has_less_time() -> None:
    stage = Stage()
    tasks = await stage.waiting(
        ("low", Tier.LOW, 1), ("late", Tier.STANDARD, 9), ("soon", Tier.STANDARD, 3), ("high", Tier.HIGH, 9)
    )
    stage.release.set()
    await asyncio.gather(*tasks)
    assert stage.order == ["first", "high", "soon", "late", "low"]


async def test_a_full_queue_sends_its_last_away_for_a_better_tier_and_refuses_the_rest() -> None:
    stage = Stage(max_queued=2)
    tasks = await stage.waiting(("a", Tier.LOW, 5), ("b", Tier.LOW, 5))
    with pytest.raises(Overloaded, match="limit of its queue"):
        await stage.call("c", Tier.LOW)
    tasks.append(asyncio.create_task(stage.call("high", Tier.HIGH)))
    with pytest.raises(Overloaded):
        await tasks[2]
    stage.release.set()
    await asyncio.gather(tasks[0], tasks[1], tasks[3])
    assert stage.order == ["first", "high", "a"]


async def test_no_one_waits_longer_than_allowed() -> None:
    stage = Stage(max_wait_s=0.02)
    tasks = await stage.waiting(("a", Tier.HIGH, 5))
    with pytest.raises(Overloaded, match="the turn of this call did not come"):
        await tasks[1]
    stage.release.set()
    await tasks[0]
    assert stage.order == ["first"]


async def test_where_a_turn_did_not_come_others_wait_less_until_the_queue_was_empty() -> None:
    stage = Stage(max_wait_s=0.1)
    tasks = await stage.waiting(("a", Tier.STANDARD, 5), ("high", Tier.HIGH, 5))
    gate = stage.concurrency._gate("digits")
    assert gate._patience_s(Tier.LOW) == 0.1
    with pytest.raises(Overloaded):
        await tasks[1]
    assert gate._patience_s(Tier.LOW) == pytest.approx(0.01)
    assert gate._patience_s(Tier.HIGH) == 0.1
    for _ in range(20):
        gate.limit.answered(0.03, 1)
    assert gate._patience_s(Tier.STANDARD) == 0.03
    with pytest.raises(Overloaded):
        await tasks[2]
    tasks += await stage.waiting(("b", Tier.STANDARD, 5))
    assert gate._patience_s(Tier.STANDARD) == 0.1
    stage.release.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_has_no_more_time_says_nothing_of_the_others() -> None:
    stage = Stage(max_wait_s=5)
    tasks = await stage.waiting(("a", Tier.STANDARD, 0.02), ("b", Tier.STANDARD, 5))
    with pytest.raises(Overloaded):
        await tasks[1]
    assert stage.concurrency._gate("digits")._patience_s(Tier.STANDARD) == 5
    stage.release.set()
    await asyncio.gather(tasks[0], tasks[2])


async def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    stage = Stage()
    gate = stage.concurrency._gate("digits")
    for _ in range(20):
        gate.limit.answered(1.0, 1)
    tasks = await stage.waiting()
    with pytest.raises(Overloaded, match="would take about 2 s"):
        await stage.call("late", deadline_s=1.5)
    stage.release.set()
    await tasks[0]


async def test_who_gives_up_leaves_its_place_to_others() -> None:
    stage = Stage()
    tasks = await stage.waiting(("a", Tier.HIGH, 5), ("b", Tier.STANDARD, 5))
    tasks[1].cancel()
    await asyncio.sleep(0)
    stage.release.set()
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert stage.order == ["first", "b"]
    assert stage.concurrency._gate("digits").under_way == 0


async def test_a_call_cancelled_in_the_moment_of_its_turn_gives_it_back() -> None:
    stage = Stage()
    tasks = await stage.waiting(("a", Tier.STANDARD, 5), ("b", Tier.STANDARD, 5))
    gate = stage.concurrency._gate("digits")
    stage.release.set()
    gate.leave()
    tasks[1].cancel()
    gate.under_way += 1  # As `first` will give its own back.
    await asyncio.gather(*tasks, return_exceptions=True)
    assert "a" not in stage.order and "b" in stage.order
    assert gate.under_way == 0


async def test_who_waits_is_counted_until_its_turn_its_end_or_its_refusal() -> None:
    stage = Stage(max_wait_s=0.02)
    calls = (("a", Tier.HIGH, 5), ("b", Tier.HIGH, 5), ("c", Tier.HIGH, 5))
    tasks = await stage.waiting(*calls)
    tasks[3].cancel()
    await asyncio.sleep(0)
    assert stage.figures.now_waiting == {"digits": 2}
    with pytest.raises(Overloaded):
        await tasks[1]
    stage.release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (stage.figures.now_waiting, stage.figures.most_waiting) == ({"digits": 0}, {"digits": 3})


async def test_the_limit_is_told_with_why_it_moved() -> None:
    stage = Stage(floor=1, initial=8, ceiling=16)
    gate = stage.concurrency._gate("digits")
    assert (stage.figures.limits, stage.figures.moves) == ({"digits": 8}, [])
    for _ in range(20):
        gate.learn(1.0, 8, Overloaded("full"))
        gate.learn(1.0, 8, None)
    assert (stage.figures.limits, stage.figures.moves) == ({"digits": 7}, ["dropped"])


async def test_a_turn_that_is_given_back_is_anothers_and_teaches_nothing() -> None:
    stage = Stage()
    gate = stage.concurrency._gate("digits")
    async with stage.concurrency.turn("digits", Tier.LOW, soon()) as give_back:
        assert not stage.concurrency.is_free("digits")
        give_back()
        give_back()
        assert stage.concurrency.is_free("digits")
    assert (gate.under_way, gate.limit._took) == (0, [])


async def test_each_model_has_a_limit_of_its_own() -> None:
    stage = Stage()
    tasks = await stage.waiting()
    assert not stage.concurrency.is_free("digits")
    assert stage.concurrency.is_free("cats")
    stage.release.set()
    await tasks[0]
