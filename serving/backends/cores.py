"""Who computes on this machine: an execution that is alone may have all of its cores."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.backends.time_slice import TimeSlice

# Any file that every instance of every model on this machine opens.
_LOCKED = Path(__file__)
# What an engine computes in less, a second core makes no sooner done, and handing work to it costs as much again.
_SHORT_S = 0.002


class Cores:
    """Instances find out about each other by a lock on a file, in microseconds; the kernel drops those of the dead."""

    def __init__(self, path: Path = _LOCKED, clock: Callable[[], float] = time.process_time) -> None:
        self._file = path.open("rb")
        self._clock = clock
        self._slice = TimeSlice()

    def close(self) -> None:
        """Compute no more."""
        self._file.close()

    @property
    def short(self) -> bool:
        """Whether executions here commonly take too little processor time for an engine to gain by more cores."""
        return self._slice.mean_s < _SHORT_S

    @contextmanager
    def compute(self) -> Iterator[bool]:
        """Compute within the block; gives whether nobody else does so as it begins. Never waits."""
        alone = self._lock(fcntl.LOCK_EX)
        # Shared, so that whoever comes next can say that it computes, too.
        self._lock(fcntl.LOCK_SH)
        started = self._clock()
        try:
            yield alone
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._slice.ran(self._clock() - started)

    def _lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except OSError:  # Another has it, or the file system has no locks.
            return False
        return True
