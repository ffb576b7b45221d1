"""One inference through tritonclient, in numpy."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton_client
from tritonclient.utils import np_to_triton_dtype

Array = np.ndarray[Any, Any]

_COUNTED_S = 10.0


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


async def executions(client: triton_client.InferenceServerClient, model: str, inferences: int = 0) -> tuple[int, int]:
    """How many inferences the model has made, and in how many executions.

    Args:
        inferences: Waits until so many are counted: Triton counts after it has answered.
    """
    async with asyncio.timeout(_COUNTED_S):
        while True:
            counted = (await client.get_inference_statistics(model)).model_stats[0]
            if counted.inference_count >= inferences:
                return counted.inference_count, counted.execution_count
            await asyncio.sleep(0.01)
