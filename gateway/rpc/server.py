"""The gRPC server: inference, health, reflection."""

import asyncio
import socket
import ssl

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from gateway.rpc import reflection
from gateway.rpc.connection import Connection, Served
from gateway.rpc.handlers import Methods
from gateway.rpc.servicer import InferenceHandler
from gateway.settings import LimitSettings
from gateway.upstream.link import SERVICE

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_HEALTH = "grpc.health.v1.Health"
_BACKLOG = 2_048


class Health:
    """`grpc.health.v1`, Check and Watch, for the server as a whole and for the inference service."""

    def __init__(self) -> None:
        self.servicer = health_aio.HealthServicer()
        self._ready: bool | None = None

    async def tell(self, ready: bool) -> None:
        """Let those who watch know, where it changed."""
        if ready is not self._ready:
            self._ready = ready
            for name in ("", SERVICE):
                await self.servicer.set(name, _SERVING if ready else _NOT_SERVING)


class RpcServer:
    """Serves gRPC on one port."""

    def __init__(self, handler: InferenceHandler, health: Health, limits: LimitSettings) -> None:
        of_health = Methods()
        health_pb2_grpc.add_HealthServicer_to_server(health.servicer, of_health)  # type: ignore[arg-type]  # It calls one method.
        self._served = Served(
            methods=handler.methods | of_health.by_path | reflection.methods((SERVICE, _HEALTH)),
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
        connections = tuple(self._served.connections)
        going = [asyncio.create_task(connection.go_away()) for connection in connections]
        if going:
            await asyncio.wait(going, timeout=grace_s)
        for connection in tuple(self._served.connections):
            connection.cancel()
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
