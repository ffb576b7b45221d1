"""The gRPC server: inference, health, reflection."""

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from gateway import listening
from gateway.rpc import reflection
from gateway.rpc.call import Method
from gateway.rpc.connection import Connection, Served
from gateway.rpc.health import SERVICE as HEALTH
from gateway.rpc.health import Health
from gateway.rpc.servicer import InferenceHandler
from gateway.settings import LimitSettings
from gateway.upstream.link import SERVICE


def methods(handler: InferenceHandler, health: Health) -> dict[str, Method]:
    """All that the gateway serves, by path."""
    return handler.methods | health.methods | reflection.methods((SERVICE, HEALTH))


class RpcServer:
    """Serves gRPC on one port.

    Args:
        methods: By path.
    """

    def __init__(self, methods: Mapping[str, Method], limits: LimitSettings) -> None:
        self._served = Served(
            methods=methods,
            max_message_bytes=limits.max_body_bytes,
            max_head_bytes=limits.max_head_bytes,
            # Twice what is let in: over the limit a caller is told so, and far over it one connection has to wait.
            max_calls=2 * (limits.max_in_flight + limits.max_streams),
            stall_s=limits.stall_s,
        )
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._tls: dict[str, Any] = {}

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Take connections; without TLS where there is no context."""
        self._listener = listener
        if tls is not None:
            bound_s = self._served.stall_s
            self._tls = {"ssl": tls, "ssl_handshake_timeout": bound_s, "ssl_shutdown_timeout": bound_s}
        self._server = await asyncio.get_running_loop().create_server(
            self._connection, sock=listener, backlog=listening.BACKLOG, **self._tls
        )

    async def stop(self, grace_s: float) -> None:
        """Take no more, finish what is under way within `grace_s`, and cancel the rest."""
        if self._server is None or self._listener is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        self._served.ends = True
        before = tuple(self._served.connections)
        opening = [
            loop.create_task(loop.connect_accepted_socket(self._connection, accepted, **self._tls))
            for accepted in listening.accepted(self._listener)
        ]
        self._server.close()
        for connection in before:
            connection.go_away()
        while (left_s := deadline - loop.time()) > 0 and (under_way := self._under_way(opening)):
            await asyncio.wait(under_way, timeout=left_s)
        for connection in tuple(self._served.connections):
            connection.cancel()
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)

    def _connection(self) -> Connection:
        return Connection(self._served)

    def _under_way(self, opening: Iterable[asyncio.Task[Any]]) -> list[asyncio.Future[Any]]:
        handshakes = [task for task in opening if not task.done()]
        return [*handshakes, *(connection.closed for connection in self._served.connections)]
