"""Whether the servers grow over many requests: `python -m loadtest.bench.memory`.

Resident memory of each process of `tidegate up`, read as photographs (J), large tensors (T), and such tensors to a model that
computes nothing (P), are answered.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import openvino
import psutil
from openvino import opset13 as opset

from loadtest.bench import drivers
from loadtest.bench.drivers import Endpoint
from loadtest.bench.servers import repository_with, running_gateway, with_resnet
from loadtest.bench.workloads import IMAGE_SHAPE, PIXEL, Workload, all_workloads, passed

_CONCURRENCY = 8
_SECONDS = 20.0
_READINGS = 10
_MIB = 1 << 20


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=100_000)
    parser.add_argument("--tensors", type=int, default=400)
    parser.add_argument("--passed", type=int, default=100_000)
    parser.add_argument("--workers", type=int, help="of the gateway; by default as `tidegate up`")
    parser.add_argument("--models", type=Path, default=Path("build", "bench", "model_repository"))
    arguments = parser.parse_args()
    models = with_resnet(arguments.models)
    print("| answered | resident, MiB, by process |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        repository = repository_with(models, Path(folder, "model_repository"))
        _write_pixel(repository / PIXEL)
        with running_gateway(repository, Path(folder, "state"), arguments.workers) as (gateway, _):
            known = all_workloads()
            loads = ((known["J"], arguments.photographs), (known["T"], arguments.tensors), (passed(), arguments.passed))
            for workload, count in loads:
                for answered in _answered(gateway, workload, count):
                    print(f"| {workload.name} {answered:,} | {_resident(gateway)} |", flush=True)


def _write_pixel(model: Path) -> None:
    """A model that gives the first pixel of each image."""
    images = opset.parameter([-1, *IMAGE_SHAPE], openvino.Type.u8)
    images.output(0).set_names({"images"})
    rows = opset.gather(images, opset.constant(0), opset.constant(1))
    pixels = opset.convert(opset.gather(rows, opset.constant(0), opset.constant(1)), "f32")
    pixels.output(0).set_names({"pixel"})
    (model / "1").mkdir(parents=True)
    openvino.save_model(openvino.Model([pixels], [images]), model / "1" / "model.xml", compress_to_fp16=False)
    (model / "config.pbtxt").write_text('backend: "openvino"\ndefault_model_filename: "model.xml"\n')


def _answered(gateway: Endpoint, workload: Workload, count: int) -> Iterator[int]:
    """Ask `count` times; gives how many were answered, so often that they can be read."""
    answered = read = 0
    while answered < count:
        sample = drivers.over_grpc(gateway, workload, _CONCURRENCY, _SECONDS)
        answered += round(sample.requests_per_s * _SECONDS)
        if answered >= min(count, read + count / _READINGS):
            read = answered
            yield answered


def _resident(endpoint: Endpoint) -> str:
    return ", ".join(
        f"{name} {' '.join(f'{psutil.Process(pid).memory_info().rss / _MIB:.0f}' for pid in pids)}"
        for name, pids in endpoint.pids().items()
    )


if __name__ == "__main__":
    main()
