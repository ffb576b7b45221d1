"""What KServe's clients see of a server; run as a program, because KServe's messages and Triton's have the same names.

Prints a JSON object: of each call, by client and name, what came back.
"""

import asyncio
import importlib.util
import json
import sys
import types
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA_TYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip


def values(data_type: str) -> NDArray[Any]:
    """Of an input."""
    if data_type == "BYTES":
        return np.array([b"", b"a\0b", "Tidehöhe".encode()], np.object_)
    if data_type == "BOOL":
        return np.array([True, False])
    return np.array([0, 1, 100], data_type.lower().replace("fp", "float"))


def readable(array: NDArray[Any]) -> list[Any]:
    """In JSON."""
    return [element.decode() if isinstance(element, bytes) else element for element in array.tolist()]


def _without_its_server() -> None:
    """The package imports KServe's server, and much that this needs, before its clients: these are imported alone."""
    spec = importlib.util.find_spec("kserve")
    assert spec is not None and spec.submodule_search_locations
    package = types.ModuleType("kserve")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["kserve"] = package


async def _calls(http: str, grpc_address: str) -> dict[str, Any]:
    from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig
    from kserve.protocol.infer_type import InferInput, InferRequest

    url = f"http://{http}"
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    found: dict[str, Any] = {}
    async with InferenceGRPCClient(grpc_address) as rpc:

        async def infer(model: str, binary: bool, **tensors: NDArray[Any]) -> None:
            for client in ("rest", "grpc"):
                inputs = []
                for name, array in tensors.items():
                    kind = name.removeprefix("in_") if model == "echo" else "INT32"
                    tensor = InferInput(name, list(array.shape), kind)
                    tensor.set_data_from_numpy(array, binary_data=binary or client == "grpc")
                    inputs.append(tensor)
                parameters = {"binary_data_output": True} if binary and client == "rest" else {}
                request = InferRequest(model, inputs, request_id="7", parameters=parameters)
                if client == "rest":
                    answer = await rest.infer(url, request, model_name=model)
                else:
                    answer = await rpc.infer(request)
                form = "binary" if binary else "JSON"
                outputs = {output.name: readable(output.as_numpy().ravel()) for output in answer.outputs}
                found[f"{client} {model} {' '.join(tensors)} {form}"] = [answer.id, outputs]

        for kind in DATA_TYPES:
            await infer("echo", True, **{f"in_{kind}": values(kind)})
            if kind not in ("FP16", "BYTES"):
                await infer("echo", False, **{f"in_{kind}": values(kind)})
        await infer("sum", True, a=np.arange(4, dtype=np.int32)[None], b=np.ones((1, 4), np.int32))
        found["grpc live"], found["grpc ready"] = await rpc.is_server_live(), await rpc.is_server_ready()
        found["grpc model"] = await rpc.is_model_ready("sum")
        found["rest model"] = await rest.is_model_ready(url, "sum")
        for name, call in (("rest live", rest.is_server_live), ("rest ready", rest.is_server_ready)):
            try:
                found[name] = await call(url)
            except ValueError as error:
                found[name] = type(error).__name__
    await rest.close()
    return found


if __name__ == "__main__":
    _without_its_server()
    print(json.dumps(asyncio.run(_calls(*sys.argv[1:]))))
