"""Services that were written for grpc.aio, such as health and reflection, as methods of our server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import grpc

from gateway.errors import InvalidArgument
from gateway.rpc.call import Call, Method


class Methods:
    """Takes what the generated `add_…Servicer_to_server` functions give to a server.

    Attributes:
        by_path: What it took.
    """

    def __init__(self) -> None:
        self.by_path: dict[str, Method] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same ones, as functions cannot be told apart before a call: not needed."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Those of a service, by name."""
        for name, handler in handlers.items():
            self.by_path[f"/{service}/{name}"] = adapted(handler)


class _Context:
    """What these services use of grpc.aio.ServicerContext."""

    def __init__(self, call: Call, encode: Callable[[Any], bytes]) -> None:
        self._call = call
        self._encode = encode

    async def write(self, message: Any) -> None:
        await self._call.write(self._encode(message))

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        await self._call.abort(code, details)


def adapted(handler: "grpc.RpcMethodHandler[Any, Any]") -> Method:
    """A handler that decodes requests and encodes responses itself."""
    decode, encode = handler.request_deserializer, handler.response_serializer
    assert decode is not None and encode is not None

    async def next_request(call: Call) -> Any:
        if (body := await call.read()) is None:
            return None
        try:
            return decode(body)
        except Exception as error:  # Whatever a decoder of protobuf raises.
            raise InvalidArgument("the message cannot be read") from error

    async def requests(call: Call) -> AsyncIterator[Any]:
        while (request := await next_request(call)) is not None:
            yield request

    async def serve(call: Call) -> bytes | None:
        context = _Context(call, encode)
        if handler.request_streaming:
            request = requests(call)
        elif (request := await next_request(call)) is None:
            raise InvalidArgument("the call ended without a message")
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        answer = behaviour(request, context)
        if asyncio.iscoroutine(answer):
            reply = await answer
            return None if handler.response_streaming else encode(reply)
        async for response in answer:
            await call.write(encode(response))
        return None

    return serve
