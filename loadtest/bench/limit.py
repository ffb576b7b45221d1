"""The machine's limit: the photograph decoded and scored in one process on all cores, with no server around it.

Run as a process of its own, which prints {"images_per_s", "p50_ms", "p99_ms"} as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino

from contract.card import ImageLimits, Preprocessing
from loadtest.bench.drivers import Sample
from loadtest.bench.workloads import PHOTOGRAPHS, TENSORS, photograph
from serving.images import prepare

_LIMITS = ImageLimits()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--concurrency", type=int, default=16, help="1: one photograph at a time, on all cores")
    parser.add_argument("--batch", type=int, default=1, help="photographs scored at once by each stream")
    arguments = parser.parse_args()
    preprocessing = Preprocessing.model_validate_json(
        (arguments.repository / PHOTOGRAPHS / "1" / "preprocessing.json").read_bytes()
    )
    file = photograph()
    cores = len(os.sched_getaffinity(0))
    streams = 1 if arguments.concurrency == 1 else cores
    score = _compiled(arguments.repository / TENSORS / "1" / "model.xml", cores, streams)

    def batch(request: openvino.InferRequest) -> None:
        images = np.stack([prepare(file, preprocessing, _LIMITS) for _ in range(arguments.batch)])
        request.infer({0: images}, share_inputs=True)

    print(json.dumps(_measured(score, batch, streams, arguments.batch, arguments.seconds)))


def measured(models: Path, concurrency: int, batch: int, seconds: float) -> Sample:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", __name__, str(models), f"--seconds={seconds}"]
    command += [f"--concurrency={concurrency}", f"--batch={batch}"]
    printed = json.loads(subprocess.check_output(command))
    return Sample(printed["images_per_s"], printed["p50_ms"], printed["p99_ms"])


def _compiled(path: Path, cores: int, streams: int) -> openvino.CompiledModel:
    properties = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "INFERENCE_NUM_THREADS": cores,
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return openvino.Core().compile_model(path, "CPU", properties)


def _measured(
    model: openvino.CompiledModel,
    batch: Callable[[openvino.InferRequest], None],
    streams: int,
    size: int,
    seconds: float,
) -> dict[str, float]:
    requests = [model.create_infer_request() for _ in range(streams)]
    for request in requests:
        batch(request)
    durations: list[float] = []
    deadline = time.perf_counter() + seconds

    def work(request: openvino.InferRequest) -> None:
        while (started := time.perf_counter()) < deadline:
            batch(request)
            durations.append(time.perf_counter() - started)

    threads = [threading.Thread(target=work, args=(request,)) for request in requests]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    return {
        "images_per_s": len(durations) * size / elapsed,
        "p50_ms": float(np.percentile(durations, 50)) * 1_000,
        "p99_ms": float(np.percentile(durations, 99)) * 1_000,
    }


if __name__ == "__main__":
    main()
