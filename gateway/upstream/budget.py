"""How many extra attempts there may be."""

from collections import deque

_WINDOW_S = 10


class RetryBudget:
    """A share of the requests of the last 10 s, and a few at least: when everything fails, retries add no second load.

    Args:
        share: Extra attempts for each request.
        least: So many are always allowed.
    """

    def __init__(self, share: float, least: int) -> None:
        self._share = share
        self._least = least
        self._second = 0
        self._requests = 0
        self._spent = 0
        self._before: deque[tuple[int, int, int]] = deque()

    def asked(self, now: float) -> None:
        """A request begins.

        Args:
            now: On the event loop's clock, seconds.
        """
        if now >= self._second + 1:
            self._turn(int(now))
        self._requests += 1

    def spend(self, now: float) -> bool:
        """Whether there may be one more attempt; it is counted."""
        if now >= self._second + 1:
            self._turn(int(now))
        requests = self._requests + sum(requests for _, requests, _ in self._before)
        spent = self._spent + sum(spent for _, _, spent in self._before)
        if spent >= max(self._least, int(requests * self._share)):
            return False
        self._spent += 1
        return True

    def _turn(self, second: int) -> None:
        """Begin another second, and forget those that are too old."""
        self._before.append((self._second, self._requests, self._spent))
        while self._before and self._before[0][0] <= second - _WINDOW_S:
            self._before.popleft()
        self._second, self._requests, self._spent = second, 0, 0
