"""gRPC: messages in and out as bytes, one handler for the hot path and one for the rest."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog
from grpc import aio

from gateway.call import Headers, InferenceCall, StreamCall
from gateway.credentials import bearer
from gateway.errors import GatewayError, Internal, InvalidArgument, LimitExceeded
from gateway.operations import METHODS, Operations
from gateway.rpc.status import STATUS
from gateway.service import InferenceService
from gateway.settings import LimitSettings
from gateway.stream import StreamService
from gateway.upstream.link import SERVICE

CACHE_HEADER = "x-tidegate-cache"
# gRPC clients that retry wait this long.
PUSHBACK = "grpc-retry-pushback-ms"

_log = structlog.get_logger(__name__)

_Context = aio.ServicerContext[bytes, bytes]
_Handler = Callable[[AsyncIterator[bytes], _Context], Awaitable[bytes]]


class InferenceHandler(grpc.GenericRpcHandler):
    """The methods of `inference.GRPCInferenceService`.

    Every unary method is served as one that streams requests, of which it reads one: gRPC then hands over the call before its
    body, and an unknown caller's body is never read. On the wire it is the same.
    """

    def __init__(
        self, service: InferenceService, streams: StreamService, operations: Operations, limits: LimitSettings
    ) -> None:
        self._service = service
        self._streams = streams
        self._operations = operations
        self._limits = limits
        self._handlers: dict[str, Any] = {
            f"/{SERVICE}/{method}": grpc.stream_unary_rpc_method_handler(self._operation(method)) for method in METHODS
        }
        self._handlers[f"/{SERVICE}/ModelInfer"] = grpc.stream_unary_rpc_method_handler(self._infer)
        self._handlers[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The method's handler; None where there is no such method."""
        return self._handlers.get(handler_call_details.method)

    async def _infer(self, _: AsyncIterator[bytes], context: _Context) -> bytes:
        headers = _headers(context)
        call = InferenceCall(
            credential=bearer(headers("authorization")),
            deadline=self._call_deadline(context),
            read_body=lambda: _read(context),
            headers=headers,
        )
        try:
            reply = await self._service.infer(call)
        except GatewayError as error:
            return await _abort(context, error)
        except Exception as error:  # The edge of the transport.
            return await _abort_unexpected(context, error)
        context.set_trailing_metadata(((CACHE_HEADER, reply.cache.value),))
        return reply.body

    async def _stream(self, _: AsyncIterator[bytes], context: _Context) -> None:
        async def receive() -> bytes | None:
            body = await context.read()
            return body if isinstance(body, bytes) else None

        async def send(body: bytes, _: GatewayError | None) -> None:
            await context.write(body)

        headers = _headers(context)
        deadline = self._deadline(context, self._limits.max_stream_s, self._limits.max_stream_s)
        try:
            await self._streams.infer(StreamCall(bearer(headers("authorization")), deadline, receive, send, headers))
        except GatewayError as error:
            await _abort(context, error)
        except Exception as error:  # The edge of the transport.
            await _abort_unexpected(context, error)

    def _operation(self, method: str) -> _Handler:
        async def handle(_: AsyncIterator[bytes], context: _Context) -> bytes:
            try:
                return await self._operations.call(
                    method,
                    bearer(_headers(context)("authorization")),
                    lambda: _read(context),
                    self._call_deadline(context),
                )
            except GatewayError as error:
                return await _abort(context, error)
            except Exception as error:  # The edge of the transport.
                return await _abort_unexpected(context, error)

        return handle

    def _deadline(self, context: _Context, default_s: float, max_s: float) -> float:
        """The client's, within its bounds, on the event loop's clock."""
        left_s = context.time_remaining()
        return asyncio.get_running_loop().time() + min(default_s if left_s is None else left_s, max_s)

    def _call_deadline(self, context: _Context) -> float:
        return self._deadline(context, self._limits.default_deadline_s, self._limits.max_deadline_s)


def _headers(context: _Context) -> Headers:
    """What stands under a name, several with commas between."""
    # gRPC makes it anew each time it is asked for.
    metadata = context.invocation_metadata() or ()

    def header(name: str) -> str | None:
        values = [_text(value) for key, value in metadata if key == name]
        return ",".join(values) if values else None

    return header


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


async def _read(context: _Context) -> bytes:
    body = await context.read()
    if not isinstance(body, bytes):
        raise InvalidArgument("the call ended without a message")
    return body


async def _abort(context: _Context, error: GatewayError) -> bytes:
    trailing: tuple[tuple[str, str], ...] = ()
    if isinstance(error, LimitExceeded):
        trailing = ((PUSHBACK, str(max(1, math.ceil(error.retry_after_s * 1_000)))),)
    await context.abort(STATUS[error.kind], error.message, trailing)
    raise AssertionError("abort returned")


async def _abort_unexpected(context: _Context, error: Exception) -> bytes:
    _log.error("unexpected failure", exc_info=error)
    return await _abort(context, Internal("the gateway failed; its log says why"))
