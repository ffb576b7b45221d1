"""What the database said of keys, kept for a while: the road of most calls ends here."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from gateway.auth.store import KeyStore, StoredKey
from gateway.bounded_wait import BoundedWait
from gateway.errors import Unavailable
from gateway.settings import AuthSettings

_RETRY_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    key: StoredKey | None
    at: float


class KeyMemory:
    """Keys by id, each read again when it is half of `recheck_s` old and waited for when it is all of it.

    So a key in use never waits for the database, and a revocation is seen within `recheck_s`. While the database is away
    a key that was seen lately goes on working for `grace_s`, and the database is asked now and then, without a wait.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, store: KeyStore, settings: AuthSettings, clock: Callable[[], float]) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._reading: dict[str, asyncio.Task[_Seen | None]] = {}
        self._strangers = asyncio.Semaphore(settings.max_lookups)
        self._wait = BoundedWait(settings.lookup_s)
        self._away = False
        self._ask_at = float("-inf")

    def __len__(self) -> int:
        return len(self._seen)

    async def find(self, key_id: str) -> StoredKey | None:
        """One key by its id.

        Raises:
            Unavailable: The database does not answer, and the key was not seen lately.
        """
        seen = self._seen.get(key_id)
        age = self._clock() - seen.at if seen is not None else float("inf")
        if seen is not None and age <= self._trusted_s(seen):
            if age > self._settings.recheck_s / 2 and self._may_ask():
                self._read(key_id)
            return seen.key
        # A cancelled call leaves the reading to the others that wait for it.
        if self._may_ask() and (fresh := await asyncio.shield(self._read(key_id))) is not None:
            return fresh.key
        if seen is not None and age <= self._trusted_s(seen):
            return seen.key
        raise Unavailable("keys cannot be checked: the database does not answer")

    async def close(self) -> None:
        """Leave what is being read."""
        for task in self._reading.values():
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)
        await self._wait.close()

    def _trusted_s(self, seen: _Seen) -> float:
        return self._settings.grace_s if self._away and seen.key is not None else self._settings.recheck_s

    def _may_ask(self) -> bool:
        return not self._away or self._clock() >= self._ask_at

    def _read(self, key_id: str) -> asyncio.Task[_Seen | None]:
        """The one reading of a key; its result is None where the database did not answer."""
        task = self._reading.get(key_id)
        if task is None:
            task = self._reading[key_id] = asyncio.create_task(self._remember(key_id))
            task.add_done_callback(lambda _: self._reading.pop(key_id))
        return task

    async def _remember(self, key_id: str) -> _Seen | None:
        seen = self._seen.get(key_id)
        try:
            async with AsyncExitStack() as place:
                if seen is None or seen.key is None:
                    await place.enter_async_context(self._strangers)
                at = self._clock()
                key = await self._wait.on(self._store.find(key_id))
        except (Unavailable, TimeoutError) as error:
            if not self._away:
                _log.warning("the database of keys does not answer", error=repr(error.__cause__ or error))
            self._away, self._ask_at = True, self._clock() + _RETRY_S
            return None
        if self._away:
            _log.info("the database of keys answers again")
            self._away = False
        fresh = self._seen[key_id] = _Seen(key, at)
        self._seen.move_to_end(key_id)
        if len(self._seen) > self._settings.max_remembered:
            self._seen.popitem(last=False)
        return fresh
