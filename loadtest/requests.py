"""Requests made before the load begins, so that making them costs the client nothing."""

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelMetadataResponse


def random_images(metadata: ModelMetadataResponse, batch_size: int, distinct: int) -> list[ModelInferRequest]:
    """Requests with random pixels for a model whose one input is UINT8 (N, H, W, C).

    Raises:
        ValueError: The model takes something else.
    """
    if len(metadata.inputs) != 1 or metadata.inputs[0].datatype != "UINT8" or min(metadata.inputs[0].shape[1:]) < 1:
        raise ValueError(f"model {metadata.name!r} does not take one UINT8 image tensor of a fixed size")
    (tensor,) = metadata.inputs
    shape = [batch_size, *tensor.shape[1:]]
    random = np.random.default_rng(0)
    requests = []
    for _ in range(distinct):
        request = ModelInferRequest(model_name=metadata.name)
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        request.raw_input_contents.append(random.integers(0, 256, shape, np.uint8).tobytes())
        requests.append(request)
    return requests
