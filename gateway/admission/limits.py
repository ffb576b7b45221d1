"""The arithmetic of limits, which both limiters share; `admit.lua` is the same for Redis.

A rate is kept as the one moment at which everything taken so far is paid for (GCRA, a token bucket in one number). The
bucket holds `burst_s` of the rate, and one at least. What costs more than the bucket holds is let in when it is full, and
is paid for afterwards: a batch larger than the burst waits, and the rate still holds.
"""

from gateway.call import Limit, Resource
from gateway.errors import LimitExceeded

# Times are floats of seconds since 1970, exact to a quarter of a microsecond.
TOLERANCE_S = 1e-6
# When a place is given back is not known.
PLACE_RETRY_S = 1.0
DAY_S = 86_400

_WORDS = {
    Resource.REQUESTS: "requests a second",
    Resource.IMAGES: "images a second",
    Resource.IMAGES_TODAY: "images a day",
    Resource.IN_FLIGHT: "requests in flight",
}


def rate_wait_s(paid_at: float, now: float, rate: float, cost: int, burst_s: float) -> float:
    """How long until `cost` fits; not positive where it does.

    Args:
        paid_at: When what was taken is paid for.
    """
    size = max(1.0, rate * burst_s)
    left = size - max(0.0, paid_at - now) * rate
    return (min(cost, size) - left) / rate


def next_midnight(now: float) -> float:
    """The end of the UTC day."""
    return (now // DAY_S + 1) * DAY_S


def exceeded(limit: Limit, retry_after_s: float) -> LimitExceeded:
    """The refusal, in words for the caller."""
    owner = limit.account.partition(":")[0]
    return LimitExceeded(
        f"the {owner} may use {limit.amount:,.10g} {_WORDS[limit.resource]}; "
        f"try again in {max(retry_after_s, 0.001):,.3f} s",
        limit=f"{owner}-{limit.resource}",
        amount=limit.amount,
        window_s=DAY_S if limit.resource is Resource.IMAGES_TODAY else 1,
        retry_after_s=retry_after_s,
    )
