"""A response cache in process memory, bounded in bytes and in time."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from gateway.ports import CacheKey, Route
from gateway.settings import CacheSettings

_ENTRY_OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class _Entry:
    response: bytes
    expires_at: float


class MemoryCache:
    """Least recently used out first.

    The digest is keyed with a secret of this process, so that a caller cannot compute two requests that collide.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, settings: CacheSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._secret = secrets.token_bytes(blake3.key_size)
        self._entries: OrderedDict[CacheKey, _Entry] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What the entries take, with an allowance for their keys."""
        return self._held_bytes

    def key(self, route: Route, request: bytes) -> CacheKey:
        """The key of a request, which must be without its id."""
        return CacheKey(route.model, route.version, blake3(request, key=self._secret).digest())

    def get(self, key: CacheKey) -> bytes | None:
        """The answer, or None where there is none or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.response

    def put(self, key: CacheKey, response: bytes) -> None:
        """Keep an answer, unless it is over the size of an entry or of the whole cache."""
        size = _size(response)
        if len(response) > self._settings.max_entry_bytes or size > self._settings.max_bytes:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = _Entry(response, self._clock() + self._settings.ttl_s)
        self._held_bytes += size
        while self._held_bytes > self._settings.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: CacheKey) -> None:
        self._held_bytes -= _size(self._entries.pop(key).response)


def _size(response: bytes) -> int:
    return len(response) + _ENTRY_OVERHEAD_BYTES
