"""A process that is started again when it dies, and that leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from serving.lines import read_lines
from serving.settings import SupervisionSettings

_LAUNCHER = Path(__file__).parent / "launch.py"
_OUTPUT_DRAIN_S = 1.0

_log = structlog.stdlib.get_logger(__name__)


class Backoff:
    """How long a process that died waits until it is started again: longer with each death that follows soon."""

    def __init__(self, settings: SupervisionSettings) -> None:
        self._settings = settings
        self._deaths = 0

    def after(self, lived_s: float) -> float:
        """The wait, seconds, after it lived so long."""
        self._deaths = 1 if lived_s >= self._settings.healthy_after_s else self._deaths + 1
        # The exponent is bounded because a float is: 2.0**1024 raises.
        return min(self._settings.restart_max_s, self._settings.restart_min_s * 2.0 ** min(self._deaths - 1, 64))


class SupervisedProcess:
    """One program, kept running from `start` to `stop`.

    It runs in a session of its own, so that Ctrl-C reaches the supervisor alone; the kernel kills it when the supervisor
    dies; and what it started in its process group is killed after it, however it ended.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        settings: SupervisionSettings,
        on_start: Callable[[int], None] | None = None,
        on_exit: Callable[[int], None] | None = None,
        on_line: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the process; nothing is started.

        Args:
            name: What the log calls it.
            env: Its whole environment.
            on_start: Called with the process id after each start.
            on_exit: Called after each death, when the process group is gone: the exit status, or a signal's number
                negated.
            on_line: Called with each line of its output, both streams in one. None: it writes where the supervisor does.
        """
        self._name = name
        self._argv = tuple(argv)
        self._env = dict(env)
        self._settings = settings
        self._on_start = on_start
        self._on_exit = on_exit
        self._on_line = on_line
        self._clock = clock
        self._stopping = asyncio.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._restarts = 0

    @property
    def pid(self) -> int | None:
        """The process id, which is its group's and its session's too; None while it is not running."""
        return None if self._child is None else self._child.pid

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._restarts

    async def start(self) -> None:
        """Start it. A program that cannot be run exits with status 127.

        Must be called in the main thread: the kernel ties a child's life to the thread that started it.
        """
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self._name}")
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Send SIGTERM, wait, then kill the process group. Returns when all of it is gone; may be called twice."""
        self._stopping.set()
        if self._supervisor is not None:
            await self._supervisor

    def kill(self) -> None:
        """Kill the process group at once; it is started again like after any death."""
        if self._child is not None:
            os.killpg(self._child.pid, signal.SIGKILL)

    async def _supervise(self) -> None:
        backoff = Backoff(self._settings)
        while True:
            started = self._clock()
            status = await self._run()
            if self._stopping.is_set():
                return
            delay_s = backoff.after(self._clock() - started)
            _log.error("process.died", process=self._name, status=status, restart_in_s=delay_s)
            if await self._stops_within(delay_s):
                return
            self._restarts += 1

    async def _stops_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _run(self) -> int:
        """Start the process and see it to its end; the exit status."""
        child = self._child = subprocess.Popen(
            (sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *self._argv),
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._on_line else None,
            stderr=subprocess.STDOUT if self._on_line else None,
            start_new_session=True,
        )
        _log.info("process.started", process=self._name, pid=child.pid)
        relay = asyncio.create_task(self._relay(child), name=f"relay {self._name}")
        try:
            if self._on_start:
                self._on_start(child.pid)
            await self._wait_or_stop(child.pid)
        finally:
            # Before the process is reaped: until then its number cannot be another group's.
            os.killpg(child.pid, signal.SIGKILL)
            status = child.wait()
            self._child = None
            await self._drained(relay)
        if self._on_exit:
            self._on_exit(status)
        return status

    async def _wait_or_stop(self, pid: int) -> None:
        exited = asyncio.create_task(_wait_for_exit(pid))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({exited, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                return
            os.kill(pid, signal.SIGTERM)
            await asyncio.wait({exited}, timeout=self._settings.exit_timeout_s)
            if not exited.done():
                _log.warning("process.killed", process=self._name, after_s=self._settings.exit_timeout_s)
        finally:
            exited.cancel()
            stopping.cancel()

    async def _relay(self, child: subprocess.Popen[bytes]) -> None:
        if self._on_line is None or child.stdout is None:
            return
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), child.stdout)
        try:
            async for line in read_lines(reader, self._settings.max_line_bytes):
                self._on_line(line)
        finally:
            transport.close()

    async def _drained(self, relay: asyncio.Task[None]) -> None:
        # A descendant that left the group may hold the pipe open for ever.
        await asyncio.wait({relay}, timeout=_OUTPUT_DRAIN_S)
        if not relay.done():
            relay.cancel()


async def _wait_for_exit(pid: int) -> None:
    """Return when a child has exited; it is left to be reaped."""
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
