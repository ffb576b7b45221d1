"""When to try again, in headers: `Retry-After`, and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10."""

import math

from gateway.errors import LimitExceeded


def of(error: LimitExceeded) -> dict[str, str]:
    """The headers of a 429 that a caller's own limit caused."""
    seconds = max(1, math.ceil(error.retry_after_s))
    return {
        "retry-after": str(seconds),
        "ratelimit-policy": f'"{error.limit}";q={math.ceil(error.amount)};w={error.window_s}',
        "ratelimit": f'"{error.limit}";r=0;t={seconds}',
    }
