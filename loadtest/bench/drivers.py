"""Load that costs little: h2load, Debian's, sends a body that is ready."""

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
from numpy.typing import NDArray

from loadtest.bench.errors import BenchFailed
from loadtest.bench.workloads import Workload

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_GRACE_S = 60.0
_OK = 200
# Until callers who all began at once ask as they will from then on, and caches are as this load has them.
_WARM_S = 2.0
# So that what is under way at the end of what is measured is answered, and its time known; what takes longer is not counted.
_LONGER_S = 1.7
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
        pids: Gives whose processor time and memory are counted, by name.
    """

    name: str
    grpc: str
    rest: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pids: Callable[[], Mapping[str, Sequence[int]]] = dict


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
    headers = {"content-type": "application/grpc", "te": "trailers", **endpoint.headers}
    load = _Load(f"http://{endpoint.grpc}{_METHOD}", headers, workload.grpc_body, concurrency)
    sample, ended = load.measured(endpoint, seconds)
    # A call that fails has the HTTP status of one that does not, and no data.
    answered = ended.data_bytes / _answer_bytes(endpoint, workload)
    if answered < _ANSWERED * ended.requests:
        raise BenchFailed(f"{endpoint.name}, {workload.name}: {answered:.1f} of {ended.requests} answered")
    return sample


def over_rest(endpoint: Endpoint, workload: Workload, concurrency: int, seconds: float) -> Sample:
    """`concurrency` connections, each with one request at a time.

    Raises:
        BenchFailed: A request failed, or none was answered.
    """
    headers = {**workload.rest_headers, **endpoint.headers}
    url = f"http://{endpoint.rest}{workload.rest_path}"
    sample, _ = _Load(url, headers, workload.rest_body, concurrency, "--h1").measured(endpoint, seconds)
    return sample


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


@dataclass(frozen=True, slots=True)
class _Ended:
    """What a load did from its start to its end."""

    requests: int
    data_bytes: int


class _Load:
    """h2load, which goes on for as long as it is looked at, and is looked at only while it goes on.

    Callers that start with nothing under way, and leave what is under way at the end, would have a server look slower
    by some of their number: with 16 photographs at once and two seconds, by a tenth.
    """

    def __init__(self, url: str, headers: Mapping[str, str], body: bytes, concurrency: int, *options: str) -> None:
        self._body = body
        self._command = [
            "h2load",
            *options,
            f"--clients={concurrency}",
            "--max-concurrent-streams=1",
            "--warm-up-time=0",
            *(f"--header={name}: {value}" for name, value in headers.items()),
            url,
        ]

    def measured(self, endpoint: Endpoint, seconds: float) -> tuple[Sample, _Ended]:
        """Run it, and measure `seconds` of it.

        Raises:
            BenchFailed: A request failed, or none was answered.
        """
        with tempfile.TemporaryDirectory() as folder:
            body, log = Path(folder, "body"), Path(folder, "log")
            body.write_bytes(self._body)
            duration_ms = round((_WARM_S + seconds + _LONGER_S) * 1_000)
            files = [f"--duration={duration_ms}ms", f"--data={body}", f"--log-file={log}"]
            before = os.times()
            with _running([*self._command, *files]) as client:
                time.sleep(_WARM_S)
                with _counted(endpoint) as counted:
                    begin = time.time()
                    time.sleep(seconds)
                    end = time.time()
                printed = _output(client, seconds)
            after = os.times()
            # Start, HTTP status and duration of each request, in microseconds.
            rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
        (data,) = re.findall(r"\((\d+)\) data$", printed, re.MULTILINE)
        if not len(rows) or (rows[:, 1] != _OK).any():
            raise BenchFailed(f"{endpoint.name}: requests failed\n{printed}")
        durations = rows[:, 2] / 1e6
        parts = parts_within(rows[:, 0] / 1e6, durations, begin, end)
        if not parts.any():
            raise BenchFailed(f"{endpoint.name}: no request was answered within {seconds} s\n{printed}")
        requests = float(parts.sum())
        p50, p99 = np.percentile(durations[parts > 0] * 1e3, (50, 99))
        client_s = after.children_user + after.children_system - before.children_user - before.children_system
        cpu_ms = {name: used * 1e3 / requests for name, used in counted.cpu_s.items()}
        cpu_ms["client"] = client_s * 1e3 / len(rows)
        sample = Sample(requests / (end - begin), float(p50), float(p99), cpu_ms, counted.peak_mib)
        return sample, _Ended(len(rows), int(data))


def parts_within(
    started: NDArray[np.float64], durations: NDArray[np.float64], begin: float, end: float
) -> NDArray[np.float64]:
    """Which part of each request was between two moments, 0 to 1; (N,), all times in seconds.

    Of requests that take long only few both begin and end there.
    """
    within: NDArray[np.float64] = np.minimum(started + durations, end) - np.maximum(started, begin)
    parts: NDArray[np.float64] = within.clip(min=0) / durations
    return parts


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise BenchFailed(f"{command[0]} (of Debian's nghttp2-client): {error}") from error
    with client:
        try:
            yield client
        finally:
            client.kill()


def _output(client: subprocess.Popen[str], seconds: float) -> str:
    try:
        printed, _ = client.communicate(timeout=_GRACE_S + seconds)
    except subprocess.TimeoutExpired as error:
        raise BenchFailed("h2load did not end") from error
    if client.returncode:
        raise BenchFailed(f"h2load ended with {client.returncode}\n{printed}")
    return printed


@dataclass(slots=True)
class _Counter:
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    peak_mib: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def _counted(endpoint: Endpoint) -> Iterator[_Counter]:
    """The processor time of an endpoint's processes over the block, and the most memory they ever had."""
    processes = {name: [psutil.Process(pid) for pid in pids] for name, pids in endpoint.pids().items()}
    before = {name: _cpu_s(group) for name, group in processes.items()}
    counter = _Counter()
    yield counter
    counter.cpu_s = {name: _cpu_s(group) - before[name] for name, group in processes.items()}
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
