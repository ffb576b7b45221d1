"""The gRPC way to one Triton: serialized messages out, serialized messages back."""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import grpc
from grpc import aio

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

_PING_TIMEOUT_S = 5.0

_Call = Callable[..., aio.UnaryUnaryCall[bytes, bytes]]
_Stream = Callable[..., aio.StreamStreamCall[bytes, bytes]]


class Link(Protocol):
    """A way to call one replica."""

    async def call(self, method: str, request: bytes, timeout_s: float, affinity: str | None = None) -> bytes:
        """Make one unary call; those of one affinity arrive in order.

        Raises:
            GatewayError: Of the kind that the replica's status means; Unavailable where it is gone, or was given up.
        """


class GrpcLink:
    """Several connections: a single HTTP/2 connection is one thread's work on either side."""

    def __init__(self, address: str, settings: UpstreamSettings, max_message_bytes: int) -> None:
        options = channel_options(settings, max_message_bytes)
        self._connections = [_Connection.to(address, options) for _ in range(settings.channels)]
        self._turns = itertools.cycle(self._connections)
        self._open: set[aio.Call] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def call(self, method: str, request: bytes, timeout_s: float, affinity: str | None = None) -> bytes:
        """Make one unary call; fails at once where Triton is not there."""
        connection = self._connection() if affinity is None else self._connection_of(affinity)
        call = connection.calls[method](request, timeout=timeout_s, metadata=trace_context.outgoing.get())
        self._open.add(call)
        try:
            return await call
        except aio.AioRpcError as error:
            code = error.code()
            # At the deadline either side may be the first to notice; the server's end of it reads as cancelled.
            if code is grpc.StatusCode.CANCELLED and not (call.time_remaining() or 0) > 0:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise meaning.of_status(code, error.details() or "") from error
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            raise meaning.ReplicaLost("the inference server stopped answering") from error
        finally:
            self._open.discard(call)

    @asynccontextmanager
    async def stream(self, timeout_s: float) -> AsyncIterator[TritonStream]:
        """Open a ModelStreamInfer; leaving the block cancels what is still under way, a moment later."""
        call = self._connection().stream(timeout=timeout_s)
        self._open.add(call)
        stream = TritonStream(call)
        try:
            yield stream
        finally:
            self._open.discard(call)
            ending = asyncio.create_task(stream.end())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def abandon(self) -> None:
        """Give up every call and stream that is under way: they end as Unavailable."""
        for call in tuple(self._open):
            call.cancel()

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*self._ending)
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


def channel_options(settings: UpstreamSettings, max_message_bytes: int) -> tuple[tuple[str, int], ...]:
    """What gRPC does for us: connections found again with a back-off, and peers found out that are gone without a word."""
    ping_timeout_ms = int(min(settings.keepalive_s, _PING_TIMEOUT_S) * 1_000)
    return (
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),
        # A restarted Triton is found within a second; a connection that does not open is tried again after two.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1_000)),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        # Without it a ping that is not answered is waited for a minute, whatever the keepalive says.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        # Its retries end at 256 KiB a call, which is less than an image: docs/decisions/0008-upstream-pool.md.
        ("grpc.enable_retries", 0),
    )


def _is_cancelled() -> bool:
    """Whether it is the caller that is cancelled, and not only its gRPC call."""
    task: asyncio.Task[Any] | None = asyncio.current_task()
    return task is None or task.cancelling() > 0


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
