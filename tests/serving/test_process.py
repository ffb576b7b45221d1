"""A supervised process: restarts, stops, leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest

from serving.process import SupervisedProcess
from serving.settings import SupervisionSettings
from tests.serving.events import Events

SETTINGS = SupervisionSettings(exit_timeout_s=5, restart_min_s=0.01, restart_max_s=0.04, healthy_after_s=60)
FOR_EVER = "import signal; print('up', flush=True); signal.pause()"
WITH_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {FOR_EVER!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile 1: signal.pause()"
)


def supervised(code: str, **options: Any) -> SupervisedProcess:
    options.setdefault("settings", SETTINGS)
    return SupervisedProcess("test", (sys.executable, "-c", code), os.environ, **options)


class Lines:
    """A line handler to wait for."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, line: str) -> None:
        self._queue.put_nowait(line)

    async def next(self) -> str:
        async with asyncio.timeout(30):
            return await self._queue.get()


async def test_output_is_handed_over_line_by_line() -> None:
    lines = Lines()
    process = supervised("import sys; print('out'); print('err', file=sys.stderr, end=''); sys.exit(3)", on_line=lines)
    await process.start()
    assert {await lines.next(), await lines.next()} == {"out", "err"}
    await process.stop()


async def test_stop_is_graceful_and_may_be_called_twice() -> None:
    lines, exits = Lines(), list[int]()
    process = supervised(FOR_EVER, on_line=lines, on_exit=exits.append)
    await process.start()
    await lines.next()
    assert process.pid is not None and os.getsid(process.pid) == process.pid != os.getsid(0)
    await process.stop()
    await process.stop()
    assert exits == [-signal.SIGTERM]
    assert process.pid is None


async def test_a_process_that_ignores_sigterm_is_killed() -> None:
    lines, exits = Lines(), list[int]()
    settings = SETTINGS.model_copy(update={"exit_timeout_s": 0.1})
    process = supervised(STUBBORN, settings=settings, on_line=lines, on_exit=exits.append)
    await process.start()
    await lines.next()
    await process.stop()
    assert exits == [-signal.SIGKILL]


@pytest.mark.parametrize("end", ["stop", "death"])
async def test_what_it_started_ends_with_it(end: str) -> None:
    lines = Lines()
    process = supervised(WITH_CHILD, on_line=lines)
    await process.start()
    grandchild = psutil.Process(int(await lines.next()))
    assert grandchild.is_running() and process.pid is not None
    if end == "death":
        os.kill(process.pid, signal.SIGKILL)
        await lines.next()
    else:
        await process.stop()
    assert psutil.wait_procs([grandchild], timeout=30)[0]
    await process.stop()


async def test_it_is_started_again_with_growing_waits(events: Events) -> None:
    lines = Lines()
    process = supervised("print('up')", on_line=lines)
    await process.start()
    for _ in range(5):
        await lines.next()
    await process.stop()
    assert process.restarts >= 4
    waits = [event["restart_in_s"] for event in events.seen if event["event"] == "process.died"]
    assert waits[:4] == [0.01, 0.02, 0.04, 0.04]


async def test_a_healthy_life_starts_the_waits_anew(events: Events) -> None:
    now = [0.0]
    lines = Lines()

    def clock() -> float:
        # A life takes two looks at the clock, so that each is healthy.
        now[0] += SETTINGS.healthy_after_s
        return now[0]

    process = supervised("print('up')", on_line=lines, clock=clock)
    await process.start()
    for _ in range(4):
        await lines.next()
    await process.stop()
    waits = [event["restart_in_s"] for event in events.seen if event["event"] == "process.died"]
    assert set(waits) == {0.01}


async def test_stop_ends_the_wait_for_a_restart(events: Events) -> None:
    settings = SETTINGS.model_copy(update={"restart_min_s": 60.0, "restart_max_s": 60.0})
    process = supervised("", settings=settings)
    await process.start()
    await events.wait_for("process.died")
    async with asyncio.timeout(10):
        await process.stop()
    assert process.restarts == 0


async def test_a_program_that_is_not_there_says_so(events: Events) -> None:
    lines = Lines()
    process = SupervisedProcess("test", ("/no/such",), {}, settings=SETTINGS, on_line=lines)
    await process.start()
    assert await lines.next() == "/no/such: No such file or directory"
    assert (await events.wait_for("process.died"))["status"] == 127
    await process.stop()


SUPERVISOR = """
import asyncio, sys
from serving.process import SupervisedProcess
from serving.settings import SupervisionSettings

async def main():
    argv = (sys.executable, "-c", {code!r})
    process = SupervisedProcess("test", argv, {{}}, settings=SupervisionSettings(), on_start=report, on_line=lambda _: None)
    await process.start()
    await asyncio.Event().wait()

def report(pid):
    print(pid, file=sys.stderr, flush=True)

asyncio.run(main())
"""


def test_it_dies_with_its_supervisor() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR.format(code=FOR_EVER)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as supervisor:
        assert supervisor.stderr is not None
        child = psutil.Process(int(supervisor.stderr.readline()))
        supervisor.kill()
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone
