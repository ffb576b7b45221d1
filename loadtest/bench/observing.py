"""What metrics and logs cost: `python -m loadtest.bench.observing`.

One worker takes turns: it observes some calls in one way, the next in another, and counts the processor time of each turn. Two processes that do the same differ by more than what is looked for. The requests are the smallest there are, so that
the share is the largest there is.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median, quantiles
from threading import Event, Thread

import grpc
from tritonclient.grpc.service_pb2 import ModelInferRequest

from loadtest.bench import drivers
from loadtest.bench.drivers import Endpoint
from loadtest.bench.servers import answers, free_port, running_gateway, stop, wait
from loadtest.bench.workloads import all_workloads

_ROOT = Path(__file__).parents[2]
_CONCURRENCY = 4
_NOT_CACHED = {"cache-control": "no-cache"}
_FAILED_PER_S = 10
_NEITHER = ("neither", "neither, again")
_WAYS = (*_NEITHER, "metrics", "metrics, log of failed", "metrics, log of all", "metrics, every line")

# Run as a program of its own: nothing here imports the gateway. Writes a line a turn: the round, the way, when it began and ended,
# and its nanoseconds of the processor, user's and system's.
_WORKER = """
import random, sys, time
from prometheus_client import CollectorRegistry
from gateway import wiring
from gateway.metrics.call_log import CallLog
from gateway.metrics.instruments import PrometheusMetrics
from gateway.metrics.settings import CallLogSettings
from gateway.metrics.watchers import CallWatchers

path, calls_a_turn = sys.argv[1], int(sys.argv[2])


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
    silent = Silent()
    def observe(self, headers=None): return self.silent


class InTurns:
    def __init__(self, registry, settings, limits, watchers, predecessor):
        def logging(**options):
            log = CallLog(CallLogSettings(**options), time.monotonic)
            return PrometheusMetrics(CollectorRegistry(), settings, limits, CallWatchers(None, (log,)))

        self.ways = {
            "neither": Nothing(),
            "neither, again": Nothing(),
            "metrics": PrometheusMetrics(CollectorRegistry(), settings, limits, CallWatchers()),
            "metrics, log of failed": logging(calls="errors"),
            "metrics, log of all": logging(calls="all"),
            "metrics, every line": logging(calls="all", max_per_s=100_000),
        }
        self.lines = open(path, "w", buffering=1)
        self.round = 0
        self.turns = iter(())
        self.calls = 0
        self.begin()

    def observe(self, headers=None):
        if self.calls == calls_a_turn:
            used, ended = time.process_time_ns() - self.used, time.monotonic()
            print(self.round, self.name, self.begun, ended, used, sep="\\t", file=self.lines)
            self.begin()
        self.calls += 1
        return self.way.observe(headers)

    def begin(self):
        self.name = next(self.turns, None)
        if self.name is None:
            self.round += 1
            self.turns = iter(random.sample(list(self.ways), len(self.ways)))
            self.name = next(self.turns)
        self.way = self.ways[self.name]
        self.calls, self.begun, self.used = 0, time.monotonic(), time.process_time_ns()


wiring.PrometheusMetrics = InTurns
sys.argv = ["tidegate", "gateway"]
from tidegate.cli import main
main()
"""

# Microseconds of the processor a call, by way.
_Round = Mapping[str, float]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each workload, interleaved")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run")
    parser.add_argument("--calls", type=int, default=100, help="that are observed in one way before the next")
    arguments = parser.parse_args()
    workloads = {letter: all_workloads()[letter] for letter in "HS"}
    rounds: dict[str, list[_Round]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with (
            running_gateway(_ROOT / "model_repository", work / "up", 1) as (_, triton),
            _worker(work, triton.grpc, arguments.calls) as (endpoint, turns),
        ):
            for _ in range(arguments.runs):
                for letter, workload in workloads.items():
                    headers = {} if letter == "H" else _NOT_CACHED
                    asked = Endpoint(endpoint.name, endpoint.grpc, None, headers, endpoint.pids)
                    begun = time.monotonic()
                    with _some_fail(endpoint.grpc):
                        drivers.over_grpc(asked, workload, _CONCURRENCY, arguments.seconds)
                    rounds[letter] += _rounds(turns, begun, begun + arguments.seconds, arguments.calls)
                    drivers.settle()
    print(_table(rounds))


def _rounds(turns: Path, begun: float, ended: float, calls: int) -> Sequence[_Round]:
    """Those of a run that were under load from their first turn to their last; not the first, whose calls are slow."""
    by_number: dict[str, dict[str, float]] = defaultdict(dict)
    for line in turns.read_text().splitlines():
        number, way, first, last, used = line.split("\t")
        if float(first) > begun and float(last) < ended:
            by_number[number][way] = int(used) / 1_000 / calls
    return [each for each in by_number.values() if len(each) == len(_WAYS)][1:]


def _table(rounds: Mapping[str, Sequence[_Round]]) -> str:
    rows = [
        "| workload | with | CPU-µs a call | more than neither | 95 % sure | half of the rounds | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for letter, measured in rounds.items():
        for way in _WAYS:
            more = sorted(each[way] / _base(each, way) - 1 for each in measured)
            first, _, third = quantiles(more, n=4)
            low, high = _sure(more)
            rows.append(
                f"| {letter} | {way} | {median(each[way] for each in measured):.1f} | {median(more):+.1%} "
                f"| {low:+.1%} to {high:+.1%} | {first:+.1%} to {third:+.1%} | {len(more)} |"
            )
    return "\n".join(rows)


def _base(measured: _Round, way: str) -> float:
    """Of calls that are not observed, in the same round."""
    return mean(measured[neither] for neither in _NEITHER if neither != way)


def _sure(ordered: Sequence[float]) -> tuple[float, float]:
    """Between which the median of all there could be lies, 19 times out of 20: the order statistics that a binomial gives."""
    count = len(ordered)
    aside = 0.98 * count**0.5
    return ordered[max(0, int(count / 2 - aside))], ordered[min(count - 1, int(count / 2 + aside))]


@contextmanager
def _some_fail(address: str) -> Iterator[None]:
    """Ask for a model that is not there, so many times a second."""
    request = ModelInferRequest(model_name="nothing").SerializeToString()
    ended = Event()

    def ask() -> None:
        with grpc.insecure_channel(address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer"
            )
            while not ended.wait(1 / _FAILED_PER_S):
                call.future(request, timeout=10).exception()

    asking = Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()


@contextmanager
def _worker(work: Path, triton: str, calls: int) -> Iterator[tuple[Endpoint, Path]]:
    """One, and the file of its turns."""
    turns, state = work / "turns", work / "worker"
    state.mkdir()
    ports = {port: str(free_port()) for port in ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")}
    variables = {"STATE_DIR": str(state), "AUTH__MODE": "off", "UPSTREAM__ADDRESS": triton, **ports}
    with (state / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _WORKER, str(turns), str(calls)],
            cwd=_ROOT,
            env={**os.environ, **{f"TIDEGATE_{key}": value for key, value in variables.items()}},
            stdout=log,
            stderr=log,
        )
    try:
        port = int(ports["GRPC_PORT"])
        wait(lambda: answers(port), process, state / "log")
        yield Endpoint("worker", f"127.0.0.1:{port}", pids=lambda: {"gateway": [process.pid]}), turns
    finally:
        stop(process)


if __name__ == "__main__":
    main()
