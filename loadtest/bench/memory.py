"""Whether the servers grow over many requests: `python -m loadtest.bench.memory`.

Resident memory of each process of `tidegate up`, read as photographs (J), then large tensors (T), are answered.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from loadtest.bench import drivers
from loadtest.bench.drivers import Endpoint
from loadtest.bench.servers import repository_with, running_gateway, with_resnet
from loadtest.bench.workloads import Workload, all_workloads

_CONCURRENCY = 8
_SECONDS = 5.0
_READINGS = 10
_MIB = 1 << 20


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=100_000)
    parser.add_argument("--tensors", type=int, default=5_000)
    parser.add_argument("--workers", type=int, help="of the gateway; by default as `tidegate up`")
    parser.add_argument("--models", type=Path, default=Path("build", "bench", "model_repository"))
    arguments = parser.parse_args()
    models = with_resnet(arguments.models)
    print("| answered | resident, MiB, by process |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        repository = repository_with(models, Path(folder, "model_repository"))
        with running_gateway(repository, Path(folder, "state"), arguments.workers) as (gateway, _):
            for letter, count in (("J", arguments.photographs), ("T", arguments.tensors)):
                for answered in _answered(gateway, all_workloads()[letter], count):
                    print(f"| {letter} {answered:,} | {_resident(gateway)} |", flush=True)


def _answered(gateway: Endpoint, workload: Workload, count: int) -> Iterator[int]:
    """Ask `count` times; gives how many were answered, so often that they can be read."""
    answered = 0
    for reading in range(1, _READINGS + 1):
        while answered < count * reading / _READINGS:
            sample = drivers.over_grpc(gateway, workload, _CONCURRENCY, _SECONDS)
            answered += round(sample.requests_per_s * _SECONDS)
        yield answered


def _resident(endpoint: Endpoint) -> str:
    return ", ".join(
        f"{name} {' '.join(f'{psutil.Process(pid).memory_info().rss / _MIB:.0f}' for pid in pids)}"
        for name, pids in endpoint.pids().items()
    )


if __name__ == "__main__":
    main()
