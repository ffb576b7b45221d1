"""Regions of shared memory: files in /dev/shm that one worker writes, and Tritons of its machine read."""

import contextlib
import fcntl
import mmap
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")

_NAME = re.compile(r"(tidegate_region_[0-9a-f]{32})(\.\d+)?")
_UNIT = 1 << 20
# Triton's Python models have their tensors in /dev/shm too, and fail where there is no room.
_SHARE = 0.5


class Region:
    """One file, mapped and locked for as long as its owner lives.

    Attributes:
        key: The name of the file. Nobody can guess it.
        size: Bytes.
        memory: What is written here Triton reads.
    """

    __slots__ = ("_turn", "key", "memory", "size")

    def __init__(self, size: int) -> None:
        """Make the file.

        Raises:
            OSError: There is no room.
        """
        self.key = f"tidegate_region_{secrets.token_hex(16)}"
        self.size = size
        self._turn = 0
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Where a page were first missed when it is written, the kernel would end the process.
            os.posix_fallocate(descriptor, 0, size)
            self.memory = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)  # The map keeps another, and with it the lock.

    @property
    def name(self) -> str:
        """What Triton knows it as."""
        return f"{self.key}.{self._turn}"

    def renew(self) -> None:
        """Give it another name: a request that was given up, and that Triton has yet to look at, does not find the old one."""
        self._turn += 1

    @property
    def _path(self) -> Path:
        return SHARED_MEMORY / self.key

    def remove(self) -> None:
        """Remove the file. Where a Triton has it mapped, its pages stay until it lets go."""
        self._path.unlink(missing_ok=True)
        self.memory.close()


class Regions:
    """Those of one worker: made when they are needed, used again, and never more than so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._idle: list[Region] = []
        self._all: set[Region] = set()

    @property
    def all(self) -> tuple[Region, ...]:
        """Idle and lent."""
        return tuple(self._all)

    def lend(self, size: int) -> Region | None:
        """A region of at least this size, which nobody reads; None where there is none."""
        region = min((each for each in self._idle if each.size >= size), key=lambda each: each.size, default=None)
        if region is not None:
            self._idle.remove(region)
            return region
        size = -(-size // _UNIT) * _UNIT
        if self._bytes + size > self._max_bytes or not _has_room(size):
            return None
        with contextlib.suppress(OSError):
            region = Region(size)
            self._bytes += size
            self._all.add(region)
        return region

    def outgrown(self, size: int) -> list[Region]:
        """Idle regions that are lent out no more, so that there is room for a larger one."""
        found: list[Region] = []
        if size <= self._max_bytes:
            while self._idle and self._bytes - sum(each.size for each in found) + size > self._max_bytes:
                found.append(self._idle.pop())
        return found

    def is_idle(self, region: Region) -> bool:
        """It may be lent."""
        return region in self._idle

    def give_back(self, region: Region) -> None:
        """Nobody reads it any more."""
        self._idle.append(region)

    def discard(self, region: Region) -> None:
        """Remove it for good."""
        self._all.discard(region)
        self._bytes -= region.size
        region.remove()


def is_orphan(name: str) -> bool:
    """Whether a file or a region is one of a worker that is gone."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    try:
        descriptor = os.open(SHARED_MEMORY / match[1], os.O_RDWR)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_orphans() -> None:
    """Remove the files of workers that were killed."""
    for path in _files():
        if is_orphan(path.name):
            path.unlink(missing_ok=True)


def _files() -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from SHARED_MEMORY.glob("tidegate_region_*")


def _has_room(size: int) -> bool:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize - size >= status.f_blocks * status.f_frsize * (1 - _SHARE)
