"""Which load of the models an answer belongs to.

Triton does not tell what bytes it loaded, so an answer belongs to a load and not to files: a random number names the time
from one load of any model to the next. Of any, because models ask one another.
"""

import fcntl
import mmap
import os
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from gateway.redis_link import RedisLink

FILE = "loads"
REDIS_KEY = "tidegate:cache:load"

_ID_BYTES = 16
_TOLD, _NEWS = b"\x00", b"\x01"
_REMEMBERED = 64


class MachineLoads:
    """The load of this machine's workers, in a file that all of them map: when one knows of a load, all do.

    Args:
        path: It holds the number, and whether other machines are still to be told of it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with self._locked():
            if os.fstat(self._file).st_size != _ID_BYTES + 1:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, secrets.token_bytes(_ID_BYTES) + _TOLD, 0)
        self._map = mmap.mmap(self._file, _ID_BYTES + 1)

    @property
    def current(self) -> bytes:
        """The load that answers of now belong to."""
        return self._map[:_ID_BYTES]

    def advance(self) -> None:
        """A model was loaded, or may have been: answers from before are good no more."""
        with self._locked():
            self._map[:] = secrets.token_bytes(_ID_BYTES) + _NEWS

    async def agree(self) -> None:
        """There is no other machine."""

    def news(self) -> tuple[bytes, bool]:
        """The current load, and whether other machines are still to be told."""
        with self._locked():
            return self.current, self._map[_ID_BYTES:] == _NEWS

    def follow(self, load: bytes, told: bytes) -> None:
        """Take the number that the machines agreed on, unless there was another load since `told`."""
        with self._locked():
            if self.current == told:
                self._map[:] = load + _TOLD

    def close(self) -> None:
        """Give back the file."""
        self._map.close()
        os.close(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


class SharedLoads:
    """The load of all machines, agreed on in Redis.

    Who knows of a load puts a new number there, the others take it over: at once when they read the shared cache, else at
    the next agreement. The number lives `lease_s` from the last agreement: where nobody watched Triton, nobody can say
    that an answer is still good. A number that was given up never comes back.
    """

    def __init__(self, machine: MachineLoads, link: RedisLink, lease_s: float) -> None:
        self._machine = machine
        self._lease_ms = max(1, int(lease_s * 1_000))
        self._script = link.client.register_script(resources.files(__package__).joinpath("agree.lua").read_text())
        self._link = link
        self._given_up: deque[bytes] = deque(maxlen=_REMEMBERED)

    @property
    def current(self) -> bytes:
        """The load that answers of now belong to."""
        return self._machine.current

    def advance(self) -> None:
        """A model was loaded, or may have been: answers from before are good no more."""
        self._given_up.append(self._machine.current)
        self._machine.advance()

    async def agree(self) -> None:
        """With the other machines; while Redis is away, later."""
        current, news = self._machine.news()
        arguments = (secrets.token_bytes(_ID_BYTES), int(news), self._lease_ms)
        agreed = await self._link.ask(lambda: self._script([REDIS_KEY], arguments))
        if agreed is None or agreed == current:
            return
        if agreed in self._given_up:
            self._machine.advance()  # A Redis that forgot: the next agreement tells it.
            return
        self._given_up.append(current)
        self._machine.follow(agreed, current)

    def close(self) -> None:
        """Give back the file."""
        self._machine.close()
