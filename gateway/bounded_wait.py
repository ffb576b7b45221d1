"""Waiting for a server that may hang."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class BoundedWait:
    """Waits for work for `timeout_s` and no longer.

    `asyncio.timeout` waits until the cancelled work has ended, and a driver that closes a connection to a server that
    hangs takes seconds for that. Here it ends by itself, out of the way.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._tasks: set[asyncio.Task[Any]] = set()

    async def on(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of the work, which is cancelled when its time is up, or when who waits is cancelled.

        Raises:
            TimeoutError: It is not there in time.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            done, _ = await asyncio.wait((task,), timeout=self._timeout_s)
            if not done:
                raise TimeoutError(f"no answer within {self._timeout_s:g} s")
            return task.result()
        finally:
            task.cancel()

    async def close(self) -> None:
        """Give cancelled work the same time to end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout_s)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Whoever still waited for it had it.
