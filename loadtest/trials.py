"""Runs of a load, told by the master to the users of each process, and what these counted, told back."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from gevent.event import Event
from locust.env import Environment
from locust.runners import LocalRunner, WorkerRunner

from loadtest.arrivals import arrivals
from loadtest.levels import LEVELS
from loadtest.measured import Measured
from loadtest.settings import Pattern, ShapeName

TRIAL = "tidegate_trial"
MEASURED = "tidegate_measured"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run.

    Attributes:
        rate: Requests a second of all users together, at the peak.
        begins_at: On the clock that all machines share.
        users: Of all processes.
        workers: Processes.
    """

    number: int
    rate: float
    duration_s: float
    begins_at: float
    users: int
    workers: int
    pattern: Pattern
    shape: ShapeName | None

    def to_message(self) -> dict[str, Any]:
        """For Locust's wire."""
        return asdict(self)

    @classmethod
    def of_message(cls, message: dict[str, Any]) -> "Trial":
        """What `to_message` gave."""
        shape = message["shape"]
        kinds = {"pattern": Pattern(message["pattern"]), "shape": None if shape is None else ShapeName(shape)}
        return cls(**{**message, **kinds})

    def starts(self, user: int) -> Iterator[float]:
        """Seconds from the beginning at which a user is to begin requests.

        Args:
            user: Its number among all.
        """
        random = Random(f"{self.number} {user}")
        level = None if self.shape is None else LEVELS[self.shape]
        rate = self.rate / self.users
        return arrivals(self.pattern, rate, self.duration_s, phase=user / self.users, random=random, level=level)


class Trials:
    """The runs of the users of one process."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._numbers = itertools.count()
        self._begun = Event()
        self._trial: Trial | None = None
        self._started = 0.0
        self._cpu = 0.0
        self._busy = 0
        self.measured = Measured(0, 0)

    def listen(self) -> None:
        """Take runs from the master, now that Locust has its runner."""
        self._runner.register_message(TRIAL, self._begin)

    def enroll(self) -> int:
        """The number of a new user of this process."""
        return next(self._numbers)

    def next(self, after: Trial | None) -> Trial:
        """The run that follows another; waits until there is one."""
        while self._trial is None or self._trial is after:
            self._begun.wait()
        return self._trial

    def starts(self, trial: Trial, user: int) -> Iterator[float]:
        """When a user of this process is to begin requests, on `time.perf_counter`."""
        number = user * trial.workers + self._runner.worker_index
        return (self._started + offset for offset in trial.starts(number))

    def record(self, tenant: str, outcome: str, due: float, sent: float, done: float, images: int) -> None:
        """Count a request; its times are on `time.perf_counter`."""
        begin = self._started
        self.measured.record(tenant, outcome, due - begin, sent - begin, done - begin, images)

    def finish(self) -> None:
        """A user has an answer to everything; after the last the master is told."""
        self._busy -= 1
        if self._busy == 0:
            self.measured.cpu = [time.process_time() - self._cpu]
            self._runner.send_message(MEASURED, self.measured.to_message())

    @property
    def _runner(self) -> LocalRunner | WorkerRunner:
        runner = self._environment.runner
        assert isinstance(runner, LocalRunner | WorkerRunner)
        return runner

    def _begin(self, environment: Environment, msg: Any, **_: object) -> None:
        trial = Trial.of_message(msg.data)
        self.measured = Measured(trial.rate, trial.duration_s)
        self._busy = self._runner.user_count
        self._started = time.perf_counter() + trial.begins_at - time.time()
        self._cpu = time.process_time()
        self._trial = trial
        self._begun.set()
        self._begun.clear()
