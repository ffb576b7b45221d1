"""Other servers with the same engine and the same decoding, one photograph or tiny tensor a request: `python -m loadtest.bench.others`.

Each is started, measured and stopped in turns with the gateway and the limit. Those that Tidegate does not depend on are installed into
environments below build/bench/others.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import httpx

from loadtest.bench import drivers, limit
from loadtest.bench.drivers import Endpoint, Sample
from loadtest.bench.errors import BenchFailed
from loadtest.bench.others.classifier import MODELS, WORKLOAD, classifier
from loadtest.bench.others.known import FILES, Other, others
from loadtest.bench.servers import free_port, repository_with, running_gateway, tree, wait, with_resnet
from loadtest.bench.workloads import Workload, all_workloads

_ENVIRONMENTS = Path("build", "bench", "others")
_ROOT = Path(__file__).parents[3]
_CONCURRENCIES = (16, 1)
_LIMIT_BATCH = 4
_WARM_UP_S = 2.0
_STOP_S = 60.0


def main() -> None:
    """Measure, and print a table a workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of servers; all where none is given")
    parser.add_argument("--workloads", nargs="+", choices=FILES, default=list(FILES), help="J: photographs, S: tensors")
    parser.add_argument("--runs", type=int, default=3, help="interleaved; the median counts")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--models", type=Path, default=Path("build", "bench", "model_repository"))
    arguments = parser.parse_args()
    known = others()
    if unknown := set(arguments.names) - known.keys():
        parser.error(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
    named = {name: known[name] for name in arguments.names or known}
    pythons = {name: _python(name, other.packages) for name, other in named.items()}
    with tempfile.TemporaryDirectory() as folder:
        models = repository_with(with_resnet(arguments.models).resolve(), Path(folder, "models"))
        os.environ[MODELS] = str(models)
        for letter in arguments.workloads:
            os.environ[WORKLOAD] = letter
            rows: dict[str, list[list[Sample]]] = {}
            for _ in range(arguments.runs):
                measured = _limit(models, arguments.seconds) if letter == "J" else {}
                measured |= _gateway(models, letter, arguments.seconds)
                for name, other in named.items():
                    measured[name] = _other(pythons[name], other, letter, arguments.seconds)
                for name, samples in measured.items():
                    rows.setdefault(name, []).append(samples)
            print(_table(letter, rows), end="\n\n")


def _limit(models: Path, seconds: float) -> dict[str, list[Sample]]:
    return {"the limit": [limit.measured(models, *load, seconds) for load in ((16, _LIMIT_BATCH), (1, 1))]}


def _python(name: str, packages: tuple[str, ...]) -> Path:
    """An environment with these."""
    if not packages:
        return Path(sys.executable)
    home = (_ENVIRONMENTS / name.lower().replace(" ", "-")).absolute()
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (home / "complete").touch()
    return python


def _gateway(models: Path, letter: str, seconds: float) -> dict[str, list[Sample]]:
    ask = all_workloads()[letter]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_gateway(models, Path(folder, "state"), None) as (gateway, _),
    ):
        rest = _samples(gateway, ask, seconds)
        rpc = [drivers.over_grpc(gateway, ask, at, seconds) for at in _CONCURRENCIES]
        return {"Tidegate": rest, "Tidegate, gRPC": rpc}


def _other(python: Path, other: Other, letter: str, seconds: float) -> list[Sample]:
    ask = other.ask[letter]
    (expected,) = classifier().answers([FILES[letter]])
    with (
        tempfile.TemporaryDirectory() as folder,
        _running(python, other, ask, expected, Path(folder)) as endpoint,
    ):
        return _samples(endpoint, ask, seconds)


def _samples(endpoint: Endpoint, ask: Workload, seconds: float) -> list[Sample]:
    drivers.over_rest(endpoint, ask, 4, _WARM_UP_S)
    return [drivers.over_rest(endpoint, ask, concurrency, seconds) for concurrency in _CONCURRENCIES]


@contextmanager
def _running(python: Path, other: Other, ask: Workload, expected: str, folder: Path) -> Iterator[Endpoint]:
    ports = [free_port() for _ in range(3)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, *other.command(ports, folder)],
            cwd=_ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        address = f"127.0.0.1:{ports[0]}"
        wait(lambda: _answers(address, ask, expected), process, log)
        # Anew each time: some have children that end after the start.
        yield Endpoint("other", "", address, pids=lambda: {"server": tree(process.pid)})
    finally:
        _stop(process)


def _answers(address: str, ask: Workload, expected: str) -> bool:
    """Whether it answers, and what it should."""
    url = f"http://{address}{ask.rest_path}"
    try:
        answer = httpx.post(url, content=ask.rest_body, headers=ask.rest_headers, timeout=20)
    except httpx.TransportError:
        return False
    # Some put it into a string of their own JSON.
    if answer.is_success and expected.replace("\\", "") not in answer.text.replace("\\", ""):
        raise BenchFailed(f"{ask.name} is not answered with {expected}: {answer.text[:500]}")
    return answer.is_success


def _stop(process: subprocess.Popen[bytes]) -> None:
    """In order, and then all that is left of its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_STOP_S)


def _table(letter: str, rows: dict[str, list[list[Sample]]]) -> str:
    """Markdown."""
    first = next(iter(rows))
    lines = [
        f"| {letter}: server | 16 callers: a second | ÷ {first} | p99, ms | CPU-ms a request | MiB | 1 caller: p50, ms | ÷ {first} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    best = median(many.requests_per_s for many, _ in rows[first])
    least = median(one.p50_ms for _, one in rows[first])
    for name, runs in rows.items():
        many, one = zip(*runs, strict=True)
        rate = median(sample.requests_per_s for sample in many)
        p50 = median(sample.p50_ms for sample in one)
        cpu = median(sum(value for key, value in sample.cpu_ms.items() if key != "client") for sample in many)
        mib = median(sum(sample.peak_mib.values()) for sample in many)
        p99 = median(sample.p99_ms for sample in many)
        used = f"{cpu:.2f} | {mib:.0f}" if cpu else " | "
        lines.append(
            f"| {name} | {rate:.1f} | {rate / best:.2f} | {p99:.1f} | {used} | {p50:.2f} | {p50 / least:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
