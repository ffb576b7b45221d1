"""The gRPC server: inference, health, reflection."""

from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from gateway.rpc import reflection
from gateway.rpc.servicer import InferenceHandler
from gateway.settings import LimitSettings
from gateway.upstream.link import SERVICE

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_KEEPALIVE_MS = 60_000
_KEEPALIVE_TIMEOUT_MS = 20_000


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


def build(handler: InferenceHandler, health: Health, limits: LimitSettings) -> aio.Server:
    """A server that has no port yet."""
    # Twice what is let in: over the limit a caller is told so, and far over it one connection has to wait.
    most_calls = 2 * (limits.max_in_flight + limits.max_streams)
    options: list[tuple[str, Any]] = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", limits.max_body_bytes),
        ("grpc.max_send_message_length", limits.max_body_bytes),
        ("grpc.max_metadata_size", limits.max_head_bytes),
        ("grpc.server_handshake_timeout_ms", int(limits.stall_s * 1_000)),
        ("grpc.max_concurrent_streams", most_calls),
        # Calls that no handler has taken yet. gRPC drops some of those over the first bound, and all over the second,
        # with CANCELLED: its defaults, 1,000 and 3,000, are within what honest callers may open.
        ("grpc.server.max_pending_requests", most_calls),
        ("grpc.server.max_pending_requests_hard_limit", 2 * most_calls),
        # A peer that is gone without a word is found out.
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # Clients that keep a quiet connection alive are welcome to a ping every 10 s.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    server = aio.server(options=options)
    server.add_generic_rpc_handlers((handler,))
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    reflection.add((SERVICE, "grpc.health.v1.Health"), server)
    return server
