"""Load that costs little: h2load for gRPC, wrk for REST. Both are Debian's, and send a body that is ready."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import psutil

from loadtest.bench.errors import BenchFailed
from loadtest.bench.workloads import Workload

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_GRACE_S = 60.0
_OK = "200"
# Before each message: whether it is compressed, and its length.
_FRAME_BYTES = 5
# Scores in text are not all of one length.
_ANSWERED = 0.99


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is, and which processes it is.

    Attributes:
        name: gateway, direct, relay or nginx.
        rest: host:port; None where it has no REST.
        headers: For every request.
        pids: Whose processor time and memory are counted, by name.
    """

    name: str
    grpc: str
    rest: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pids: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Attributes:
        cpu_ms: Of each kind of process, for one request.
        peak_mib: Resident memory of each kind of process, the most that was seen.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: Mapping[str, float] = field(default_factory=dict)
    peak_mib: Mapping[str, float] = field(default_factory=dict)


def over_grpc(endpoint: Endpoint, workload: Workload, concurrency: int, seconds: float) -> Sample:
    """`concurrency` connections, each with one call at a time.

    Raises:
        BenchFailed: A call failed, or none was answered.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(workload.grpc_body)
        headers = {"content-type": "application/grpc", "te": "trailers", **endpoint.headers}
        command = [
            "h2load",
            f"--clients={concurrency}",
            "--max-concurrent-streams=1",
            f"--duration={round(seconds * 1_000)}ms",
            "--warm-up-time=0",
            f"--log-file={log}",
            f"--data={body}",
            *(f"--header={name}: {value}" for name, value in headers.items()),
            f"http://{endpoint.grpc}{_METHOD}",
        ]
        with _counted(endpoint) as counted:
            printed = _run(command, seconds)
        # Start, HTTP status and microseconds of each request.
        rows = [line.split("\t") for line in log.read_text().splitlines()]
        # A call that fails has the HTTP status of one that does not, and no data.
        (came,) = re.findall(r"\((\d+)\) data$", printed, re.MULTILINE)
        answered = int(came) / _answer_bytes(endpoint, workload)
        if not rows or any(row[1] != _OK for row in rows) or answered < _ANSWERED * len(rows):
            raise BenchFailed(f"{endpoint.name}, {workload.name}: {answered:.1f} of {len(rows)} answered\n{printed}")
        p50, p99 = np.percentile([int(row[2]) / 1_000 for row in rows], (50, 99))
        return counted.sample(len(rows), seconds, float(p50), float(p99))


def _answer_bytes(endpoint: Endpoint, workload: Workload) -> int:
    """What a good answer takes in DATA frames, by asking once."""
    metadata = tuple(endpoint.headers.items())
    with grpc.insecure_channel(endpoint.grpc, [("grpc.max_send_message_length", -1)]) as channel:
        try:
            call: Callable[..., bytes] = channel.unary_unary(_METHOD)
            answer = call(workload.message, metadata=metadata, timeout=_GRACE_S)
        except grpc.RpcError as error:
            raise BenchFailed(f"{endpoint.name}, {workload.name}: {error}") from error
    return len(answer) + _FRAME_BYTES


def over_rest(endpoint: Endpoint, workload: Workload, concurrency: int, seconds: float) -> Sample:
    """`concurrency` connections, each with one request at a time.

    Raises:
        BenchFailed: A request failed, or none was answered.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "script.lua")
        body.write_bytes(workload.rest_body)
        script.write_text(_wrk_script(body, {**workload.rest_headers, **endpoint.headers}))
        command = [
            "wrk",
            "--threads=1",
            f"--connections={concurrency}",
            f"--duration={seconds:g}s",
            f"--timeout={_GRACE_S:g}s",
            f"--script={script}",
            f"http://{endpoint.rest}{workload.rest_path}",
        ]
        with _counted(endpoint) as counted:
            printed = _run(command, seconds)
        figures = dict(re.findall(r"^tidegate (\w+) (\S+)$", printed, re.MULTILINE))
        if int(figures["requests"]) == 0 or int(figures["errors"]):
            raise BenchFailed(f"{endpoint.name}, {workload.name}: requests failed\n{printed}")
        p50, p99 = float(figures["p50_ms"]), float(figures["p99_ms"])
        return counted.sample(int(figures["requests"]), float(figures["seconds"]), p50, p99)


def _wrk_script(body: Path, headers: Mapping[str, str]) -> str:
    lines = [
        'wrk.method = "POST"',
        f'local file = io.open("{body}", "rb")',
        'wrk.body = file:read("*a")',
        *(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()),
        "done = function(summary, latency)",
        "  local e = summary.errors",
        '  print("tidegate requests " .. summary.requests)',
        '  print("tidegate seconds " .. summary.duration / 1e6)',
        '  print("tidegate errors " .. e.connect + e.read + e.write + e.status + e.timeout)',
        '  print("tidegate p50_ms " .. latency:percentile(50) / 1e3)',
        '  print("tidegate p99_ms " .. latency:percentile(99) / 1e3)',
        "end",
    ]
    return "\n".join(lines)


def _run(command: Sequence[str], seconds: float) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + _GRACE_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        printed = getattr(error, "stderr", None) or ""
        raise BenchFailed(f"{command[0]} (of Debian's nghttp2-client or wrk): {error}\n{printed}") from error
    return ended.stdout


@dataclass(slots=True)
class _Counter:
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    peak_mib: Mapping[str, float] = field(default_factory=dict)

    def sample(self, requests: int, seconds: float, p50_ms: float, p99_ms: float) -> Sample:
        cpu_ms = {name: used * 1_000 / requests for name, used in self.cpu_s.items()}
        return Sample(requests / seconds, p50_ms, p99_ms, cpu_ms, self.peak_mib)


@contextmanager
def _counted(endpoint: Endpoint) -> Iterator[_Counter]:
    """The processor time of an endpoint's processes, and of the client's, over the block."""
    processes = {name: [psutil.Process(pid) for pid in pids] for name, pids in endpoint.pids.items()}
    client = os.times()
    before = {name: _cpu_s(group) for name, group in processes.items()}
    counter = _Counter()
    yield counter
    after = os.times()
    used = {name: _cpu_s(group) - before[name] for name, group in processes.items()}
    used["client"] = after.children_user + after.children_system - client.children_user - client.children_system
    counter.cpu_s = used
    counter.peak_mib = {name: sum(_peak_mib(process) for process in group) for name, group in processes.items()}


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _peak_mib(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(peak) / 1_024


def settle() -> None:
    """Let what one measurement left behind end before the next."""
    time.sleep(0.2)
