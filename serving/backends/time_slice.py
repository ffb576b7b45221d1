"""Has the kernel let an execution run to its end before it gives the core to another."""

import ctypes
import math
import os
import platform
import struct
import sys

# System calls, by architecture: glibc has a function for it from 2.41 on.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}.get(platform.machine()) if sys.platform == "linux" else None
# struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, and two bounds of utilisation.
_ATTRIBUTES = struct.Struct("=IIQiIQQQII")
_KEEP_POLICY = 0x08
# What the kernel gives by itself is 1 to 3 ms, and at most it gives 100 ms.
_SHORT_S = 0.004
_LONGEST_S = 0.1
# The weight of the newest in the mean.
_WEIGHT = 1 / 4


class TimeSlice:
    """As long as an execution commonly takes, for all threads of this process.

    Instances that take turns on a core every few ms find the processor's caches emptied by one another: docs/benchmarks.md. What computes for a short time only comes first all the sooner. Needs
    Linux 6.12; an older kernel, or a sandbox that forbids it, leaves all as it was.
    """

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._set = 0

    @property
    def mean_s(self) -> float:
        """Processor time that an execution commonly takes, of all threads; 0 before the first."""
        return self._mean_s

    def ran(self, seconds: float) -> None:
        """Take account of an execution.

        Args:
            seconds: Processor time, of all threads.
        """
        self._mean_s += (seconds - self._mean_s) * _WEIGHT
        # To a power of two, so that it is not set anew with every execution.
        wanted = 0 if self._mean_s < _SHORT_S else round(min(_LONGEST_S, 2 ** math.ceil(math.log2(self._mean_s))) * 1e9)
        if _SCHED_SETATTR is not None and wanted != self._set:
            self._set = wanted
            for thread in os.listdir("/proc/self/task"):
                _set(int(thread), wanted)


def _set(thread: int, nanoseconds: int) -> None:
    """Set a thread's slice, the kernel's own where it is 0; threads that it starts inherit it."""
    try:
        nice = os.getpriority(os.PRIO_PROCESS, thread)
    except ProcessLookupError:  # It has ended.
        return
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, _KEEP_POLICY, nice, 0, nanoseconds, 0, 0, 0, 0)
    ctypes.CDLL(None).syscall(_SCHED_SETATTR, thread, attributes, 0)
