"""When keys were last used: noted in memory by the call, written later, off its road."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from gateway.auth.store import LAST_USE_EVERY, KeyStore
from gateway.errors import Unavailable

_WRITE_EVERY_S = 5.0

_log = structlog.get_logger(__name__)


class LastUses:
    """Bounded: past `max_noted` keys the oldest notes are dropped, written or not.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, store: KeyStore, max_noted: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._max_noted = max_noted
        self._clock = clock
        self._noted: OrderedDict[str, float] = OrderedDict()
        self._unwritten: dict[str, datetime] = {}

    def note(self, key_id: str) -> None:
        """A key is being used now; of the uses within a minute the first is kept."""
        now = self._clock()
        if now - self._noted.get(key_id, float("-inf")) < LAST_USE_EVERY.total_seconds():
            return
        self._noted[key_id] = now
        self._noted.move_to_end(key_id)
        self._unwritten[key_id] = datetime.now(UTC)
        if len(self._noted) > self._max_noted:
            dropped, _ = self._noted.popitem(last=False)
            self._unwritten.pop(dropped, None)

    async def write(self) -> None:
        """Write what is unwritten; while the database is away it stays so."""
        if not self._unwritten:
            return
        writing, self._unwritten = self._unwritten, {}
        try:
            await self._store.used(writing)
        except Unavailable as error:
            _log.warning("last uses of keys are not written", error=repr(error.__cause__))
            self._unwritten = {key: at for key, at in writing.items() if key in self._noted} | self._unwritten

    async def keep_written(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(_WRITE_EVERY_S)
            await self.write()
