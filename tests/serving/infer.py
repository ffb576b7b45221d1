"""One inference through tritonclient, in numpy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton_client
from tritonclient.utils import np_to_triton_dtype

Array = np.ndarray[Any, Any]


def floats(values: Sequence[Any]) -> Array:
    """FP32."""
    return np.array(values, np.float32)


async def infer(
    client: triton_client.InferenceServerClient, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """Ask for the named outputs."""
    tensors = []
    for name, array in inputs.items():
        made = triton_client.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensors.append(made.set_data_from_numpy(array))
    wanted = [triton_client.InferRequestedOutput(name) for name in outputs]
    result = await client.infer(model, tensors, outputs=wanted, client_timeout=30)
    return {name: result.as_numpy(name) for name in outputs}


async def executions(client: triton_client.InferenceServerClient, model: str) -> tuple[int, int]:
    """How many inferences the model has made, and in how many executions."""
    statistics = await client.get_inference_statistics(model)
    counted = statistics.model_stats[0]
    return counted.inference_count, counted.execution_count
