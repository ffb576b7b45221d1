"""The gRPC server: inference, health, reflection."""

import asyncio
import socket
import ssl
from collections.abc import Mapping

from gateway.rpc import reflection
from gateway.rpc.call import Method
from gateway.rpc.connection import Connection, Served
from gateway.rpc.health import SERVICE as HEALTH
from gateway.rpc.health import Health
from gateway.rpc.servicer import InferenceHandler
from gateway.settings import LimitSettings
from gateway.upstream.link import SERVICE

_BACKLOG = 2_048


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

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Take connections; without TLS where there is no context."""
        bound_s = None if tls is None else self._served.stall_s  # Only with TLS may it be given.
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._served),
            sock=listener,
            ssl=tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=bound_s,
            ssl_shutdown_timeout=bound_s,
        )

    async def stop(self, grace_s: float) -> None:
        """Take no more, finish what is under way within `grace_s`, and cancel the rest."""
        if self._server is None:
            return
        self._server.close()
        self._served.ends = True
        for connection in tuple(self._served.connections):
            connection.go_away()
        deadline = asyncio.get_running_loop().time() + grace_s
        while (left_s := deadline - asyncio.get_running_loop().time()) > 0 and self._served.connections:
            # More may come: those whose handshake was under way.
            await asyncio.wait([connection.closed for connection in self._served.connections], timeout=left_s)
        for connection in tuple(self._served.connections):
            connection.cancel()
