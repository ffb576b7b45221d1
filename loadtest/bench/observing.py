"""What metrics and logs cost: `python -m loadtest.bench.observing`.

The same worker, with and without them, before the same Triton; the requests are the smallest there are, so that the share is the
largest there is.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from loadtest.bench import drivers
from loadtest.bench.drivers import Endpoint
from loadtest.bench.servers import answers, free_port, running_gateway, stop, wait
from loadtest.bench.workloads import all_workloads

_ROOT = Path(__file__).parents[2]
_CONCURRENCY = 4
_NOT_CACHED = {"cache-control": "no-cache"}

# A worker whose figures go nowhere. Run as a program of its own: nothing here imports the gateway.
_WITHOUT = """
import contextlib, sys
from gateway import wiring


class Silent:
    def stage(self, name): ...
    def called_by(self, identity): ...
    def asked(self, request_id, body_bytes, images): ...
    def answered_by(self, model, version): ...
    def cached(self, status): ...
    def answered(self, body_bytes): ...
    def __enter__(self): return self
    def __exit__(self, *error): ...


class Nothing:
    def __init__(self, *arguments): self._silent = Silent()
    def observe(self, headers=None): return self._silent
    def observe_stream(self): return contextlib.nullcontext()


wiring.PrometheusMetrics = Nothing
sys.argv = ["tidegate", "gateway"]
from tidegate.cli import main
main()
"""
_WITH = ("-m", "tidegate", "gateway")
_VARIANTS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "neither": (("-c", _WITHOUT), {"CALL_LOG__CALLS": "off"}),
    # Another process that does the same: what differs is the machine's.
    "neither, again": (("-c", _WITHOUT), {"CALL_LOG__CALLS": "off"}),
    "metrics": (_WITH, {}),
    "metrics, log of all": (_WITH, {"CALL_LOG__CALLS": "all"}),
    "metrics, every line": (_WITH, {"CALL_LOG__CALLS": "all", "CALL_LOG__MAX_PER_S": "100000"}),
    "metrics, traces of 1 %": (_WITH, {"TRACING__ENDPOINT": "http://127.0.0.1:9", "TRACING__SAMPLE": "0.01"}),
}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=8, help="interleaved; the median counts")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        work = Path(folder)
        _, triton = stack.enter_context(running_gateway(_ROOT / "model_repository", work / "up", 1))
        endpoints = {name: stack.enter_context(_worker(name, work, triton.grpc)) for name in _VARIANTS}
        print(_table(_measured(endpoints, arguments.runs, arguments.seconds)))


def _measured(endpoints: Mapping[str, Endpoint], runs: int, seconds: float) -> dict[tuple[str, str], list[float]]:
    """Microseconds of a worker's processor a request, by workload and variant."""
    workloads = {name: workload for name, workload in all_workloads().items() if name in "SH"}
    used: dict[tuple[str, str], list[float]] = {}
    for run in range(runs + 1):  # The first is thrown away: its calls are slow.
        for letter, workload in workloads.items():
            for name, endpoint in _from(run, list(endpoints.items())):
                sample = drivers.over_grpc(_asking(endpoint, letter == "H"), workload, _CONCURRENCY, seconds)
                if run:
                    used.setdefault((letter, name), []).append(sample.cpu_ms["gateway"] * 1_000)
                drivers.settle()
    return used


def _from(run: int, endpoints: list[tuple[str, Endpoint]]) -> list[tuple[str, Endpoint]]:
    """Each run begins with another one."""
    first = run % len(endpoints)
    return endpoints[first:] + endpoints[:first]


def _asking(endpoint: Endpoint, cached: bool) -> Endpoint:
    return Endpoint(endpoint.name, endpoint.grpc, None, {} if cached else _NOT_CACHED, endpoint.pids)


def _table(used: Mapping[tuple[str, str], list[float]]) -> str:
    rows = ["| workload | with | CPU-µs a request | more than neither |", "|---|---|---|---|"]
    for letter, name in sorted(used, key=lambda key: (key[0], list(_VARIANTS).index(key[1]))):
        samples = used[letter, name]
        # Of the same run: the machine is faster at one time and slower at another.
        more = median(mine / neither - 1 for mine, neither in zip(samples, used[letter, "neither"], strict=True))
        rows.append(f"| {letter} | {name} | {median(samples):.0f} | {more:+.1%} |")
    return "\n".join(rows)


@contextmanager
def _worker(name: str, work: Path, triton: str) -> Iterator[Endpoint]:
    arguments, settings = _VARIANTS[name]
    state = work / name.replace(" ", "-")
    state.mkdir()
    ports = {port: str(free_port()) for port in ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")}
    variables = {"STATE_DIR": str(state), "AUTH__MODE": "off", "UPSTREAM__ADDRESS": triton, **ports, **settings}
    with (state / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            cwd=_ROOT,
            env={**os.environ, **{f"TIDEGATE_{key}": value for key, value in variables.items()}},
            stdout=log,
            stderr=log,
        )
    try:
        port = int(ports["GRPC_PORT"])
        wait(lambda: answers(port), process, state / "log")
        yield Endpoint(name, f"127.0.0.1:{port}", pids={"gateway": [process.pid]})
    finally:
        stop(process)


if __name__ == "__main__":
    main()
