"""What a bound on Triton's queue costs: `python -m loadtest.bench.queue_policy`.

Models like the demo's, with one instance and with two, with a `default_queue_policy` and without, are asked S in turns: in Triton
directly, and through the gateway.
"""

import argparse
import shutil
import tempfile
from itertools import product
from pathlib import Path
from statistics import median

from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtest.bench import drivers
from loadtest.bench.servers import add_variant, running_gateway
from loadtest.bench.workloads import TINY, tiny_to

_ROOT = Path(__file__).parents[2]
_INSTANCES = (1, 2)
_CALLERS = (1, 16, 64)
_MAX_QUEUE_SIZE = 1_024


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="interleaved; the median counts")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each")
    arguments = parser.parse_args()
    print(
        "| instances | callers | asked | answers/s bounded | p99 ms | answers/s not bounded | p99 ms |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "model_repository")
        shutil.copytree(_ROOT / "model_repository", repository)
        for instances, bounded in product(_INSTANCES, (True, False)):
            add_instances(repository, TINY, _name(instances, bounded), instances, bounded)
        with running_gateway(repository, Path(folder, "state"), None) as endpoints:
            for instances, callers, endpoint in product(_INSTANCES, _CALLERS, endpoints):
                samples: dict[bool, list[drivers.Sample]] = {True: [], False: []}
                for _, bounded in product(range(arguments.runs), samples):
                    workload = tiny_to(_name(instances, bounded))
                    samples[bounded].append(drivers.over_grpc(endpoint, workload, callers, arguments.seconds))
                figures = (
                    f"{median(sample.requests_per_s for sample in of):.0f} | {median(sample.p99_ms for sample in of):.1f}"
                    for of in samples.values()
                )
                print(f"| {instances} | {callers} | {endpoint.name} | {' | '.join(figures)} |", flush=True)


def _name(instances: int, bounded: bool) -> str:
    return f"{TINY}_{instances}_{'bounded' if bounded else 'free'}"


def add_instances(repository: Path, model: str, name: str, instances: int, bounded: bool) -> None:
    """Put a copy of a model beside it, with so many instances, and a bound on its queue where wanted."""

    def change(config: ModelConfig) -> None:
        config.instance_group[0].count = instances
        if bounded:
            config.dynamic_batching.default_queue_policy.max_queue_size = _MAX_QUEUE_SIZE

    add_variant(repository, model, name, change)


if __name__ == "__main__":
    main()
