"""Triton's four clients behind one call, so that an item is written once."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio_client
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio_client
from numpy.typing import NDArray

from tests.conformance.conftest import Endpoint

Tensors = dict[str, tuple[str, NDArray[Any]]]
Infer = Callable[..., Any]


def grpc_inputs(tensors: Tensors) -> list[grpc_client.InferInput]:
    """Inputs of the gRPC clients, from (data type, array) by name."""
    return [
        _filled(grpc_client.InferInput(name, list(array.shape), kind), array) for name, (kind, array) in tensors.items()
    ]


def http_inputs(tensors: Tensors, *, binary: bool = True) -> list[http_client.InferInput]:
    """Inputs of the HTTP clients."""
    return [
        _filled(http_client.InferInput(name, list(array.shape), kind), array, binary_data=binary)
        for name, (kind, array) in tensors.items()
    ]


def _filled(tensor: Any, array: NDArray[Any], **options: Any) -> Any:
    return tensor.set_data_from_numpy(array, **options)


def over_grpc(endpoint: Endpoint, model: str, tensors: Tensors, **options: Any) -> Any:
    with grpc_client.InferenceServerClient(endpoint.grpc) as client:
        return client.infer(model, grpc_inputs(tensors), **options)


def over_grpc_aio(endpoint: Endpoint, model: str, tensors: Tensors, **options: Any) -> Any:
    async def call() -> Any:
        async with grpc_aio_client.InferenceServerClient(endpoint.grpc) as client:
            return await client.infer(model, grpc_inputs(tensors), **options)

    return asyncio.run(call())


def over_http(endpoint: Endpoint, model: str, tensors: Tensors, **options: Any) -> Any:
    with http_client.InferenceServerClient(endpoint.http) as client:
        return client.infer(model, http_inputs(tensors), **options)


def over_http_json(endpoint: Endpoint, model: str, tensors: Tensors, **options: Any) -> Any:
    names = [name.replace("in_", "out_") for name in tensors] if model == "echo" else []
    outputs = [http_client.InferRequestedOutput(name, binary_data=False) for name in names]
    with http_client.InferenceServerClient(endpoint.http) as client:
        return client.infer(model, http_inputs(tensors, binary=False), outputs=outputs or None, **options)


def over_http_aio(endpoint: Endpoint, model: str, tensors: Tensors, **options: Any) -> Any:
    async def call() -> Any:
        async with http_aio_client.InferenceServerClient(endpoint.http) as client:
            return await client.infer(model, http_inputs(tensors), **options)

    return asyncio.run(call())


CLIENTS: dict[str, Infer] = {
    "grpc": over_grpc,
    "grpc.aio": over_grpc_aio,
    "http": over_http,
    "http, JSON": over_http_json,
    "http.aio": over_http_aio,
}


def int32(*values: int) -> tuple[str, NDArray[Any]]:
    return "INT32", np.array(values, np.int32)
