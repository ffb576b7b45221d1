"""`python -m tidegate.workers COUNT`: gateway workers forked from one process, and started again when they die.

Nearly all of a worker's start is imports. Forked from a process that has them, it serves in a few tenths of a second on
busy processors too, and shares the memory that they take.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from gateway.metrics.workers import forget_gauges
from gateway.settings import GatewaySettings
from gateway.upstream.regions import remove_orphans
from serving.launch import end_with
from serving.process import Backoff
from serving.settings import SupervisionSettings
from tidegate import logs, worker
from tidegate.errors import CommandError

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_IDLE_S = 3_600.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Worker:
    """One of them, running or not.

    Attributes:
        pid: None while it is not running.
        at: When it was started, or will be; monotonic.
    """

    number: int
    backoff: Backoff
    pid: int | None = None
    at: float = 0.0

    @property
    def name(self) -> str:
        return f"gateway {self.number}"


class Workers:
    """Processes with the numbers from 0. They die with this one.

    Without an event loop and without threads, as both are unsafe to fork.

    Args:
        on_exit: Called with the number of each that died.
    """

    def __init__(self, count: int, settings: SupervisionSettings, on_exit: Callable[[int], None]) -> None:
        self._workers = [_Worker(number, Backoff(settings)) for number in range(count)]
        self._on_exit = on_exit

    def run(self) -> int | None:
        """Keep them running until SIGTERM or SIGINT, and then end them.

        Returns:
            In each worker, at once, its number; in this process None, when all have ended.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while True:
            for each in self._workers:
                if each.pid is None and each.at <= time.monotonic() and self._fork(each):
                    return each.number
            taken = signal.sigtimedwait(_SIGNALS, self._until_next_s())
            if taken is not None and taken.si_signo != signal.SIGCHLD:
                self._end()
                return None
            self._bury()

    def _until_next_s(self) -> float:
        waits = [each.at - time.monotonic() for each in self._workers if each.pid is None]
        return max(0.0, min(waits, default=_IDLE_S))

    def _fork(self, one: _Worker) -> bool:
        """Start it; whether this is the new process."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            end_with(parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return True
        one.pid, one.at = pid, time.monotonic()
        _log.info("process.started", process=one.name, pid=pid)
        return False

    def _bury(self) -> None:
        """Those that have died, and say when they are started again."""
        for each in self._workers:
            if each.pid is None:
                continue
            pid, status = os.waitpid(each.pid, os.WNOHANG)
            if pid == 0:
                continue
            now = time.monotonic()
            delay_s = each.backoff.after(now - each.at)
            each.pid, each.at = None, now + delay_s
            status = os.waitstatus_to_exitcode(status)
            _log.error("process.died", process=each.name, status=status, restart_in_s=delay_s)
            self._on_exit(each.number)

    def _end(self) -> None:
        """Who waits for this process kills it, and them, where it takes too long."""
        running = [each.pid for each in self._workers if each.pid is not None]
        for pid in running:
            os.kill(pid, signal.SIGTERM)
        for pid in running:
            os.waitpid(pid, 0)


def main() -> None:
    """Serve with so many workers; a failure that was foreseen is one line on standard error."""
    logs.configure(verbose=False)
    try:
        settings = worker.prepare()
        number = Workers(int(sys.argv[1]), SupervisionSettings(), partial(_forget, settings)).run()
        if number is not None:
            worker.serve(settings.model_copy(update={"worker": number}))
    except CommandError as error:
        print(f"tidegate: {error}", file=sys.stderr)
        sys.exit(error.status)


def _forget(settings: GatewaySettings, number: int) -> None:
    forget_gauges(settings.metrics_dir, number)
    remove_orphans()


if __name__ == "__main__":
    main()
