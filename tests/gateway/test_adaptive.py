"""The limit follows a simulated server: so many at a time, the rest waiting."""

import pytest

from gateway.admission.adaptive import AdaptiveLimit, Moved
from gateway.admission.settings import ConcurrencySettings
from tests.gateway.fakes import Clock

_SERVICE_S = 0.02


def _settle(limit: AdaptiveLimit, clock: Clock, slots: int, offered: int = 200, rounds: int = 600) -> None:
    """Rounds in each of which as many calls run as are let in; what finds no free slot takes that much longer."""
    for _ in range(rounds):
        under_way = min(limit.now, offered)
        seconds = _SERVICE_S * max(1.0, under_way / slots)
        clock.now += seconds
        for _ in range(under_way):
            limit.answered(seconds, under_way)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000)


def _limit(clock: Clock, **settings: float) -> AdaptiveLimit:
    return AdaptiveLimit(
        ConcurrencySettings(**{"floor": 2, "initial": 16, "ceiling": 256, "tolerance": 2, **settings}), clock
    )


@pytest.mark.parametrize("slots", [4, 16, 64])
def test_it_settles_where_calls_take_as_long_as_is_tolerated(clock: Clock, slots: int) -> None:
    limit = _limit(clock)
    _settle(limit, clock, slots)
    # Twice the slots are tolerated; it swings by a step of growth, and back by as much.
    assert slots <= limit.now <= 3 * slots


def test_it_learns_what_alone_means_before_it_grows(clock: Clock) -> None:
    limit = _limit(clock)
    for _ in range(20):
        limit.answered(1.0, 16)
    assert limit.now == 16
    for _ in range(20):
        clock.now += 1.0
        limit.answered(1.0, 16)
    assert (limit.now, limit.moved) == (2, Moved.PROBE)
    for _ in range(20):
        limit.answered(_SERVICE_S, 1)
    assert limit.typical_s == _SERVICE_S and limit.now > 2
    assert limit.moved is Moved.PROBED
    for seconds, moved in ((_SERVICE_S, Moved.ROOM), (3 * _SERVICE_S, Moved.SLOWER)):
        for _ in range(max(20, limit.now)):
            limit.answered(seconds, limit.now)
        assert limit.moved is moved


def test_a_server_that_got_slower_is_measured_again_and_not_mistaken_for_overload(clock: Clock) -> None:
    limit = _limit(clock, probe_s=5)
    _settle(limit, clock, 16)
    before = limit.now
    for _ in range(2_000):
        under_way = min(limit.now, 200)
        seconds = 3 * _SERVICE_S * max(1.0, under_way / 16)
        clock.now += seconds
        for _ in range(under_way):
            limit.answered(seconds, under_way)
    assert limit.typical_s == pytest.approx(3 * _SERVICE_S)
    assert limit.now >= before / 3


def test_unused_it_does_not_grow(clock: Clock) -> None:
    limit = _limit(clock)
    _settle(limit, clock, slots=64, offered=3)
    assert limit.now <= 20


def test_dropped_calls_shrink_it_to_the_floor_and_no_further(clock: Clock) -> None:
    limit = _limit(clock)
    _settle(limit, clock, 64)
    for _ in range(100):
        limit.dropped()
        for _ in range(20):
            limit.answered(_SERVICE_S, 2)
    assert limit.now == 2


def test_bursts_with_rests_between_are_never_throttled_to_measure(clock: Clock) -> None:
    limit = _limit(clock, probe_s=5)
    for _ in range(20):
        limit.answered(_SERVICE_S, 1)
    for _ in range(20):
        clock.now += 60
        for _ in range(64):
            limit.answered(_SERVICE_S, 16)
            assert limit.now >= 16
        limit.idle()
