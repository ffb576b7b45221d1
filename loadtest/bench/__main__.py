"""Measure everything side by side in one run: `make bench`."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from loadtest.bench import drivers, limit, report
from loadtest.bench.drivers import Endpoint, Sample
from loadtest.bench.errors import BenchFailed
from loadtest.bench.servers import compared, with_resnet
from loadtest.bench.workloads import Workload, all_workloads

Runs = dict[str, list[Sample]]

_BUILD = Path("build")
_WARM_UP_S = 4.0
# Photographs, and requests of 8 and of 32 images, take so long that the few that fit need more time to make a figure.
_LARGE = ("J", "B", "T")
_LARGE_TIMES = 3
_LIMIT_BATCHES = (1, 2, 4, 8)
_ATTEMPTS = 3
_RESTART_S = 15.0


def main() -> None:
    """Measure, and write build/bench.json, build/bench.md and build/bench.svg."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="interleaved; the median counts")
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="of each; of photographs and large tensors three times"
    )
    parser.add_argument("--workers", type=int, help="of the gateway; by default as `tidegate up`")
    parser.add_argument("--models", type=Path, default=_BUILD / "bench" / "model_repository")
    arguments = parser.parse_args()
    models = with_resnet(arguments.models)
    with tempfile.TemporaryDirectory() as folder, compared(models, Path(folder), arguments.workers) as endpoints:
        runs = _measured(endpoints, models, arguments.runs, arguments.seconds)
    medians = {name: _median(samples) for name, samples in runs.items()}
    _BUILD.mkdir(exist_ok=True)
    (_BUILD / "bench.json").write_text(json.dumps(report.figures(medians), indent=2) + "\n")
    (_BUILD / "bench.md").write_text(text := report.text(medians, arguments.runs, arguments.seconds))
    report.plot(medians, _BUILD / "bench.svg")
    print(text)


def _measured(endpoints: Mapping[str, Endpoint], models: Path, runs: int, seconds: float) -> Runs:
    """Every figure once a run, in turns, so that all see the same machine."""
    workloads = all_workloads()
    for workload in workloads.values():  # The first calls are slow.
        for name in ("direct", "gateway"):
            _repeated(partial(drivers.over_grpc, endpoints[name], workload, 4, _WARM_UP_S))
    samples: Runs = {}
    for _ in range(runs):
        for name, measure in _plan(endpoints, workloads, models, seconds).items():
            samples.setdefault(name, []).append(_repeated(measure))
            drivers.settle()
    return samples


def _repeated(measure: Callable[[], Sample]) -> Sample:
    """Measure again where a server's process ended meanwhile.

    Triton 2.51 does so for one in some thousands of the calls that h2load gives up when it ends, where they reach it directly.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return measure()
        except (psutil.NoSuchProcess, BenchFailed) as error:
            print(f"measured again: {error}", file=sys.stderr)
            time.sleep(_RESTART_S)
    return measure()


def _plan(
    endpoints: Mapping[str, Endpoint], workloads: Mapping[str, Workload], models: Path, seconds: float
) -> dict[str, Callable[[], Sample]]:
    """What a run measures, by `workload@concurrency server transport`."""
    plan: dict[str, Callable[[], Sample]] = {}
    long_s = seconds * _LARGE_TIMES

    def add(letter: str, concurrency: int, *names: str, rest: bool = False) -> None:
        transport, drive = ("REST", drivers.over_rest) if rest else ("gRPC", drivers.over_grpc)
        for name in names:
            plan[f"{letter}@{concurrency} {name} {transport}"] = lambda name=name: drive(  # type: ignore[misc]
                endpoints[name], workloads[letter], concurrency, long_s if letter in _LARGE else seconds
            )

    for batch in _LIMIT_BATCHES:
        plan[f"J@16 limit batch {batch}"] = lambda batch=batch: limit.measured(models, 16, batch, long_s)  # type: ignore[misc]
    plan["J@1 limit batch 1"] = lambda: limit.measured(models, 1, 1, long_s)
    add("J", 1, "gateway", "direct")
    add("J", 16, "gateway", "direct")
    add("J", 16, "gateway", rest=True)
    add("B", 4, "gateway", "direct")
    add("T", 4, "gateway", "direct", "relay")
    proxies = ("relay", "nginx") if "nginx" in endpoints else ("relay",)
    add("S", 1, "gateway", "direct", *proxies)
    add("S", 16, "gateway", "direct", *proxies)
    add("S", 16, "gateway", rest=True)
    add("H", 16, "cached")
    for concurrency in report.CONCURRENCIES:
        for letter in ("J", "S"):
            add(letter, concurrency, "gateway", "direct")
            add(letter, concurrency, "gateway", rest=True)
    return plan


def _median(samples: list[Sample]) -> Sample:
    def of(values: list[Mapping[str, float]]) -> dict[str, float]:
        return {name: median(value[name] for value in values) for name in values[0]}

    return Sample(
        median(sample.requests_per_s for sample in samples),
        median(sample.p50_ms for sample in samples),
        median(sample.p99_ms for sample in samples),
        of([sample.cpu_ms for sample in samples]),
        of([sample.peak_mib for sample in samples]),
    )


if __name__ == "__main__":
    main()
