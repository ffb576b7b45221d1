"""How many instances a model of photographs needs: `python -m loadtest.bench.instances`.

Models like `resnet50_encoded` are asked J and B in turns: with a bound on Triton's queue and without in Triton directly, and without
through the gateway.
"""

import argparse
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median

from loadtest.bench import drivers, limit
from loadtest.bench.queue_policy import add_instances
from loadtest.bench.servers import repository_with, running_gateway, with_resnet
from loadtest.bench.workloads import PHOTOGRAPHS, photographs_to

# Photographs in a request, and callers.
_LOADS = ((1, 1), (1, 4), (1, 16), (1, 64), (8, 4))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--runs", type=int, default=4, help="interleaved; the median counts")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each")
    parser.add_argument("--models", type=Path, default=Path("build/bench/model_repository"))
    arguments = parser.parse_args()
    models = with_resnet(arguments.models)
    variants = list(product(arguments.instances, (True, False)))
    print("| photographs | callers | asked | instances | bound | answers/s | p50 ms | CPU-ms of Triton |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        repository = repository_with(models, Path(folder, "model_repository"))
        for instances, bounded in variants:
            add_instances(repository, PHOTOGRAPHS, _name(instances, bounded), instances, bounded)
        with running_gateway(repository, Path(folder, "state"), None) as (gateway, triton):
            free = [variant for variant in variants if not variant[1]]
            loads = [(triton, 1, 16, variants), *((gateway, *load, free) for load in _LOADS)]
            for endpoint, count, callers, asked in loads:
                samples: dict[tuple[int, bool], list[drivers.Sample]] = {variant: [] for variant in asked}
                for _, variant in product(range(arguments.runs), asked):
                    workload = photographs_to(_name(*variant), count)
                    samples[variant].append(drivers.over_grpc(endpoint, workload, callers, arguments.seconds))
                for (instances, bounded), of in samples.items():
                    print(
                        f"| {count} | {callers} | {endpoint.name} | {instances} | {bounded} | {_figures(of)} |",
                        flush=True,
                    )
        for callers, batch in ((1, 1), (16, 2), (16, 4)):
            limits = [limit.measured(models, callers, batch, arguments.seconds) for _ in range(arguments.runs)]
            print(f"| 1 | {callers} | the limit, by {batch} | | | {_figures(limits)} |")


def _figures(samples: Sequence[drivers.Sample]) -> str:
    rate, p50_ms = median(of.requests_per_s for of in samples), median(of.p50_ms for of in samples)
    return f"{rate:.1f} | {p50_ms:.2f} | {median(of.cpu_ms.get('triton', 0) for of in samples):.2f}"


def _name(instances: int, bounded: bool) -> str:
    return f"{PHOTOGRAPHS}_{instances}_{'bounded' if bounded else 'free'}"


if __name__ == "__main__":
    main()
