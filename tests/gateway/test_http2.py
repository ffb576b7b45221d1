"""The HTTP/2 connection before servers that do what a Triton rarely does, and before gRPC's own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.http2 import frames
from gateway.upstream import headers, http2
from gateway.upstream.http2 import Http2Connection
from gateway.upstream.pending import CallFailed, CallLost
from tests.gateway.tritons import StandIn, replicas

_LIMIT = 100_000
_METHOD = headers.request("triton", "/inference.GRPCInferenceService/ModelInfer", "test")
_HEADERS: bytes = Encoder().encode([(":status", "200"), ("content-type", "application/grpc")], huffman=False)
_OK: bytes = Encoder().encode([("grpc-status", "0")])
_ALL_READ = frames.END_HEADERS | frames.END_STREAM

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def message(body: bytes) -> bytes:
    return frames.MESSAGE.pack(0, len(body)) + body


def answer(number: int, body: bytes) -> bytes:
    """All frames of a good answer."""
    return b"".join(
        (
            frames.frame(frames.HEADERS, frames.END_HEADERS, number, _HEADERS),
            frames.frame(frames.DATA, 0, number, message(body)),
            frames.frame(frames.HEADERS, _ALL_READ, number, _OK),
        )
    )


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    high, low, kind, flags, number = frames.FRAME.unpack(await reader.readexactly(frames.FRAME.size))
    return kind, flags, number, await reader.readexactly(high << 16 | low)


async def read_request(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next whole request, its stream and its message."""
    body = b""
    while True:
        kind, flags, number, payload = await read_frame(reader)
        if kind == frames.DATA:
            body += payload
            if flags & frames.END_STREAM:
                return number, body[frames.MESSAGE.size :]


@asynccontextmanager
async def connected(script: Script) -> AsyncIterator[Http2Connection]:
    """A connection to a server that reads the preface and does as told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(len(frames.PREFACE))
            writer.write(frames.frame(frames.SETTINGS, 0, 0, b""))
            await script(reader, writer)
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Http2Connection(_LIMIT, 300, 5), "127.0.0.1", port)
    try:
        yield connection
    finally:
        connection.close()
        await connection.closed
        server.close()


async def ask(connection: Http2Connection, body: bytes = b"request", timeout_s: float = 5) -> bytes:
    return await connection.call(_METHOD + headers.timeout(timeout_s), body, timeout_s)


def says(*parts: bytes) -> Script:
    """A server that answers the first request with these bytes, one write each."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return script


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 200), max_size=8))
async def test_an_answer_may_come_in_any_pieces(cuts: list[int]) -> None:
    whole = frames.frame(frames.PING, 0, 0, bytes(8)) + answer(1, b"x" * 150)
    pieces, rest = [], whole
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    async with connected(says(*pieces, rest)) as connection:
        assert await ask(connection) == b"x" * 150


@settings(max_examples=50, deadline=None)
@given(noise=st.binary(min_size=1, max_size=100), kind=st.integers(0, 12), flags=st.integers(0, 255))
async def test_whatever_comes_ends_the_call_and_nothing_else(noise: bytes, kind: int, flags: int) -> None:
    async with connected(says(frames.frame(kind, flags, 1, noise), noise)) as connection:
        with pytest.raises((CallFailed, CallLost)):
            await ask(connection, timeout_s=0.02)


async def test_padding_priorities_continuations_and_unknown_frames_are_read() -> None:
    padded = bytes((3,)) + message(b"padded") + bytes(3)
    prioritised = bytes((2,)) + bytes(5) + _HEADERS + bytes(2)
    flags = frames.END_HEADERS | frames.PADDED | frames.HAS_PRIORITY
    parts = (
        frames.frame(frames.HEADERS, flags, 1, prioritised),
        frames.frame(0xFA, 0, 1, b"unknown"),
        frames.frame(frames.DATA, frames.PADDED, 1, padded),
        frames.frame(frames.HEADERS, frames.END_STREAM, 1, _OK[:2]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, _OK[2:]),
    )
    async with connected(says(*parts)) as connection:
        assert await ask(connection) == b"padded"


async def test_a_status_is_given_with_its_message() -> None:
    trailers = Encoder().encode([(":status", "200"), ("grpc-status", "5"), ("grpc-message", "no model %22x%22")])
    async with connected(says(frames.frame(frames.HEADERS, _ALL_READ, 1, trailers))) as connection:
        with pytest.raises(CallFailed, match='no model "x"') as caught:
            await ask(connection)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "part",
    [
        frames.frame(frames.DATA, 0, 1, frames.MESSAGE.pack(0, 3) + b"fourth") + answer(1, b"")[9 + len(_HEADERS) :],
        frames.frame(frames.DATA, 0, 1, frames.MESSAGE.pack(1, 1) + b"z")
        + frames.frame(frames.HEADERS, _ALL_READ, 1, _OK),
        frames.frame(frames.HEADERS, _ALL_READ, 1, _OK),
    ],
    ids=["a length that lies", "compressed", "no message"],
)
async def test_what_is_not_one_message_is_no_answer(part: bytes) -> None:
    async with connected(says(part)) as connection:
        with pytest.raises(CallFailed) as caught:
            await ask(connection)
    assert caught.value.code is grpc.StatusCode.INTERNAL


async def test_an_answer_over_the_limit_is_cut_off() -> None:
    part = frames.frame(frames.DATA, 0, 1, bytes(10_000))
    async with connected(says(*[part] * 11)) as connection:
        with pytest.raises(CallFailed, match="larger than 100000 bytes") as caught:
            await ask(connection)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frames.frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, bytes(8)),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, b""),
        frames.frame(frames.HEADERS, _ALL_READ, 1, b"\xff\xff\xff"),
        frames.frame(frames.HEADERS, 0, 1, _OK) + frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.RST_STREAM, 0, 1, frames.NUMBER.pack(frames.REFUSED)),
        frames.frame(frames.GOAWAY, 0, 0, frames.NUMBER.pack(0) + bytes(4)),
        frames.frame(frames.DATA, frames.END_STREAM, 1, message(b"")),
    ],
    ids=["http/1.1", "push", "continuation of nothing", "no header", "interrupted", "refused", "goaway", "no status"],
)
async def test_a_connection_that_breaks_loses_its_calls(part: bytes) -> None:
    async with connected(says(part)) as connection:
        with pytest.raises(CallLost):
            await ask(connection)


async def test_a_server_that_goes_away_finishes_what_it_began() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _ = await read_request(reader)
        second, _ = await read_request(reader)
        writer.write(frames.frame(frames.GOAWAY, 0, 0, frames.NUMBER.pack(first) + bytes(4)))
        writer.write(answer(first, b"late"))

    async with connected(script) as connection:
        began, not_looked_at = await asyncio.gather(ask(connection), ask(connection), return_exceptions=True)
        assert began == b"late"
        assert isinstance(not_looked_at, CallLost)
        assert not connection.open
        await connection.closed


async def test_a_large_request_waits_for_the_servers_consent() -> None:
    sent = bytes(range(256)) * 1_000
    read: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        window = frames.SETTING.pack(frames.INITIAL_WINDOW, 1_000) + frames.SETTING.pack(frames.MAX_FRAME, 20_000)
        writer.write(frames.frame(frames.SETTINGS, 0, 0, window))
        writer.write(answer((await read_request(reader))[0], b""))
        body = b""
        while len(body) < len(sent) + frames.MESSAGE.size:
            kind, _, number, payload = await read_frame(reader)
            if kind == frames.DATA:
                body += payload
                read.append(len(payload))
                more = frames.NUMBER.pack(len(payload))
                for stream in (0, number):
                    writer.write(frames.frame(frames.WINDOW_UPDATE, 0, stream, more))
        writer.write(answer(3, body[frames.MESSAGE.size :][-10:]))

    async with connected(script) as connection:
        await ask(connection)  # With its answer the smaller window is known.
        assert await ask(connection, sent) == sent[-10:]
    assert max(read) <= 20_000


async def test_a_call_that_is_answered_soon_after_it_was_cancelled_is_not_cancelled_at_the_server() -> None:
    kinds: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            kind, _, number, _ = await read_frame(reader)
            kinds.append(kind)
            if (kind, number) == (frames.DATA, 3):
                writer.write(answer(1, b"for nobody") + answer(3, b"awaited"))

    async with connected(script) as connection:
        first = asyncio.create_task(ask(connection))
        await asyncio.sleep(0)
        first.cancel()
        assert await ask(connection) == b"awaited"
        await asyncio.sleep(2 * http2._PATIENCE_S)
    assert frames.RST_STREAM not in kinds


async def test_a_call_that_is_cancelled_or_late_is_cancelled_at_the_server() -> None:
    resets: asyncio.Queue[int] = asyncio.Queue()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            kind, _, number, payload = await read_frame(reader)
            if kind == frames.RST_STREAM:
                assert payload == frames.NUMBER.pack(frames.CANCEL)
                resets.put_nowait(number)

    async with connected(script) as connection:
        task = asyncio.create_task(ask(connection))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(CallFailed) as caught:
            await ask(connection, timeout_s=0.01)
        assert [await resets.get(), await resets.get()] == [1, 3]
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_no_more_calls_are_begun_than_the_server_allows() -> None:
    asked = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.frame(frames.SETTINGS, 0, 0, frames.SETTING.pack(frames.MAX_STREAMS, 1)))
        writer.write(answer((await read_request(reader))[0], b""))
        number, _ = await read_request(reader)
        await asked.wait()
        writer.write(answer(number, b"done"))

    async with connected(script) as connection:
        await ask(connection)  # With its answer the bound is known.
        first = asyncio.create_task(ask(connection))
        await asyncio.sleep(0)
        with pytest.raises(CallFailed) as caught:
            await ask(connection)
        asked.set()
        assert await first == b"done"
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("size", [0, 1, 16_000, 70_000, 3_000_000])
async def test_bodies_of_all_sizes_go_both_ways_with_grpcs_server(size: int) -> None:
    sent = bytes(index * 7 % 251 for index in range(size))

    async def echo(request: bytes, _: object) -> bytes:
        return request

    async with replicas(1) as (triton,):
        triton.infer = echo
        async with to(triton) as connection:
            both = await asyncio.gather(ask(connection, sent), ask(connection, sent[::-1]))
    assert list(both) == [sent, sent[::-1]]


@asynccontextmanager
async def to(triton: StandIn) -> AsyncIterator[Http2Connection]:
    host, _, port = triton.address.rpartition(":")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Http2Connection(4_000_000, 300, 5), host, int(port))
    try:
        yield connection
    finally:
        connection.close()
        await connection.closed
