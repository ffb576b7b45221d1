"""The control of every figure of time: how late a process is that does nothing, while the fault is on.

What holds that one up holds up the servers and the callers too, and none of them is to blame for it.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

from tests.chaos.load import Call

# What is later than this is held up: no figure of time of that moment is judged.
HELD_UP_MS = 10.0
_MOMENT = Struct("dd")
_EVERY_S = 0.005
_WATCH = f"""
import struct, sys, time
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        began = time.monotonic()
        time.sleep({_EVERY_S})
        ended = time.monotonic()
        file.write(struct.pack("dd", began, ended))
"""


class Idle:
    """What the process that does nothing saw.

    Args:
        path: Where it writes when it fell asleep and when it awoke, by `time.monotonic()`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def quantile_ms(self, quantile: float) -> float:
        """How late it was: 1 for the worst."""
        late = sorted(ended - began - _EVERY_S for began, ended in self._moments())
        return round(late[min(len(late) - 1, int(len(late) * quantile))] * 1_000, 1)

    def undisturbed(self, calls: Sequence[Call]) -> list[Call]:
        """The calls that were not under way while it was held up, nor for as long afterwards."""
        held_up = [
            (began, 2 * ended - began)
            for began, ended in self._moments()
            if (ended - began - _EVERY_S) * 1_000 > HELD_UP_MS
        ]
        return [call for call in calls if not any(began < call.ended and ended > call.due for began, ended in held_up)]

    def late_ms(self, since: float, until: float) -> float:
        """The most that it was late by while it overlapped this time, or just before or after."""
        while not (moments := self._moments()) or moments[-1][1] < until:
            time.sleep(_EVERY_S)
        margin_s = _EVERY_S
        overlapping = [each for each in moments if each[0] < until + margin_s and each[1] > since - margin_s]
        return max(ended - began - _EVERY_S for began, ended in overlapping) * 1_000

    def _moments(self) -> list[tuple[float, float]]:
        data = self._path.read_bytes()
        whole = len(data) // _MOMENT.size * _MOMENT.size
        return [(began, ended) for began, ended in _MOMENT.iter_unpack(data[:whole])]


@contextmanager
def idle() -> Iterator[Idle]:
    """Run it for the length of the block."""
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        process = subprocess.Popen([sys.executable, "-c", _WATCH, path])
        try:
            while not path.stat().st_size:
                assert process.poll() is None
                time.sleep(_EVERY_S)
            yield Idle(path)
        finally:
            process.kill()
            process.wait()
