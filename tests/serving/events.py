"""The log as a thing to wait for."""

import asyncio
from typing import Any

from structlog.typing import EventDict, WrappedLogger

_PATIENCE_S = 60.0


class Events:
    """A structlog processor that remembers what passes."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._more = asyncio.Event()

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        self.seen.append({**event, "level": method})
        self._more.set()
        return event

    def forget(self) -> None:
        """Wait for what comes from now on."""
        self.seen.clear()

    async def wait_for(self, name: str) -> dict[str, Any]:
        """The first event of this name, seen already or still to come."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                for event in self.seen:
                    if event["event"] == name:
                        return event
                self._more.clear()
                await self._more.wait()
