"""The KServe v2 protocol over REST, with Triton's binary tensors."""

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
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

from gateway.errors import InvalidArgument
from gateway.rest import compression, inference
from gateway.rest.body import Body
from gateway.rest.door import CACHE_HEADER, Door, DoorDep, call_of, documented_key
from gateway.rest.messages import to_json

router = APIRouter(prefix="/v2", tags=["KServe v2"], dependencies=[documented_key])

_HEADER_LENGTH = "Inference-Header-Content-Length"
_MAX_DIGITS = 12


@router.get("/health/live", summary="The gateway runs")
async def live() -> Response:
    """Answers 200 for as long as it answers."""
    return Response()


@router.get("/health/ready", summary="Calls should be sent here")
async def ready(door: DoorDep) -> Response:
    """200, or 503 while Triton is not ready or this process is about to end."""
    return Response(status_code=200 if door.readiness.ready else 503)


@router.get("", summary="Name, version and extensions of the server")
async def server_metadata(request: Request, door: DoorDep) -> Response:
    """The server's metadata."""
    message = await _operate(door, request, "ServerMetadata", ServerMetadataRequest(), ServerMetadataResponse)
    return _json(to_json(message))


@router.get("/models/stats", summary="Statistics of every model")
async def statistics(request: Request, door: DoorDep) -> Response:
    """What Triton counted since it started."""
    return await _statistics(request, door, "", "")


@router.get("/models/{model}", summary="Inputs and outputs of a model")
@router.get("/models/{model}/versions/{version}", include_in_schema=False)
async def model_metadata(request: Request, door: DoorDep, model: str, version: str = "") -> Response:
    """The model's metadata."""
    asked = ModelMetadataRequest(name=model, version=version)
    return _json(to_json(await _operate(door, request, "ModelMetadata", asked, ModelMetadataResponse)))


@router.get("/models/{model}/ready", summary="The model is ready")
@router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, door: DoorDep, model: str, version: str = "") -> Response:
    """200, or 503 while it is not."""
    asked = ModelReadyRequest(name=model, version=version)
    message = await _operate(door, request, "ModelReady", asked, ModelReadyResponse)
    return Response(status_code=200 if message.ready else 503)


@router.get("/models/{model}/config", summary="The model's configuration")
@router.get("/models/{model}/versions/{version}/config", include_in_schema=False)
async def model_config(request: Request, door: DoorDep, model: str, version: str = "") -> Response:
    """The configuration Triton runs the model with."""
    asked = ModelConfigRequest(name=model, version=version)
    return _json(to_json((await _operate(door, request, "ModelConfig", asked, ModelConfigResponse)).config))


@router.get("/models/{model}/stats", summary="Statistics of a model")
@router.get("/models/{model}/versions/{version}/stats", include_in_schema=False)
async def model_statistics(request: Request, door: DoorDep, model: str, version: str = "") -> Response:
    """What Triton counted since it started."""
    return await _statistics(request, door, model, version)


@router.post("/models/{model}/infer", summary="Inference on tensors")
@router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
async def infer(request: Request, door: DoorDep, model: str, version: str = "") -> Response:
    """JSON tensors, or binary ones behind the JSON; `Inference-Header-Content-Length` says where they begin.

    Where it is 0 the body is the data of the model's one input.
    """
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
    answer, header_length = inference.write_response(ModelInferResponse.FromString(message), form)
    headers = {}
    if header_length is not None:
        headers[_HEADER_LENGTH] = str(header_length)
    encoding = compression.accepted(request.headers.get("accept-encoding", ""))
    if encoding is not None:
        headers["content-encoding"] = encoding
        answer = await asyncio.to_thread(compression.compress, answer, encoding)
    media_type = "application/json" if header_length is None else "application/octet-stream"
    return Response(answer, media_type=media_type, headers=headers)


async def _statistics(request: Request, door: Door, model: str, version: str) -> Response:
    asked = ModelStatisticsRequest(name=model, version=version)
    return _json(to_json(await _operate(door, request, "ModelStatistics", asked, ModelStatisticsResponse)))


async def _operate(door: Door, request: Request, method: str, asked: Message, answer: type[Message]) -> Any:
    return answer.FromString(await door.operate(request, method, asked.SerializeToString()))


def _header_length(request: Request) -> int | None:
    text = request.headers.get(_HEADER_LENGTH)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise InvalidArgument(f"{_HEADER_LENGTH}: {text!r} is not a number")
    return int(text)


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
