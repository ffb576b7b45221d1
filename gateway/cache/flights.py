"""Equal calls at the same time: one asks, the others get its answer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from gateway.errors import DeadlineExceeded, GatewayError
from gateway.ports import CacheKey

_T = TypeVar("_T")

# None: the one that asked went away, and it is this one's turn to ask.
_Turn = asyncio.Future[_T | GatewayError | None]


class Flights(Generic[_T]):
    """Whose call is the first leads; equal ones wait for it, each no longer than it likes.

    What the leader is told, the others are told: an answer, or an error. But where the leader is cancelled or runs out of
    its own time, the one that waits longest asks anew. There are no more of them than calls in flight, which are bounded.
    """

    def __init__(self) -> None:
        self._waiting: dict[CacheKey, deque[_Turn[_T]]] = {}

    async def join(self, key: CacheKey, ask: Callable[[], Awaitable[_T]]) -> tuple[_T, bool]:
        """The answer, and whether this call asked for it.

        Raises:
            GatewayError: Asking failed, here or at the leader.
        """
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
            return await self._lead(key, ask), True
        turn: _Turn[_T] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            outcome = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result() is None:
                self._end(key, None)  # Cancelled in the moment in which the lead came to it.
            raise
        if isinstance(outcome, GatewayError):
            raise outcome
        return (await self._lead(key, ask), True) if outcome is None else (outcome, False)

    async def _lead(self, key: CacheKey, ask: Callable[[], Awaitable[_T]]) -> _T:
        outcome: _T | GatewayError | None = None
        try:
            answer = outcome = await ask()
            return answer
        except DeadlineExceeded:
            raise
        except GatewayError as error:
            outcome = error
            raise
        finally:
            self._end(key, outcome)

    def _end(self, key: CacheKey, outcome: _T | GatewayError | None) -> None:
        waiting = self._waiting[key]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(outcome)
                if outcome is None:
                    return
        del self._waiting[key]
