"""What a gRPC client sends, frame by frame, and what our server makes of it."""

from collections.abc import Callable

import pytest

from gateway.http2 import frames
from gateway.http2.fields import pair
from gateway.rpc.call import WINDOW
from tests.gateway.rpc_peer import (
    END,
    METHODS,
    OPENING,
    WHOLE,
    WITHOUT_TABLE,
    Hanging,
    Peer,
    data,
    head,
    message,
    opened,
    reset,
    serving,
    settings,
    window,
)

_PING = frames.frame(frames.PING, 0, 0, bytes(8))

_FOREVER = opened(1, "/t/stream")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (frames.PREFACE + _PING, frames.PROTOCOL_ERROR),
        (frames.PREFACE + opened(1), frames.PROTOCOL_ERROR),
        (frames.PREFACE + frames.frame(frames.SETTINGS, frames.ACK, 0, b""), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.DATA, 0, 1, b"")[:5] + bytes(4), frames.PROTOCOL_ERROR),
        (OPENING + data(0, b"x"), frames.PROTOCOL_ERROR),
        (OPENING + data(1, b"x"), frames.PROTOCOL_ERROR),
        (OPENING + opened(5) + data(4, b"x"), frames.PROTOCOL_ERROR),
        (OPENING + opened(0), frames.PROTOCOL_ERROR),
        (OPENING + opened(2), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.HEADERS, WHOLE, 1, b"\xff\xff\xff\xff"), frames.COMPRESSION_ERROR),
        (OPENING + frames.frame(frames.HEADERS, WHOLE, 1, b"\xfe"), frames.COMPRESSION_ERROR),
        (OPENING + frames.frame(frames.HEADERS, WHOLE, 1, b"\x3f\xff\xff\x7f"), frames.COMPRESSION_ERROR),
        (OPENING + frames.frame(frames.HEADERS, WHOLE | frames.HAS_PRIORITY, 1, b"\0"), frames.FRAME_SIZE_ERROR),
        (OPENING + frames.frame(frames.HEADERS, WHOLE | frames.PADDED, 1, b"\5abc"), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.HEADERS, WHOLE | frames.PADDED, 1, b""), frames.PROTOCOL_ERROR),
        (OPENING + _FOREVER + frames.frame(frames.DATA, frames.PADDED, 1, b"\3ab"), frames.PROTOCOL_ERROR),
        (OPENING + _FOREVER + opened(1), frames.PROTOCOL_ERROR),
        (OPENING + opened(1, flags=0) + _PING, frames.PROTOCOL_ERROR),
        (OPENING + opened(1, flags=0) + opened(3), frames.PROTOCOL_ERROR),
        (OPENING + opened(1, flags=0) + frames.frame(frames.CONTINUATION, 4, 3, b""), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.CONTINUATION, 4, 1, b""), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.PING, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.PING, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
        (OPENING + frames.frame(frames.PRIORITY, 0, 0, bytes(5)), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.PRIORITY, 0, 1, bytes(4)), frames.FRAME_SIZE_ERROR),
        (OPENING + reset(0), frames.PROTOCOL_ERROR),
        (OPENING + reset(1), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.RST_STREAM, 0, 1, bytes(3)), frames.FRAME_SIZE_ERROR),
        (OPENING + frames.frame(frames.GOAWAY, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.GOAWAY, 0, 0, bytes(3)), frames.FRAME_SIZE_ERROR),
        (OPENING + frames.frame(frames.SETTINGS, 0, 1, b""), frames.PROTOCOL_ERROR),
        (OPENING + frames.frame(frames.SETTINGS, 0, 0, bytes(5)), frames.FRAME_SIZE_ERROR),
        (OPENING + frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), frames.FRAME_SIZE_ERROR),
        (OPENING + settings((frames.ENABLE_PUSH, 2)), frames.PROTOCOL_ERROR),
        (OPENING + settings((frames.MAX_FRAME, 16_383)), frames.PROTOCOL_ERROR),
        (OPENING + settings((frames.MAX_FRAME, 2**24)), frames.PROTOCOL_ERROR),
        (OPENING + settings((frames.INITIAL_WINDOW, 2**31)), frames.FLOW_CONTROL_ERROR),
        (
            OPENING + _FOREVER + window(1, 1) + settings((frames.INITIAL_WINDOW, 2**31 - 1)),
            frames.FLOW_CONTROL_ERROR,
        ),
        (OPENING + window(0, 0), frames.PROTOCOL_ERROR),
        (OPENING + window(1, 1), frames.PROTOCOL_ERROR),
        (OPENING + window(0, 2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (OPENING + frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), frames.FRAME_SIZE_ERROR),
        (OPENING + frames.FRAME.pack(0, 16_385, frames.DATA, 0, 1), frames.FRAME_SIZE_ERROR),
        (OPENING + frames.FRAME.pack(255, 65_535, 0xFA, 0, 0), frames.FRAME_SIZE_ERROR),
    ],
)
async def test_what_puts_a_connection_out_of_step_ends_it_with_its_reason(sent: bytes, code: int | None) -> None:
    async with serving(METHODS) as port, Peer.to(port, sent) as peer:
        await peer.until_closed() if code is not None else await peer.drain()
        assert [each[1] for each in peer.goaways] == ([] if code is None else [code])
        async with Peer.to(port) as other:
            assert await other.is_served(1)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (window(1, 0), frames.PROTOCOL_ERROR),
        (window(1, 2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (data(1, b"", END) + data(1, b"x"), frames.STREAM_CLOSED),
        (data(1, bytes(WINDOW + 1)), frames.FLOW_CONTROL_ERROR),
    ],
)
async def test_what_is_wrong_with_one_call_ends_that_one(sent: bytes, code: int) -> None:
    hanging = Hanging()
    async with serving(METHODS | {"/t/hangs": hanging}) as port, Peer.to(port) as peer:
        peer.send(opened(1, "/t/hangs"))
        await peer.until_answered()
        peer.send(sent)
        await peer.until_over(1)
        assert peer.resets == {1: code} and hanging.cancelled == hanging.began == 1
        assert await peer.is_served(3)


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "POST"), (":scheme", "http")],
        [(":method", "POST"), (":scheme", "http"), (":path", "")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), (":path", "/t/echo")],
        [(":method", "POST"), (":scheme", "http"), ("x", "y"), (":path", "/t/echo")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), (":status", "200")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), ("X", "y")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), ("", "y")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), ("x y", "z")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), ("x", "y\r\nz: 1")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), ("x", "\0")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), ("connection", "close")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), ("te", "gzip")],
    ],
)
async def test_a_malformed_head_is_reset(fields: list[tuple[str, str]]) -> None:
    block = b"".join(pair(*each) for each in fields) + pair("content-type", "application/grpc")
    async with serving(METHODS) as port, Peer.to(port) as peer:
        peer.send(frames.frame(frames.HEADERS, WHOLE | END, 1, block))
        await peer.until_over(1)
        assert peer.resets == {1: frames.PROTOCOL_ERROR}
        assert await peer.is_served(3)


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (head().replace(b"POST", b"GETS"), {":status": "405"}),
        (head().replace(b"application/grpc", b"application/gRPC"), {":status": "415"}),
        (head().replace(b"\x10application/grpc", b"\x14application/grpc-web"), {":status": "415"}),
        (head("/t/none"), {"grpc-status": "12"}),
        (head("/t/echo", ("grpc-timeout", "1")), {"grpc-status": "3"}),
        (head("/t/echo", ("grpc-timeout", "123456789S")), {"grpc-status": "3"}),
        (head("/t/echo", ("x", "y" * 8_192)), {"grpc-status": "8"}),
        (head("/t/echo", ("grpc-timeout", "1H"), ("te", "trailers"), ("x", "y"), ("x", "z")), {"grpc-status": "0"}),
        (
            head().replace(b"\x10application/grpc", b"\x16application/grpc+proto"),
            {"grpc-status": "0"},
        ),
    ],
)
async def test_what_cannot_be_served_is_told_so(block: bytes, status: dict[str, str]) -> None:
    async with serving(METHODS) as port, Peer.to(port) as peer:
        peer.send(frames.frame(frames.HEADERS, WHOLE, 1, block), data(1, message(b"x"), END))
        await peer.until_over(1)
        assert status.items() <= peer.heads[1][-1].items()
        assert await peer.is_served(3)


def _repeated(each: Callable[[int], bytes], times: int) -> bytes:
    return WITHOUT_TABLE + b"".join(each(number) for number in range(3, 2 * times + 2, 2))


@pytest.mark.parametrize(
    "flood",
    [
        _PING * 50_000,
        frames.frame(frames.PRIORITY, 0, 1, bytes(5)) * 50_000,
        frames.frame(0xFA, 0, 0, b"") * 50_000,
        settings((frames.INITIAL_WINDOW, 1)) * 600,
        frames.frame(frames.SETTINGS, frames.ACK, 0, b"") * 50_000,
        _FOREVER + data(1, b"") * 50_000,
        opened(1, "/t/none") + data(1, b"") * 50_000,
        opened(1, "/t/none") + reset(1) * 50_000,
        WITHOUT_TABLE + opened(1, "/t/none") * 50_000,
        opened(1, flags=0) + frames.frame(frames.CONTINUATION, 0, 1, b"") * 50_000,
        _repeated(lambda number: opened(number) + reset(number), 10_000),
        _repeated(lambda number: opened(number) + window(number, 0), 10_000),
        _repeated(lambda number: frames.frame(frames.HEADERS, WHOLE, number, pair("x", "y")), 10_000),
    ],
    ids=[
        "pings", "priorities", "unknown", "settings", "acknowledgements", "empty data", "data of none", "resets of none",
        "heads of none", "continuations", "rapid resets", "resets made by the server", "malformed heads",
    ],
)  # fmt: skip
async def test_who_sends_much_that_asks_for_nothing_is_sent_away(flood: bytes) -> None:
    async with serving(METHODS) as port, Peer.to(port) as peer:
        peer.send(flood)
        await peer.until_closed()
        # Where it had not read what came before, the reason is lost with the connection.
        assert {each[1] for each in peer.goaways} <= {frames.CALM}
        async with Peer.to(port) as other:
            assert await other.is_served(1)


async def test_a_client_may_keep_a_table_and_never_say_that_it_has_none() -> None:
    first = b"".join(b"\x40" + pair(name, value)[1:] for name, value in ((":path", "/t/echo"), ("x", "y")))
    block = b"\x83\x86" + first + pair("content-type", "application/grpc")
    again = b"\x83\x86\xbf\xbe" + pair("content-type", "application/grpc")
    async with serving(METHODS) as port, Peer.to(port) as peer:
        await peer.until_answered()
        peer.send(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        for number, each in ((1, block), (3, again), (5, again)):
            peer.send(frames.frame(frames.HEADERS, WHOLE, number, each), data(number, message(b"x"), END))
        await peer.until_over(1, 3, 5)
        assert [peer.status(number) for number in (1, 3, 5)] == ["0"] * 3
        without = frames.frame(frames.HEADERS, WHOLE, 7, b"\x20" + again)
        peer.send(without)
        await peer.until_closed()
        assert peer.goaways[0][1] == frames.COMPRESSION_ERROR


@pytest.mark.parametrize("table", [True, False])
async def test_a_head_far_too_large_is_refused_and_calls_under_way_are_finished(table: bool) -> None:
    large = pair("x", "y" * 10_000) * 3
    async with serving(METHODS) as port, Peer.to(port) as peer:
        first = head("/t/stream") if table else b"\x20" + head("/t/stream")
        peer.send(frames.frame(frames.HEADERS, WHOLE, 1, first))
        peer.send(opened(3, flags=0), *(_continued(3, large[at : at + 10_000]) for at in range(0, len(large), 10_000)))
        peer.send(frames.frame(frames.CONTINUATION, WHOLE, 3, b""), frames.frame(frames.HEADERS, WHOLE, 5, b"\xbe"))
        await peer.until_over(3)
        assert peer.status(3) == "8" and peer.reason(3).endswith("limit 8192")
        if table:
            peer.send(data(1, message(b"x"), END))
            await peer.until_closed()
            assert peer.bodies[1] == message(b"x") and peer.status(1) == "0"
            assert [each[1] for each in peer.goaways] == [frames.NO_ERROR]
        else:
            await peer.until_closed()
            assert [each[1] for each in peer.goaways] == [frames.COMPRESSION_ERROR]


def _continued(number: int, part: bytes) -> bytes:
    return frames.frame(frames.CONTINUATION, 0, number, part)


async def test_trailers_of_any_size_end_what_the_client_says() -> None:
    large = pair("x", "y" * 10_000) * 3
    async with serving(METHODS) as port, Peer.to(port) as peer:
        for number, flags in ((1, WHOLE), (3, 0)):
            peer.send(
                frames.frame(frames.HEADERS, WHOLE, number, b"\x20" + head("/t/stream")), data(number, message(b"x"))
            )
            peer.send(frames.frame(frames.HEADERS, flags | END, number, pair("x", "y")))
        peer.send(*(_continued(3, large[at : at + 10_000]) for at in range(0, len(large), 10_000)))
        peer.send(frames.frame(frames.CONTINUATION, WHOLE, 3, b""))
        await peer.until_over(1, 3)
        assert peer.bodies == {1: message(b"x"), 3: message(b"x")}


async def test_a_block_that_does_not_end_is_not_kept_for_ever() -> None:
    async with serving(METHODS) as port, Peer.to(port) as peer:
        peer.send(opened(1, flags=0))
        part = _continued(1, bytes(16_384))
        for _ in range(1_024):
            peer.send(part)
            await peer.drain()
        await peer.until_closed()
        assert {each[1] for each in peer.goaways} <= {frames.CALM}
