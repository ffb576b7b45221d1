"""Forked workers: started again when they die, ended together. The gateway itself has no part in it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import psutil

_END_S = 30.0

_PROGRAM = """
import os, signal, sys, time
from serving.settings import SupervisionSettings
from tidegate import logs
from tidegate.workers import Workers


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


logs.configure(verbose=False)
settings = SupervisionSettings(restart_min_s=0.01, restart_max_s=0.04, healthy_after_s={healthy_after_s})
number = Workers({count}, settings, lambda number: say("died", number)).run()
if number is None:
    say("ended")
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    say("serves", number, os.getpid())
    {work}
"""


class Forked:
    """A process with workers, and what all of them write."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def next(self) -> list[str]:
        """The words of the next line that a worker or their parent wrote."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def deaths(self) -> Iterator[dict[str, Any]]:
        """What is logged of each."""
        assert self.process.stderr is not None
        events = map(json.loads, self.process.stderr)
        return (event for event in events if event["event"] == "process.died")


@contextmanager
def forked(work: str = "signal.pause()", count: int = 1, healthy_after_s: float = 60) -> Iterator[Forked]:
    program = _PROGRAM.format(work=work, count=count, healthy_after_s=healthy_after_s)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Forked(process)
        finally:
            process.kill()


def test_each_has_its_number_and_its_successor_has_it_again() -> None:
    with forked(count=2) as processes:
        first = {number: int(pid) for _, number, pid in (processes.next(), processes.next())}
        assert first.keys() == {"0", "1"}
        psutil.Process(first["1"]).kill()
        assert processes.next() == ["died", "1"]
        word, number, pid = processes.next()
        assert (word, number) == ("serves", "1") and int(pid) != first["1"]
        assert psutil.pid_exists(first["0"])


def test_waits_grow_with_deaths_that_follow_soon() -> None:
    assert _waits("sys.exit(3)", healthy_after_s=60) == [0.01, 0.02, 0.04, 0.04]


def test_a_healthy_life_starts_the_waits_anew() -> None:
    assert _waits("time.sleep(0.02)", healthy_after_s=0.01) == [0.01] * 4


def _waits(work: str, healthy_after_s: float) -> list[float]:
    with forked(work, healthy_after_s=healthy_after_s) as processes:
        return [death["restart_in_s"] for death in islice(processes.deaths(), 4)]


def test_sigterm_ends_all_of_them_by_themselves() -> None:
    with forked(count=2) as processes:
        workers = [psutil.Process(int(processes.next()[2])) for _ in range(2)]
        processes.process.send_signal(signal.SIGTERM)
        assert processes.next() == ["ended"]
        assert processes.process.wait(_END_S) == 0
        assert not [worker for worker in workers if worker.is_running()]


def test_they_die_with_their_parent() -> None:
    with forked(work="time.sleep(60)") as processes:
        worker = psutil.Process(int(processes.next()[2]))
        processes.process.kill()
        worker.wait(_END_S)
