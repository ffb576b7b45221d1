"""Triton's generate extension: a JSON object in, one JSON object a response out."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse

from contract.tensors import DataType, TensorSpec
from gateway.call import StreamCall
from gateway.errors import GatewayError, InvalidArgument
from gateway.rest import json_tensors, json_text
from gateway.rest.inference import set_parameter
from gateway.routing.catalog import Model
from gateway.stream import StreamService

_ID, _PARAMETERS = "id", "parameters"


def read_request(text: bytes, model: Model, version: str) -> ModelInferRequest:
    """Members named as an input are tensors, `id` is the id, and the rest are parameters; so within `parameters`.

    Raises:
        InvalidArgument: The message names the member.
    """
    members = json_text.parse(text)
    if not isinstance(members, dict):
        raise InvalidArgument("the body must be a JSON object")
    message = ModelInferRequest(model_name=model.name, model_version=version)
    nested = members.pop(_PARAMETERS, {})
    if not isinstance(nested, dict):
        raise InvalidArgument(f"{_PARAMETERS}: must be an object")
    inputs = {spec.name: spec for spec in model.inputs}
    for name, value in [*members.items(), *nested.items()]:
        if name in inputs:
            _add_input(message, inputs[name], model.batches, value)
        elif name == _ID and isinstance(value, str):
            message.id = value
        elif isinstance(value, bool | int | float | str):
            set_parameter(message.parameters[name], value)
        else:
            raise InvalidArgument(f"{name}: neither an input of model {model.name!r} nor the value of a parameter")
    return message


def write_response(message: ModelInferResponse) -> bytes:
    """The outputs by their names: an element alone, or a flat list of them.

    Raises:
        InvalidArgument: An output has no JSON form.
    """
    members: dict[str, Any] = {"model_name": message.model_name, "model_version": message.model_version}
    if message.id:
        members[_ID] = message.id
    for tensor, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        elements = json_tensors.from_raw(tensor.name, DataType(tensor.datatype), raw)
        members[tensor.name] = elements[0] if len(elements) == 1 else elements
    return json_text.dump(members)


async def responses(
    streams: StreamService, credential: str | None, deadline: float, read_body: Callable[[], Awaitable[bytes]]
) -> AsyncGenerator[ModelInferResponse, None]:
    """Each response to one request, as it comes; closing the iterator cancels the request.

    Args:
        read_body: Gives the serialized request, asked for when the caller is known.

    Raises:
        GatewayError: The request was refused, or failed.
    """
    found: asyncio.Queue[ModelInferResponse | GatewayError | None] = asyncio.Queue()
    bodies = iter([read_body])

    async def receive() -> bytes | None:
        read = next(bodies, None)
        return None if read is None else await read()

    async def send(body: bytes, error: GatewayError | None) -> None:
        found.put_nowait(error or ModelStreamInferResponse.FromString(body).infer_response)
        await found.join()  # No more than one lies here.

    async def run() -> None:
        try:
            await streams.infer(StreamCall(credential, deadline, receive, send))
        finally:
            found.put_nowait(None)

    running = asyncio.create_task(run())
    try:
        while (response := await found.get()) is not None:
            if isinstance(response, GatewayError):
                raise response
            yield response
            found.task_done()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _add_input(message: ModelInferRequest, spec: TensorSpec, batches: bool, value: Any) -> None:
    if spec.name in [tensor.name for tensor in message.inputs]:
        raise InvalidArgument(f"{spec.name}: given twice")
    elements = value if isinstance(value, list) else [value]
    shape = json_tensors.shape_of(spec, batches, len(elements))
    raw = json_tensors.to_raw(spec.name, spec.data_type, shape, elements)
    message.inputs.add(name=spec.name, datatype=spec.data_type.value, shape=shape)
    message.raw_input_contents.append(raw)
