"""How many calls of a model are worth working on at once, learned from how long they take."""

from collections.abc import Callable
from enum import StrEnum

from gateway.admission.settings import ConcurrencySettings

# A median of fewer says little.
_SAMPLES = 20
_BACK_OFF = 0.9
_LEAST_GRADIENT = 0.5
# In place of `probe_s` while nothing is known yet: a first burst is shorter.
_FIRST_PROBE_S = 5.0


class Moved(StrEnum):
    """Why a limit is another than before."""

    ROOM = "room"
    SLOWER = "slower"
    DROPPED = "dropped"
    PROBE = "probe"
    PROBED = "probed"


class AdaptiveLimit:
    """Grows while calls take about as long as they do alone, and shrinks as they take longer.

    The yardstick is the median time of calls that began and ended while at most `floor` were under way. Every 20 answers,
    or as many as the limit where that is more, their median is held against it: up to `tolerance` times the yardstick the
    limit grows by the square root of half of it, if it was used; above, it is multiplied by
    yardstick * tolerance / median, and by no less than a half. A call that ran out of time or found Triton's queue full
    makes it nine tenths. Where for `probe_s`, or 5 s before anything is known, the model was never idle and no call alone, the
    limit is the floor until 20 were, so that the yardstick never grows with the load that it measures. Without a yardstick
    it does not grow.

    Args:
        clock: Seconds, monotonic.

    Attributes:
        now: The limit.
        moved: Why it was last changed.
    """

    __slots__ = (
        "_alone",
        "_clock",
        "_crowded_since",
        "_dropped",
        "_learned",
        "_most",
        "_probing",
        "_settings",
        "_took",
        "_yardstick_s",
        "moved",
        "now",
    )

    def __init__(self, settings: ConcurrencySettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._learned = float(settings.initial)
        self._yardstick_s: float | None = None
        self._crowded_since: float | None = None
        self._probing = False
        self._took: list[float] = []
        self._alone: list[float] = []
        self._most = 0
        self._dropped = False
        self.now = settings.initial
        self.moved = Moved.ROOM

    @property
    def typical_s(self) -> float:
        """How long a call takes alone; 0 where that is not known yet."""
        return self._yardstick_s or 0.0

    def answered(self, seconds: float, under_way: int) -> None:
        """A call was answered.

        Args:
            under_way: How many there were when it began or when it ended, whichever were more, with itself.
        """
        self._most = max(self._most, under_way)
        if under_way > self._settings.floor:
            self._crowded_since = self._crowded_since or self._clock()
        else:
            self._crowded_since = None
            self._alone.append(seconds)
            if len(self._alone) >= _SAMPLES:
                self._measure()
        self._took.append(seconds)
        # No sooner than those are answered that began before the last decision.
        if len(self._took) >= max(_SAMPLES, self.now):
            self._learn()

    def idle(self) -> None:
        """No call is under way."""
        self._crowded_since = None

    def dropped(self) -> None:
        """A call ran out of time, or was turned away by Triton."""
        self._dropped = True

    def _measure(self) -> None:
        self._yardstick_s = _median(self._alone)
        self._probing = False
        self._alone.clear()
        self._set(Moved.PROBED)

    def _learn(self) -> None:
        median, used = _median(self._took), self._most >= self.now * 0.8
        allowed_s = self.typical_s * self._settings.tolerance
        moved = Moved.ROOM
        if self._dropped:
            moved = Moved.DROPPED
            self._learned *= _BACK_OFF
        elif allowed_s and median > allowed_s:
            moved = Moved.SLOWER
            self._learned *= max(_LEAST_GRADIENT, allowed_s / median)
        elif used and allowed_s:
            self._learned += max(1.0, (self._learned / 2) ** 0.5)
        self._learned = min(max(self._learned, self._settings.floor), self._settings.ceiling)
        self._took.clear()
        self._most, self._dropped = 0, False
        if self._crowded_since is not None:
            patience_s = _FIRST_PROBE_S if self._yardstick_s is None else self._settings.probe_s
            self._probing = self._probing or self._clock() - self._crowded_since > patience_s
        self._set(Moved.PROBE if self._probing else moved)

    def _set(self, moved: Moved) -> None:
        limit = self._settings.floor if self._probing else int(self._learned)
        if limit != self.now:
            self.now, self.moved = limit, moved


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
