"""Answers in process memory, bounded in bytes and in time."""

from collections import OrderedDict
from collections.abc import Callable

from gateway.ports import CacheKey, KeptAnswer
from gateway.settings import CacheSettings

_ENTRY_OVERHEAD_BYTES = 512


class MemoryCache:
    """Least recently used out first.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, settings: CacheSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._entries: OrderedDict[CacheKey, KeptAnswer] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What the entries take, with an allowance for their keys."""
        return self._held_bytes

    async def get(self, key: CacheKey) -> KeptAnswer | None:
        """The answer, or None where there is none or its time is over. Nothing is waited for."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: CacheKey, answer: KeptAnswer) -> None:
        """Keep an answer, unless it is over the size of an entry or of the whole cache."""
        size = _size(answer)
        if len(answer.body) > self._settings.max_entry_bytes or size > self._settings.max_bytes:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = answer
        self._held_bytes += size
        while self._held_bytes > self._settings.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: CacheKey) -> None:
        self._held_bytes -= _size(self._entries.pop(key))


def _size(answer: KeptAnswer) -> int:
    return len(answer.body) + _ENTRY_OVERHEAD_BYTES
