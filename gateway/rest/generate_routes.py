"""Triton's generate extension: one answer, or each as it comes."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from tritonclient.grpc.service_pb2 import ModelInferResponse

from gateway.errors import GatewayError, InvalidArgument
from gateway.rest import generate, json_text
from gateway.rest.body import Body
from gateway.rest.door import Door, DoorDep, VersionDep, credential, documented_key
from gateway.rest.openapi import body_of, json_of

router = APIRouter(prefix="/v2", tags=["KServe v2"], dependencies=[documented_key], default_response_class=Response)

_NOT_ONE = "generate is for models that give exactly one response; use generate_stream"

_BODY = body_of({"type": "object"})
_ONE = json_of({"type": "object"})
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}

_Responses = AsyncGenerator[ModelInferResponse, None]


@router.post("/models/{model}/generate", summary="One JSON object in, one out", responses=_ONE, openapi_extra=_BODY)
@router.post(
    "/models/{model}/versions/{version}/generate",
    summary="One JSON object in, one out, of a version",
    responses=_ONE,
    openapi_extra=_BODY,
)
async def generate_one(request: Request, door: DoorDep, model: str, version: VersionDep) -> Response:
    """Members named as an input are tensors, the rest are parameters."""
    body = Body(request, door.limits.max_body_bytes)
    return await body.unless_gone(_only(_responses(door, request, body, model, version)))


@router.post(
    "/models/{model}/generate_stream",
    summary="One JSON object in, an event a response",
    responses=_EVENTS,
    openapi_extra=_BODY,
)
@router.post(
    "/models/{model}/versions/{version}/generate_stream",
    summary="One JSON object in, an event a response, of a version",
    responses=_EVENTS,
    openapi_extra=_BODY,
)
async def generate_stream(request: Request, door: DoorDep, model: str, version: VersionDep) -> Response:
    """As server-sent events; an error before the first response has its status, a later one is an event."""
    body = Body(request, door.limits.max_body_bytes)
    responses = _responses(door, request, body, model, version)
    try:
        first = await body.unless_gone(_first(responses))
    except BaseException:
        await responses.aclose()
        raise
    return _EventStream(first, responses)


class _EventStream(StreamingResponse):
    """Events as they come; a caller that goes away cancels what is under way."""

    def __init__(self, first: bytes, responses: _Responses) -> None:
        super().__init__(_events(first, responses), media_type="text/event-stream")
        self._responses = responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._responses):
            await super().__call__(scope, receive, send)


def _responses(door: Door, request: Request, body: Body, model: str, version: str) -> _Responses:
    async def read_body() -> bytes:
        message = generate.read_request(await body.read(), door.catalog.model(model), version)
        return bytes(message.SerializeToString())

    return generate.responses(door.streams, credential(request), door.deadline(request), read_body)


async def _only(responses: _Responses) -> Response:
    async with aclosing(responses):
        answer = None
        async for response in responses:
            if answer is not None:
                raise InvalidArgument(_NOT_ONE)
            answer = generate.write_response(response)
    if answer is None:
        raise InvalidArgument(_NOT_ONE)
    return Response(answer, media_type="application/json")


async def _first(responses: _Responses) -> bytes:
    """The first event, empty where there is none."""
    async for response in responses:
        return _event(generate.write_response(response))
    return b""


async def _events(first: bytes, responses: _Responses) -> AsyncIterator[bytes]:
    yield first
    try:
        async for response in responses:
            yield _event(generate.write_response(response))
    except GatewayError as error:
        yield _event(json_text.dump({"error": error.message}))


def _event(data: bytes) -> bytes:
    return b"".join((b"data: ", data, b"\n\n"))
