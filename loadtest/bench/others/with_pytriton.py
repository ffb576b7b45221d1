"""PyTriton, an inference function a core, and batches."""

import os
import signal
import sys
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from loadtest.bench.others.classifier import TINY_SHAPE, Classifier, Photographs, batch_size, classifier


def _infer(model: Classifier, **inputs: NDArray[Any]) -> dict[str, NDArray[np.object_]]:
    files = [each.tobytes() if each.dtype == np.uint8 else each.item() for each in inputs["file"]]
    return {"answer": np.array([each.encode() for each in model.answers(files)], object).reshape(-1, 1)}


def main() -> None:
    """Serve on the ports that are given: over HTTP, over gRPC, and figures."""
    # Its store of tensors needs the very Python that Triton's stub was built with; these are small enough without.
    os.environ["PYTRITON_NO_TENSORSTORE"] = "1"
    # Ended at once, it would leave Triton and its shared memory behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    port = int(sys.argv[1])
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        grpc_address="127.0.0.1",
        grpc_port=int(sys.argv[2]),
        metrics_port=int(sys.argv[3]),
        allow_metrics=False,
    )
    models = [classifier() for _ in os.sched_getaffinity(0)]
    size = batch_size()
    file = (bytes, (1,)) if isinstance(models[0], Photographs) else (np.uint8, TINY_SHAPE)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="classify",
            infer_func=[batch(partial(_infer, model)) for model in models],
            inputs=[Tensor(name="file", dtype=file[0], shape=file[1])],
            outputs=[Tensor(name="answer", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=size, batcher=DynamicBatcher(preferred_batch_size=[size])),
        )
        triton.serve()


if __name__ == "__main__":
    main()
