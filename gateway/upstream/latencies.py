"""How long a model's answers take."""

from collections import deque

_KEPT = 200
_SORTED_EVERY = 20


class Latencies:
    """The time in which 95 % of the last answers came.

    Attributes:
        p95_s: None before there are enough answers to say.
    """

    __slots__ = ("_last", "_until_sorted", "p95_s")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_KEPT)
        self._until_sorted = _SORTED_EVERY
        self.p95_s: float | None = None

    def add(self, seconds: float) -> None:
        """An answer came."""
        self._last.append(seconds)
        self._until_sorted -= 1
        if not self._until_sorted:
            self._until_sorted = _SORTED_EVERY
            self.p95_s = sorted(self._last)[int(len(self._last) * 0.95)]
