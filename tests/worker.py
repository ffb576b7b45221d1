"""A real gateway worker, started for tests on free ports and stopped after."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.auth.migrations import upgrade
from tidegate.ports import held

_START_S = 60.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Worker:
    """Where it is: host:port, but for the directory of its state."""

    http: str
    grpc: str
    metrics: str
    pid: int
    state_dir: Path


@contextmanager
def worker(state_dir: Path, /, *, within: Sequence[str] = (), **settings: str) -> Iterator[Worker]:
    """One that lets every caller in; see `workers`."""
    with workers(state_dir, 1, within=within, **settings) as started:
        yield started


@contextmanager
def workers(state_dir: Path, count: int, /, *, within: Sequence[str] = (), **settings: str) -> Iterator[Worker]:
    """Start workers that share their ports, and yield when they serve, whether or not a Triton does.

    Args:
        count: How many; what is yielded has the first one's process.
        within: A command that becomes the one that is given to it.
        settings: `TIDEGATE_…` variables, less the prefix.
    """
    upgrade(settings.get("DATABASE__URL", f"sqlite+aiosqlite:///{state_dir / 'tidegate.db'}"))
    with ExitStack() as stack:
        http, rpc, metrics = (stack.enter_context(held("127.0.0.1", 0, "")) for _ in range(3))
        ports = {"HTTP_PORT": http, "GRPC_PORT": rpc, "METRICS_PORT": metrics}
        variables = {**ports, "STATE_DIR": state_dir, "AUTH__MODE": "off", **settings}
        log = stack.enter_context((state_dir / "log").open("wb"))
        processes = [
            subprocess.Popen(
                [*within, sys.executable, "-m", "tidegate", "gateway"],
                env={
                    **os.environ,
                    **{f"TIDEGATE_{name}": str(value) for name, value in variables.items()},
                    "TIDEGATE_WORKER": str(number),
                },
                stdout=log,
                stderr=log,
            )
            for number in range(count)
        ]
        try:
            _wait(processes, f"http://127.0.0.1:{metrics}/v2/health/live", state_dir / "log")
            public, inner = (f"127.0.0.1:{http}", f"127.0.0.1:{rpc}"), f"127.0.0.1:{metrics}"
            yield Worker(*public, inner, processes[0].pid, state_dir)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(_STOP_S)


def _wait(processes: "list[subprocess.Popen[bytes]]", url: str, log: Path) -> None:
    """Until every worker said that it serves, and the port answers."""
    deadline = time.monotonic() + _START_S
    while True:
        if log.read_text().count('"worker serves"') == len(processes):
            assert httpx.get(url).is_success
            return
        assert all(process.poll() is None for process in processes) and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
