"""Giving memory back: glibc keeps what was freed, and a worker would stay as large as its largest moment."""

import asyncio
import ctypes
import os
import time
from pathlib import Path

_EVERY_S = 1.0
# Looking through the heap takes milliseconds, which no call should wait for: below so much of that time it is idle.
_IDLE_S = 0.1
# What was in use when it was looked through may have been freed since, which the size does not show.
_WORKED_S = 0.2
_GROWTH = 1.02
_M_ARENA_MAX = -8
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")


def use_one_arena() -> None:
    """Have the threads that start from now on share one heap: a few bytes that stay in each of many hold many pages.

    One thread, the event loop's, does almost all of the work, and does not wait for the others.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)


async def keep_small() -> None:
    """For ever: give back what is free, where the process has grown or worked since the last time, and is idle."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return  # Another C library than glibc.
    least, used_s = 0, time.process_time()
    trimmed_s = used_s
    while True:
        await asyncio.sleep(_EVERY_S)
        before_s, used_s = used_s, time.process_time()
        changed = used_s - trimmed_s > _WORKED_S or _resident_bytes() > _GROWTH * least
        if used_s - before_s < _IDLE_S and changed:
            await asyncio.to_thread(trim, 0)
            least, trimmed_s = _resident_bytes(), used_s


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
