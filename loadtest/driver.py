"""Locust as a library: users are started once, here or in worker processes, and then told of one run after another."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent.queue import Empty, Queue
from locust import runners
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from loadtest.errors import LoadError
from loadtest.measured import Measured
from loadtest.settings import LoadSettings
from loadtest.trials import MEASURED, TRIAL, Trial, Trials
from loadtest.users import Images, check_requests

_LOOPBACK = "127.0.0.1"
_CONNECT_S = 60.0
# From the message to the first request: every process must have had it.
_LEAD_S = 0.2
# Over the last answer's deadline.
_GRACE_S = 15.0

# Seconds: a worker whose machine is busy is late with its heartbeats, and not gone.
runners.HEARTBEAT_LIVENESS = 60


class Driver:
    """Makes runs."""

    def __init__(self, runner: Runner, settings: LoadSettings) -> None:
        """Listen for what the processes count.

        Args:
            runner: Local or a master, with its users started.
        """
        self._runner = runner
        self._settings = settings
        self._counted: Queue[dict[str, Any]] = Queue()
        self._number = 0
        runner.register_message(MEASURED, lambda environment, msg, **_: self._counted.put(msg.data))

    def run(self, rate: float, duration_s: float) -> Measured:
        """Make one run, and wait until every request has its answer or is out of time.

        Raises:
            LoadError: A process did not say what it counted.
        """
        settings = self._settings
        self._number += 1
        trial = Trial(
            self._number,
            rate,
            duration_s,
            time.time() + _LEAD_S,
            settings.connections,
            settings.workers,
            settings.arrivals,
            settings.shape,
        )
        self._runner.send_message(TRIAL, trial.to_message())
        ends_at = trial.begins_at + duration_s + settings.deadline_s + _GRACE_S
        try:
            return Measured.of_messages(
                self._counted.get(timeout=ends_at - time.time()) for _ in range(settings.workers)
            )
        except Empty:
            raise LoadError("a process of the load died, or hangs; its log says why") from None


@contextmanager
def driver(settings: LoadSettings) -> Iterator[Driver]:
    """Users that are connected, for the length of the block.

    Raises:
        LoadError: They cannot be started.
    """
    check_requests(settings)
    environment = Environment()
    trials = _users(environment)
    if settings.workers == 1:
        runner: Runner = environment.create_local_runner()
        trials.listen()
        workers: list[subprocess.Popen[bytes]] = []
    else:
        runner = environment.create_master_runner(_LOOPBACK, 0)
        workers = _start_workers(runner, settings.workers)
    try:
        made = Driver(runner, settings)
        _start_users(runner, settings)
        yield made
    finally:
        runner.quit()
        for worker in workers:
            worker.terminate()
            worker.wait()


def work(port: int) -> None:
    """Be a worker of the master at a port of this machine, until it is done."""
    environment = Environment()
    trials = _users(environment)
    runner = environment.create_worker_runner(_LOOPBACK, port)
    trials.listen()
    runner.greenlet.join()


def _users(environment: Environment) -> Trials:
    """The runs of this process, with a user class that knows them: Locust makes the users and hands them nothing."""
    trials = Trials(environment)
    environment.user_classes = [type("Images", (Images,), {"trials": trials})]
    return trials


def _start_workers(runner: MasterRunner, count: int) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "loadtest", "worker", str(runner.server.port)]
    workers = [subprocess.Popen(command) for _ in range(count)]
    deadline = time.monotonic() + _CONNECT_S
    while len(runner.clients.ready) < count:
        if time.monotonic() > deadline or any(worker.poll() is not None for worker in workers):
            for worker in workers:
                worker.kill()
            raise LoadError("a worker of the load did not start; its log says why")
        gevent.sleep(0.02)
    return workers


def _start_users(runner: Runner, settings: LoadSettings) -> None:
    runner.start(settings.connections, settings.connections)
    deadline = time.monotonic() + _CONNECT_S
    while runner.user_count < settings.connections:
        if time.monotonic() > deadline:
            raise LoadError("the users of the load did not start; the log says why")
        gevent.sleep(0.02)
