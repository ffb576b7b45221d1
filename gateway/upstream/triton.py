"""Triton over gRPC: serialized messages out, serialized messages back."""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import grpc
from grpc import aio

from gateway.errors import DeadlineExceeded
from gateway.metrics import trace_context
from gateway.settings import UpstreamSettings
from gateway.upstream import meaning
from gateway.upstream.stream import TritonStream

SERVICE = "inference.GRPCInferenceService"
METHODS = (
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "ModelInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
)

_Call = Callable[..., aio.UnaryUnaryCall[bytes, bytes]]
_Stream = Callable[..., aio.StreamStreamCall[bytes, bytes]]


class TritonUpstream:
    """One Triton behind several connections: a single HTTP/2 connection is one thread's work on either side."""

    def __init__(self, settings: UpstreamSettings, max_message_bytes: int) -> None:
        options = (
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.use_local_subchannel_pool", 1),
            # A restarted Triton is found within a second.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.enable_retries", 0),
        )
        self._connections = [_Connection.to(settings.address, options) for _ in range(settings.channels)]
        self._turns = itertools.cycle(self._connections)

    async def call(self, method: str, request: bytes, deadline: float, affinity: str | None = None) -> bytes:
        """Make one unary call; fails at once where Triton is not there."""
        connection = self._connection() if affinity is None else self._connection_of(affinity)
        try:
            return await connection.calls[method](
                request, timeout=_left(deadline), metadata=trace_context.outgoing.get()
            )
        except aio.AioRpcError as error:
            raise meaning.of_status(error.code(), error.details() or "") from error

    @asynccontextmanager
    async def stream(self, deadline: float) -> AsyncIterator[TritonStream]:
        """Open a ModelStreamInfer; leaving the block cancels what is still under way."""
        call = self._connection().stream(timeout=_left(deadline))
        try:
            yield TritonStream(call)
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            await connection.channel.close()

    def _connection(self) -> "_Connection":
        """The next in turn; one that lost Triton is passed over while another has found it."""
        for connection, _ in zip(self._turns, self._connections, strict=False):
            if connection.channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return connection
        return next(self._turns)

    def _connection_of(self, affinity: str) -> "_Connection":
        return self._connections[zlib.crc32(affinity.encode()) % len(self._connections)]


def _left(deadline: float) -> float:
    left_s = deadline - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise DeadlineExceeded("the deadline passed before Triton was asked")
    return left_s


@dataclass(frozen=True, slots=True)
class _Connection:
    channel: aio.Channel
    calls: dict[str, _Call]
    stream: _Stream

    @classmethod
    def to(cls, address: str, options: tuple[tuple[str, int], ...]) -> Self:
        channel = aio.insecure_channel(address, options=options)
        calls: dict[str, _Call] = {method: channel.unary_unary(f"/{SERVICE}/{method}") for method in METHODS}
        return cls(channel, calls, channel.stream_stream(f"/{SERVICE}/ModelStreamInfer"))
