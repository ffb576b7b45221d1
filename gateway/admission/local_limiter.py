"""Limits of keys and tenants, kept in this process alone."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.admission.limits import PLACE_RETRY_S, TOLERANCE_S, exceeded, next_midnight, rate_wait_s
from gateway.call import Identity, Limit, Resource
from gateway.settings import LimiterSettings

_Account = tuple[str, Resource]


class LocalLimiter:
    """Each process counts for itself: N workers allow N times the rate.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, settings: LimiterSettings, clock: Callable[[], float]) -> None:
        self._burst_s = settings.burst_s
        self._max_tracked = settings.max_tracked
        self._clock = clock
        self._paid_at: OrderedDict[_Account, float] = OrderedDict()
        self._today: OrderedDict[_Account, tuple[float, int]] = OrderedDict()
        self._held: dict[_Account, int] = {}

    @asynccontextmanager
    async def admit(self, identity: Identity, images: int, deadline: float) -> AsyncIterator[None]:
        """Count a call against every limit, or against none."""
        now = self._clock()
        refused = [
            (wait, limit) for limit in identity.limits if (wait := self._wait_s(limit, images, now)) > TOLERANCE_S
        ]
        if refused:
            wait, limit = max(refused, key=lambda refusal: refusal[0])
            raise exceeded(limit, wait)
        places = [self._take(limit, images, now) for limit in identity.limits]
        try:
            yield
        finally:
            for place in places:
                self._give_back(place)

    def _wait_s(self, limit: Limit, images: int, now: float) -> float:
        account = (limit.account, limit.resource)
        match limit.resource:
            case Resource.REQUESTS | Resource.IMAGES:
                cost = images if limit.resource is Resource.IMAGES else 1
                return rate_wait_s(self._paid_at.get(account, now), now, limit.amount, cost, self._burst_s)
            case Resource.IMAGES_TODAY:
                midnight = next_midnight(now)
                until, used = self._today.get(account, (midnight, 0))
                over = (used if until == midnight else 0) + images > limit.amount
                return midnight - now if over else 0.0
            case Resource.IN_FLIGHT:
                return PLACE_RETRY_S if self._held.get(account, 0) >= limit.amount else 0.0

    def _take(self, limit: Limit, images: int, now: float) -> _Account | None:
        """Charge what fits; gives the account whose place is held."""
        account = (limit.account, limit.resource)
        match limit.resource:
            case Resource.REQUESTS | Resource.IMAGES:
                cost = images if limit.resource is Resource.IMAGES else 1
                self._paid_at[account] = max(self._paid_at.pop(account, now), now) + cost / limit.amount
                self._drop_oldest(self._paid_at)
            case Resource.IMAGES_TODAY:
                midnight = next_midnight(now)
                until, used = self._today.pop(account, (midnight, 0))
                self._today[account] = (midnight, (used if until == midnight else 0) + images)
                self._drop_oldest(self._today)
            case Resource.IN_FLIGHT:
                self._held[account] = self._held.get(account, 0) + 1
                return account
        return None

    def _give_back(self, place: _Account | None) -> None:
        if place is None:
            return
        self._held[place] -= 1
        if not self._held[place]:
            del self._held[place]

    def _drop_oldest(self, tracked: OrderedDict[_Account, float] | OrderedDict[_Account, tuple[float, int]]) -> None:
        if len(tracked) > self._max_tracked:
            tracked.popitem(last=False)
