"""The calls of a model that are worked on at once, and the short queue of those that wait for it."""

import asyncio
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from gateway.admission.adaptive import AdaptiveLimit
from gateway.admission.settings import ConcurrencySettings
from gateway.call import Tier
from gateway.errors import DeadlineExceeded, Overloaded
from gateway.figures import FleetFigures

_ORDER = {Tier.HIGH: 0, Tier.STANDARD: 1, Tier.LOW: 2}
_UNKNOWN = "unknown"
# Of the longest wait, where more comes than is answered.
_LEAST_PATIENCE = 0.1


@dataclass(order=True, slots=True)
class _Waiter:
    """Who waits: those of a better tier first, then those with less time."""

    order: int
    deadline: float
    number: int
    turn: "asyncio.Future[None]" = field(compare=False)
    gives_up: asyncio.TimerHandle | None = field(compare=False, default=None)


class Gate:
    """One model's limit and queue."""

    __slots__ = (
        "_arrivals",
        "_behind",
        "_clock",
        "_figures",
        "_model",
        "_settings",
        "_waiting",
        "limit",
        "under_way",
    )

    def __init__(
        self, model: str, settings: ConcurrencySettings, clock: Callable[[], float], figures: FleetFigures
    ) -> None:
        self._model = model
        self._settings = settings
        self._clock = clock
        self._figures = figures
        self._waiting: list[_Waiter] = []
        self._arrivals = 0
        self._behind = False
        self.limit = AdaptiveLimit(settings, clock)
        self.under_way = 0
        figures.concurrency_limit(model, self.limit.now)
        self._tell_waiting()

    @property
    def free(self) -> bool:
        """A call may begin at once."""
        return self.under_way < self.limit.now and not self._waiting

    async def wait(self, tier: Tier, deadline: float) -> None:
        """Queue for a turn, which is taken when this returns.

        Raises:
            Overloaded: It would not be answered in time, or the queue is full, or the wait was too long.
        """
        order = _ORDER[tier]
        ahead = sum(waiter.order <= order for waiter in self._waiting) + 1
        needed_s = self.limit.typical_s * (1 + ahead / self.limit.now)
        now = self._clock()
        if now + needed_s > deadline:
            raise _busy(f"an answer would take about {needed_s:.3g} s")
        if len(self._waiting) >= self._settings.max_queued:
            self._make_room(order)
        if not self._waiting:
            self._behind = False
        self._arrivals += 1
        waiter = _Waiter(order, deadline, self._arrivals, asyncio.get_running_loop().create_future())
        patience_s = min(self._patience_s(tier), deadline - now)
        waiter.gives_up = asyncio.get_running_loop().call_later(patience_s, self._refuse, waiter)
        insort(self._waiting, waiter)
        self._tell_waiting()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self.leave()  # Its turn came in the moment in which it was cancelled.
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
                self._tell_waiting()
            raise
        finally:
            waiter.gives_up.cancel()

    def leave(self) -> None:
        """A call is done: the next begin."""
        self.under_way -= 1
        if not self.under_way:
            self.limit.idle()
        now = self._clock()
        while self._waiting and self.under_way < self.limit.now:
            waiter = self._waiting.pop(0)
            self._tell_waiting()
            if waiter.turn.done():
                continue
            if now + self.limit.typical_s > waiter.deadline:
                waiter.turn.set_exception(_busy("no answer would come in time"))
                continue
            self.under_way += 1
            waiter.turn.set_result(None)

    def learn(self, seconds: float, under_way: int, error: BaseException | None) -> None:
        """What a call's end says about the limit."""
        before = self.limit.now
        if error is None:
            self.limit.answered(seconds, under_way)
        elif isinstance(error, Overloaded | DeadlineExceeded):
            self.limit.dropped()
        if self.limit.now != before:
            self._figures.concurrency_limit(self._model, self.limit.now, self.limit.moved)

    def _patience_s(self, tier: Tier) -> float:
        """How long to wait for a turn.

        Where the turn of one did not come and the queue was never empty since, more comes than is answered, and who is
        answered would be who waited longest. There a wait is cut to what one call takes: as many are answered, and sooner,
        and the rest is refused sooner. Those of the best tier are not what is too much.
        """
        longest_s = self._settings.max_wait_s
        if tier is Tier.HIGH or not self._behind:
            return longest_s
        return min(longest_s, max(self.limit.typical_s, longest_s * _LEAST_PATIENCE))

    def _make_room(self, order: int) -> None:
        """Send the last in the queue away where it is of a lower tier."""
        last = self._waiting[-1]
        if last.order <= order:
            raise _busy(f"{len(self._waiting)} calls wait for it, the limit of its queue")
        self._refuse(last)

    def _refuse(self, waiter: _Waiter) -> None:
        if not waiter.turn.done():
            self._behind = self._behind or self._clock() < waiter.deadline
            self._waiting.remove(waiter)
            self._tell_waiting()
            waiter.turn.set_exception(_busy("the turn of this call did not come"))

    def _tell_waiting(self) -> None:
        self._figures.waiting(self._model, len(self._waiting))


class Turn:
    """A call's place among those worked on, for the length of the block, or until it is given back."""

    __slots__ = ("_clock", "_deadline", "_gate", "_given_back", "_started", "_tier", "_under_way")

    def __init__(self, gate: Gate, clock: Callable[[], float], tier: Tier, deadline: float) -> None:
        self._gate = gate
        self._clock = clock
        self._tier = tier
        self._deadline = deadline
        self._given_back = False

    async def __aenter__(self) -> Callable[[], None]:
        gate = self._gate
        if gate.free:
            gate.under_way += 1
        else:
            await gate.wait(self._tier, self._deadline)
        self._under_way = gate.under_way
        self._started = self._clock()
        return self._give_back

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._given_back:
            return
        gate = self._gate
        gate.learn(self._clock() - self._started, max(self._under_way, gate.under_way), error)
        gate.leave()

    def _give_back(self) -> None:
        """Nothing is learned: how long the call takes is not the model's doing."""
        if not self._given_back:
            self._given_back = True
            self._gate.leave()


class Concurrency:
    """A gate for each model that is served, and one for all others together.

    Args:
        clock: The event loop's.
    """

    def __init__(self, settings: ConcurrencySettings, clock: Callable[[], float], figures: FleetFigures) -> None:
        self._settings = settings
        self._clock = clock
        self._figures = figures
        self._gates: dict[str, Gate] = {}

    def turn(self, model: str | None, tier: Tier, deadline: float) -> Turn:
        """A place for one call.

        Args:
            model: None where it is not known to be served.
        """
        return Turn(self._gate(model or _UNKNOWN), self._clock, tier, deadline)

    def is_free(self, model: str) -> bool:
        """A call may begin at once."""
        return self._gate(model).free

    def _gate(self, model: str) -> Gate:
        gate = self._gates.get(model)
        if gate is None:
            gate = Gate(model, self._settings, self._clock, self._figures)
            self._gates[model] = gate
        return gate


def _busy(why: str) -> Overloaded:
    return Overloaded(f"the model is busy: {why}; try again later", "concurrency")
