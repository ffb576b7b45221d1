"""Giving memory back: glibc keeps what was freed, and a worker would stay as large as its largest moment."""

import asyncio
import ctypes
import os
import time
from pathlib import Path

_EVERY_S = 1.0
# Looking through the heap takes milliseconds, which no call should wait for: below so much of that time it is idle.
_IDLE_S = 0.1
_GROWTH = 1.02
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")


async def keep_small() -> None:
    """For ever: give back what is free, where the process has grown and is idle."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return  # Another C library than glibc.
    least, used_s = 0, time.process_time()
    while True:
        await asyncio.sleep(_EVERY_S)
        before_s, used_s = used_s, time.process_time()
        if used_s - before_s < _IDLE_S and _resident_bytes() > _GROWTH * least:
            await asyncio.to_thread(trim, 0)
            least = _resident_bytes()


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
