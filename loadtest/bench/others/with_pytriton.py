"""PyTriton, an inference function a core, and batches of up to four."""

import os
import signal
import sys
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from loadtest.bench.others.classifier import Classifier

_BATCH = 4


def _infer(classifier: Classifier, **inputs: NDArray[np.bytes_]) -> dict[str, NDArray[np.object_]]:
    labels = classifier.labels([bytes(file) for file in inputs["photograph"].ravel()])
    return {"labels": np.array([each.encode() for each in labels], object).reshape(-1, 1)}


def main() -> None:
    """Serve on the ports that are given: over HTTP, over gRPC, and figures."""
    # Its store of tensors needs the very Python that Triton's stub was built with; photographs are small enough without.
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
    functions = [batch(partial(_infer, Classifier())) for _ in os.sched_getaffinity(0)]
    with Triton(config=config) as triton:
        triton.bind(
            model_name="classify",
            infer_func=functions,
            inputs=[Tensor(name="photograph", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="labels", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=_BATCH, batcher=DynamicBatcher(preferred_batch_size=[_BATCH])),
        )
        triton.serve()


if __name__ == "__main__":
    main()
