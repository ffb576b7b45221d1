"""Reflection's handlers, which were written for grpc.aio, as methods of our server."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

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


def adapted(handler: "grpc.RpcMethodHandler[Any, Any]") -> Method:
    """A handler of streams that does without a context."""
    decode, encode = handler.request_deserializer, handler.response_serializer
    answers: Any = handler.stream_stream
    assert decode is not None and encode is not None and answers is not None

    async def requests(call: Call) -> AsyncIterator[Any]:
        while (body := await call.read()) is not None:
            try:
                yield decode(body)
            except DecodeError as error:
                raise InvalidArgument("the message cannot be read") from error

    async def serve(call: Call) -> None:
        async with aclosing(answers(requests(call), None)) as responses:
            async for response in responses:
                await call.write(encode(response))

    return serve
