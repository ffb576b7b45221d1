"""A bare grpc.aio pass-through, as one writes a proxy in Python: without any of the gateway's stages."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop
from grpc import aio

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_CHANNELS = 2


class _Relay(grpc.GenericRpcHandler):
    """Each unary call is made again, upstream, with its bytes as they are."""

    def __init__(self, calls: list[Any]) -> None:
        self._calls = calls
        self._turn = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._relay)

    async def _relay(self, body: bytes, context: Any) -> bytes:
        self._turn = (self._turn + 1) % len(self._calls)
        answer: bytes = await self._calls[self._turn](body, timeout=context.time_remaining())
        return answer


async def serve(port: int, upstream: str) -> None:
    """Relay until the process ends."""
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ]
    channels = [
        aio.insecure_channel(upstream, [*options, ("grpc.use_local_subchannel_pool", 1)]) for _ in range(_CHANNELS)
    ]
    calls: list[Any] = [channel.unary_unary("/inference.GRPCInferenceService/ModelInfer") for channel in channels]
    server = aio.server(options=options)
    server.add_generic_rpc_handlers((_Relay(calls),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Relay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("upstream")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.upstream))


if __name__ == "__main__":
    main()
