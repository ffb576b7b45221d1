"""The KServe v2 protocol over REST, with Triton's binary tensors."""

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.grpc.service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
)

from gateway import compression
from gateway.errors import InvalidArgument
from gateway.rest import inference
from gateway.rest.body import Body
from gateway.rest.door import CACHE_HEADER, Door, DoorDep, VersionDep, call_of, documented_key
from gateway.rest.messages import to_json
from gateway.rest.openapi import BINARY, INFERENCE, INFERENCE_ANSWER, answer, body_of, json_of, schema_of

open_router = APIRouter(prefix="/v2", tags=["KServe v2"], default_response_class=Response)
router = APIRouter(prefix="/v2", tags=["KServe v2"], dependencies=[documented_key], default_response_class=Response)
# Served in front of FastAPI.
infer_router = APIRouter(
    prefix="/v2", tags=["KServe v2"], dependencies=[documented_key], default_response_class=Response
)

_HEADER_LENGTH = "Inference-Header-Content-Length"
_MAX_DIGITS = 12
_LIVE = {"type": "object", "required": ["live"], "properties": {"live": {"type": "boolean"}}}
_IS_READY = {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}}
_READY = json_of(_IS_READY) | {503: {**json_of(_IS_READY)[200], "description": "Not ready."}}
_CONFIG = json_of(schema_of(ModelConfig))
_INFERRED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON, with binary outputs behind it where they were asked for.",
        "content": {"application/json": {"schema": INFERENCE_ANSWER}, "application/octet-stream": BINARY},
    }
}
_INFER = {
    **body_of(INFERENCE, binary=True),
    "parameters": [
        {
            "name": _HEADER_LENGTH,
            "in": "header",
            "description": "Length of the JSON where binary tensors stand behind it; 0: the body is one input's data.",
            "schema": {"type": "integer", "minimum": 0},
        }
    ],
}


@open_router.get("/health/live", summary="The gateway runs", responses=json_of(_LIVE))
async def live() -> Response:
    """Answers 200 for as long as it answers."""
    return _json({"live": True})


@open_router.get("/health/ready", summary="Calls should be sent here", responses=_READY)
async def ready(door: DoorDep) -> Response:
    """200, or 503 while Triton is not ready or this process is about to end."""
    return _json({"ready": door.readiness.ready}, 200 if door.readiness.ready else 503)


@router.get("", summary="Name, version and extensions of the server", responses=answer(ServerMetadataResponse))
async def server_metadata(request: Request, door: DoorDep) -> Response:
    """The server's metadata."""
    message = await _operate(door, request, "ServerMetadata", ServerMetadataRequest(), ServerMetadataResponse)
    return _json(to_json(message))


@router.get("/models/stats", summary="Statistics of every model", responses=answer(ModelStatisticsResponse))
async def statistics(request: Request, door: DoorDep) -> Response:
    """What Triton counted since it started."""
    return await _statistics(request, door, "", "")


@router.get("/models/{model}", summary="Inputs and outputs of a model", responses=answer(ModelMetadataResponse))
@router.get(
    "/models/{model}/versions/{version}",
    summary="Inputs and outputs of a model, of a version",
    responses=answer(ModelMetadataResponse),
)
async def model_metadata(request: Request, door: DoorDep, model: str, version: VersionDep) -> Response:
    """The model's metadata."""
    asked = ModelMetadataRequest(name=model, version=version)
    return _json(to_json(await _operate(door, request, "ModelMetadata", asked, ModelMetadataResponse)))


@router.get("/models/{model}/ready", summary="The model is ready", responses=_READY)
@router.get("/models/{model}/versions/{version}/ready", summary="The model is ready, of a version", responses=_READY)
async def model_ready(request: Request, door: DoorDep, model: str, version: VersionDep) -> Response:
    """200, 503 while it is not, or 404 where no such model is served."""
    asked = ModelReadyRequest(name=model, version=version)
    message = await _operate(door, request, "ModelReady", asked, ModelReadyResponse)
    if not message.ready and door.readiness.ready:
        door.catalog.check(model, version)
    return _json({"name": model, "ready": message.ready}, 200 if message.ready else 503)


@router.get("/models/{model}/config", summary="The model's configuration", responses=_CONFIG)
@router.get(
    "/models/{model}/versions/{version}/config", summary="The model's configuration, of a version", responses=_CONFIG
)
async def model_config(request: Request, door: DoorDep, model: str, version: VersionDep) -> Response:
    """The configuration Triton runs the model with."""
    asked = ModelConfigRequest(name=model, version=version)
    return _json(to_json((await _operate(door, request, "ModelConfig", asked, ModelConfigResponse)).config))


@router.get("/models/{model}/stats", summary="Statistics of a model", responses=answer(ModelStatisticsResponse))
@router.get(
    "/models/{model}/versions/{version}/stats",
    summary="Statistics of a model, of a version",
    responses=answer(ModelStatisticsResponse),
)
async def model_statistics(request: Request, door: DoorDep, model: str, version: VersionDep) -> Response:
    """What Triton counted since it started."""
    return await _statistics(request, door, model, version)


@infer_router.post("/models/{model}/infer", summary="Inference on tensors", responses=_INFERRED, openapi_extra=_INFER)
async def infer(request: Request, door: DoorDep, model: str) -> Response:
    """JSON tensors, or binary ones behind the JSON; `Inference-Header-Content-Length` says where they begin.

    Where it is 0 the body is the data of the model's one input.
    """
    return await _infer(request, door, model, "")


@infer_router.post(
    "/models/{model}/versions/{version}/infer",
    summary="Inference on tensors, of a version",
    responses=_INFERRED,
    openapi_extra=_INFER,
)
async def infer_version(request: Request, door: DoorDep, model: str, version: VersionDep) -> Response:
    """As without a version."""
    return await _infer(request, door, model, version)


async def _infer(request: Request, door: Door, model: str, version: str) -> Response:
    body = Body(request, door.limits.max_body_bytes)
    forms: list[inference.ResponseForm] = []
    responses: list[Response] = []

    async def read_body() -> bytes:
        content, header_length = await body.read(), _header_length(request)
        if header_length == 0:
            message, form = inference.read_raw_request(content, door.catalog.model(model), version)
        else:
            message, form = inference.read_request(content, header_length, model, version)
        forms.append(form)
        return bytes(message.SerializeToString())

    async def serialise(response: bytes) -> None:
        responses.append(await _response(request, response, forms[0]))

    reply = await door.infer(body, call_of(door, request, read_body, serialise))
    responses[0].headers[CACHE_HEADER] = reply.cache.value
    return responses[0]


async def _response(request: Request, message: bytes, form: inference.ResponseForm) -> Response:
    """In the form and the encoding that the caller wants."""
    content, header_length = inference.write_response(ModelInferResponse.FromString(message), form)
    headers = {}
    if header_length is not None:
        headers[_HEADER_LENGTH] = str(header_length)
    encoding = compression.accepted(request.headers.get("accept-encoding", ""))
    if encoding is not None:
        headers["content-encoding"] = encoding
        content = await asyncio.to_thread(compression.compress, content, encoding)
    media_type = "application/json" if header_length is None else "application/octet-stream"
    return Response(content, media_type=media_type, headers=headers)


async def _statistics(request: Request, door: Door, model: str, version: str) -> Response:
    asked = ModelStatisticsRequest(name=model, version=version)
    return _json(to_json(await _operate(door, request, "ModelStatistics", asked, ModelStatisticsResponse)))


async def _operate(door: Door, request: Request, method: str, asked: Message, kind: type[Message]) -> Any:
    return kind.FromString(await door.operate(request, method, asked.SerializeToString()))


def _header_length(request: Request) -> int | None:
    text = request.headers.get(_HEADER_LENGTH)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise InvalidArgument(f"{_HEADER_LENGTH}: {text!r} is not a number")
    return int(text)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
