"""Python stubs that die out of turn, which Triton 24.10 neither reports nor replaces."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

_STUB = "triton_python_backend_stub"
# Triton reaps a stub that it ended itself well within this time.
_REAPED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Stub:
    """One instance of a python-based model.

    Attributes:
        candidates: What the model may be called: the directory of its file, which for an object store is a temporary
            one, and the name of the instance without its number, which a config may choose freely.
    """

    pid: int
    candidates: tuple[str, ...]


class StubWatch:
    """Watches the stubs of one tritonserver and reports each that its server did not end itself."""

    def __init__(self, server_pid: int, on_death: Callable[[Stub], None]) -> None:
        self._server_pid = server_pid
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._descriptors: dict[int, int] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def discover(self) -> None:
        """Watch the stubs that have been started since the last call."""
        try:
            children = psutil.Process(self._server_pid).children()
        except psutil.NoSuchProcess:
            return
        for child in children:
            if child.pid not in self._descriptors and (stub := _stub_of(child)):
                self._watch(stub)

    def close(self) -> None:
        """Stop watching."""
        for pid in tuple(self._descriptors):
            self._forget(pid)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _watch(self, stub: Stub) -> None:
        try:
            descriptor = os.pidfd_open(stub.pid)
        except ProcessLookupError:
            return
        self._descriptors[stub.pid] = descriptor
        self._loop.add_reader(descriptor, self._exited, stub)

    def _exited(self, stub: Stub) -> None:
        self._forget(stub.pid)
        self._timers[stub.pid] = self._loop.call_later(_REAPED_WITHIN_S, self._judge, stub)

    def _judge(self, stub: Stub) -> None:
        del self._timers[stub.pid]
        try:
            unreaped = psutil.Process(stub.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return
        if unreaped:
            self._on_death(stub)

    def _forget(self, pid: int) -> None:
        descriptor = self._descriptors.pop(pid)
        self._loop.remove_reader(descriptor)
        os.close(descriptor)


def _stub_of(process: psutil.Process) -> Stub | None:
    try:
        # STUB MODEL_FILE SHM_REGION SHM_SIZE SHM_GROWTH PARENT_PID BACKEND_DIR IPC_SIZE INSTANCE RUNTIME_DIR
        command = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    if len(command) < 9 or Path(command[0]).name != _STUB:
        return None
    directory = Path(command[1]).parent.parent.name
    return Stub(process.pid, (directory, command[8].rpartition("_")[0]))
