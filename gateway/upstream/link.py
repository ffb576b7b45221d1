"""The way to one Triton: serialized messages out, serialized messages back."""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import grpc
from grpc import aio

from gateway.metrics import trace_context
from gateway.settings import UpstreamSettings
from gateway.upstream import headers, meaning
from gateway.upstream.connector import Connector, ping_timeout_s
from gateway.upstream.pending import CallFailed, CallLost
from gateway.upstream.stream import GRACE_S, TritonStream
from gateway.upstream.streams import TritonStreams

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
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
)

# Triton's own end of a call at its deadline is as bad as a cancellation, and ours comes before.
_LATER_S = 1.0
# Streams that end by themselves have so long when the gateway ends.
_CLOSE_S = 0.25
_USER_AGENT = f"tidegate/{version('tidegate')}"


class TritonLink:
    """Its connections: unary calls over our own HTTP/2, streams over gRPC's, which opens them when the first stream comes."""

    def __init__(self, address: str, settings: UpstreamSettings, max_message_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._connectors = [Connector(address, settings, max_message_bytes) for _ in range(settings.channels)]
        self._turns = itertools.cycle(self._connectors)
        self._blocks = {method: headers.request(address, f"/{SERVICE}/{method}", _USER_AGENT) for method in METHODS}
        options = _channel_options(settings, max_message_bytes)
        self._channels = [aio.insecure_channel(address, options=options) for _ in range(settings.channels)]
        self._channel_turns = itertools.cycle(self._channels)
        self._streams: set[aio.Call] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def call(self, method: str, request: bytes, timeout_s: float, affinity: str | None = None) -> bytes:
        """Make one unary call; those of one affinity arrive in order.

        Raises:
            GatewayError: Of the kind that Triton's status means; ReplicaLost, at once, where it is not there, and where the call
                was given up.
        """
        connector = self._connector() if affinity is None else self._connector_of(affinity)
        block = self._blocks[method] + headers.timeout(timeout_s + _LATER_S)
        if (trace := trace_context.outgoing.get()) is not None:
            block = b"".join((block, *(headers.pair(*each) for each in trace)))
        try:
            connection = connector.connection or await connector.connect()
            return await connection.call(block, request, timeout_s)
        except CallFailed as error:
            raise meaning.of_status(error.code, error.details) from error
        except CallLost as error:
            raise meaning.ReplicaLost("the inference server stopped answering") from error

    @asynccontextmanager
    async def stream(self, timeout_s: float) -> AsyncIterator[TritonStreams]:
        """Open a stream; leaving the block cancels what is still under way, a moment later."""
        channel = self._channel()
        # Triton's own end of it is as bad as a cancellation, and the caller's comes before.
        ends_at = self._loop.time() + timeout_s + GRACE_S
        calls: list[aio.Call] = []

        def open_stream() -> TritonStream:
            call: aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
                timeout=ends_at - self._loop.time()
            )
            calls.append(call)
            self._streams.add(call)
            return TritonStream(call)

        streams = TritonStreams(open_stream)
        try:
            yield streams
        finally:
            self._streams.difference_update(calls)
            ending = asyncio.create_task(streams.end())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def abandon(self) -> None:
        """Give up every call and stream that is under way: they end as Unavailable."""
        for call in tuple(self._streams):
            call.cancel()
        for connector in self._connectors:
            connector.abandon()

    async def close(self) -> None:
        """Close the connections."""
        for connector in self._connectors:
            await connector.close()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSE_S)
        for ending in self._ending:
            ending.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    def _connector(self) -> Connector:
        """The next in turn; one that lost Triton is passed over while another has found it."""
        first = next(self._turns)
        if first.connection is not None:
            return first
        return next((each for each in self._connectors if each.connection is not None), first)

    def _connector_of(self, affinity: str) -> Connector:
        return self._connectors[zlib.crc32(affinity.encode()) % len(self._connectors)]

    def _channel(self) -> aio.Channel:
        for channel, _ in zip(self._channel_turns, self._channels, strict=False):
            if channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return channel
        return next(self._channel_turns)


def _channel_options(settings: UpstreamSettings, max_message_bytes: int) -> tuple[tuple[str, int], ...]:
    """What gRPC does for streams: connections found again with a back-off, and peers found out that are gone without a word."""
    ping_timeout_ms = int(ping_timeout_s(settings) * 1_000)
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
