"""The model repository over REST: index, load, unload."""

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from tritonclient.grpc.service_pb2 import (
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)

from gateway.errors import InvalidArgument
from gateway.rest import json_text
from gateway.rest.body import Body
from gateway.rest.door import Door, DoorDep, credential, documented_key
from gateway.rest.messages import to_json
from gateway.rest.openapi import body_of, json_of, schema_of

router = APIRouter(
    prefix="/v2/repository", tags=["KServe v2"], dependencies=[documented_key], default_response_class=Response
)

_Asked = Callable[[dict[str, Any]], bytes]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return body_of({"type": "object", "properties": properties}, required=False)


@router.post(
    "/index",
    summary="Models and versions in the repository",
    responses=json_of({"type": "array", "items": schema_of(RepositoryIndexResponse.ModelIndex)}),
    openapi_extra=_object({"ready": {"type": "boolean"}}),
)
async def repository_index(request: Request, door: DoorDep) -> Response:
    """Each with its state, and the reason where it is not ready; `{"ready": true}` asks for those that are."""

    def asked(members: dict[str, Any]) -> bytes:
        ready = members.get("ready", False)
        if not isinstance(ready, bool):
            raise InvalidArgument("ready: must be true or false")
        return bytes(RepositoryIndexRequest(ready=ready).SerializeToString())

    index = RepositoryIndexResponse.FromString(await _operate(door, request, "RepositoryIndex", asked))
    return Response(orjson.dumps(to_json(index)["models"]), media_type="application/json")


@router.post(
    "/models/{model}/load",
    summary="Load a model, or load it anew",
    openapi_extra=_object({"parameters": {"type": "object", "maxProperties": 0}}),
)
async def load(request: Request, door: DoorDep, model: str) -> Response:
    """As it lies in the repository: overrides in the body are refused."""

    def asked(members: dict[str, Any]) -> bytes:
        if members.get("parameters", {}) != {}:
            raise InvalidArgument("parameters: a model is loaded as it lies in the repository, without overrides")
        return bytes(RepositoryModelLoadRequest(model_name=model).SerializeToString())

    await _operate(door, request, "RepositoryModelLoad", asked)
    return Response()


@router.post(
    "/models/{model}/unload",
    summary="Unload a model",
    openapi_extra=_object({"parameters": {"type": "object", "properties": {"unload_dependents": {"type": "boolean"}}}}),
)
async def unload(request: Request, door: DoorDep, model: str) -> Response:
    """Calls under way are finished; the parameter `unload_dependents` unloads the models of an ensemble too."""

    def asked(members: dict[str, Any]) -> bytes:
        message = RepositoryModelUnloadRequest(model_name=model)
        parameters = members.get("parameters", {})
        dependents = parameters.get("unload_dependents", False) if isinstance(parameters, dict) else None
        if not isinstance(dependents, bool):
            raise InvalidArgument("parameters.unload_dependents: must be true or false")
        message.parameters["unload_dependents"].bool_param = dependents
        return bytes(message.SerializeToString())

    await _operate(door, request, "RepositoryModelUnload", asked)
    return Response()


async def _operate(door: Door, request: Request, method: str, asked: _Asked) -> bytes:
    """One of the operations that have a body, an object that may be left out."""
    body = Body(request, door.limits.max_body_bytes)

    async def read_body() -> bytes:
        content = await body.read()
        members = json_text.parse(content) if content.strip() else {}
        if not isinstance(members, dict):
            raise InvalidArgument("the body must be a JSON object")
        return asked(members)

    return await door.operations.call(method, credential(request), read_body, door.deadline(request))
