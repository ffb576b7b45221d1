"""Our gRPC server before clients that keep to HTTP/2 and ones that do not, frame by frame, and before gRPC's own."""

import asyncio
import tracemalloc
from collections.abc import Callable

import grpc
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.http2 import frames
from gateway.http2.fields import pair
from gateway.rpc import heads
from gateway.rpc.call import WINDOW, Call, CallEnded, Method
from gateway.rpc.health import Health
from gateway.upstream.link import SERVICE
from tests.gateway.rpc_peer import (
    END,
    OPENING,
    WHOLE,
    WITHOUT_TABLE,
    Peer,
    asked,
    data,
    echo,
    head,
    message,
    opened,
    reset,
    serving,
    settings,
    sized,
    stream,
    window,
)

_METHODS: dict[str, Method] = {"/t/echo": echo, "/t/stream": stream, "/t/sized": sized}
_CONNECTION_WINDOW = 4 << 20


class Hanging:
    """A method that waits for its end."""

    def __init__(self) -> None:
        self.began = 0
        self.cancelled = 0
        self.changed = asyncio.Event()

    async def __call__(self, call: Call) -> None:
        self.began += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled += 1
            self.changed.set()


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
    async with serving(_METHODS) as port, Peer.to(port, sent) as peer:
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
    async with serving(_METHODS | {"/t/hangs": hanging}) as port, Peer.to(port) as peer:
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
    async with serving(_METHODS) as port, Peer.to(port) as peer:
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
    async with serving(_METHODS) as port, Peer.to(port) as peer:
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
    async with serving(_METHODS) as port, Peer.to(port) as peer:
        peer.send(flood)
        await peer.until_closed()
        # Where it had not read what came before, the reason is lost with the connection.
        assert {each[1] for each in peer.goaways} <= {frames.CALM}
        async with Peer.to(port) as other:
            assert await other.is_served(1)


async def test_who_reads_nothing_is_dropped() -> None:
    async with serving(_METHODS) as port, Peer.to(port) as peer:
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError):
                peer.send(WITHOUT_TABLE)
                for start in range(3, 10_000_000, 2_000):
                    numbers = range(start, start + 2_000, 2)
                    peer.send(*(frames.frame(frames.HEADERS, WHOLE | END, each, head("/t/none")) for each in numbers))
                    await peer.drain()


async def test_the_window_of_a_connection_comes_back_however_calls_end() -> None:
    async def refuses(call: Call) -> None:
        raise CallEnded(grpc.StatusCode.PERMISSION_DENIED)

    async def refuses_later(call: Call) -> None:
        await asyncio.sleep(0)
        raise CallEnded(grpc.StatusCode.PERMISSION_DENIED)

    async def reads_one(call: Call) -> bytes:
        await call.read()
        return b""

    methods = _METHODS | {
        "/t/refuses": refuses,
        "/t/later": refuses_later,
        "/t/one": reads_one,
        "/t/hangs": Hanging(),
    }
    body = message(bytes(100_000))
    padded = frames.frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(16_000))[9:]

    def ways(number: int) -> list[bytes]:
        later = number + 2
        return [
            opened(number, "/t/refuses") + data(number, body, END),
            opened(number, "/t/later") + data(number, body),
            opened(number, "/t/none") + data(number, body),
            opened(number, "/t/one") + data(number, body * 2, END),
            opened(number, "/t/hangs") + data(number, body) + reset(number),
            opened(number, "/t/hangs") + data(number, body) + reset(number) + data(number, body),
            opened(number, "/t/hangs") + data(number, body, END) + data(number, b"late"),
            opened(number, "/t/hangs") + data(number, body[:50]) + window(number, 0),
            opened(number, "/t/stream") + data(number, message(b"") * 100) + reset(number),
            opened(number, "/t/echo") + frames.frame(frames.DATA, frames.PADDED, number, padded) + reset(number),
            frames.frame(frames.HEADERS, WHOLE, number, head().replace(b"POST", b"GETS"))
            + data(number, body, END)
            + opened(later, "/t/one")
            + data(later, body, END),
            frames.frame(frames.HEADERS, WHOLE, number, pair("x", "y")) + data(number, body, END),
        ]

    async with serving(methods) as port, Peer.to(port) as peer:
        number = 1
        for _ in range(10):
            for way in range(len(ways(1))):
                sent = ways(number)[way]
                while peer.room < 400_000:
                    before = peer.room
                    await peer.until_answered()
                    assert peer.room > before, f"no window is left after {number // 2} calls"
                peer.send(sent)
                peer.room -= _data_bytes(sent)
                number += 4
        await peer.until_answered()
        assert not peer.goaways
        room = peer.room
        while peer.room <= room:
            room = peer.room = peer.room - 16_000
            assert room > 0, "no window comes back"
            peer.send(data(1, bytes(16_000)))
            await peer.until_answered()
        assert peer.room == _CONNECTION_WINDOW
        assert await peer.is_served(number)


def _data_bytes(sent: bytes) -> int:
    """What counts in the window."""
    size = at = 0
    while at < len(sent):
        high, low, kind, _, _ = frames.FRAME.unpack_from(sent, at)
        at += frames.FRAME.size + (high << 16 | low)
        size += (high << 16 | low) if kind == frames.DATA else 0
    return size


async def test_more_than_the_connections_window_ends_it() -> None:
    async with serving({"/t/hangs": Hanging()}) as port, Peer.to(port) as peer:
        for number in range(1, 35, 2):
            peer.send(opened(number, "/t/hangs"), data(number, bytes(WINDOW)))
        await peer.until_closed()
        assert [each[1] for each in peer.goaways] in ([frames.FLOW_CONTROL_ERROR], [])


async def test_a_large_message_is_let_in_when_its_method_reads_it() -> None:
    reads = asyncio.Event()

    async def waits(call: Call) -> bytes | None:
        await reads.wait()
        return await call.read()

    body = bytes(range(256)) * 4_000
    async with serving({"/t/waits": waits} | _METHODS) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 2**30)), window(0, 2**30))
        peer.send(opened(1, "/t/waits"), data(1, message(body)[:WINDOW]))
        assert await peer.is_served(3)
        reads.set()
        await peer.until_answered()
        peer.send(data(1, message(body)[WINDOW:], END))
        await peer.until_over(1)
        assert peer.bodies[1] == message(body)


@examples(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 20), st.integers(1_000, 40_000)), max_size=12),
    cuts=st.lists(st.integers(0, 3_000), max_size=100),
    paddings=st.lists(st.integers(-1, 255), min_size=1, max_size=10),
)
async def test_messages_may_come_in_any_pieces(sizes: list[int], cuts: list[int], paddings: list[int]) -> None:
    bodies = [bytes((index + at) % 251 for at in range(size)) for index, size in enumerate(sizes)]
    whole = b"".join(map(message, bodies))
    sent, at = [opened(1, "/t/stream")], 0
    for index, size in enumerate([*cuts, *[16_000] * (len(whole) // 16_000 + 1)]):
        part, padding = whole[at : at + size], paddings[index % len(paddings)]
        at += size
        sent.append(
            frames.frame(frames.DATA, 0, 1, part)
            if padding < 0
            else frames.frame(frames.DATA, frames.PADDED, 1, bytes((padding,)) + part + bytes(padding))
        )
    async with serving(_METHODS) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 2**30)), window(0, 2**30))
        for part in sent:
            while peer.room < len(part):
                await peer.until_answered()
            peer.room -= len(part) - frames.FRAME.size
            peer.send(part)
            await peer.drain()
        peer.send(data(1, b"", END))
        await peer.until_over(1)
        assert peer.bodies.get(1, b"") == whole and peer.status(1) == "0"


@examples(max_examples=30, deadline=None)
@given(
    noise=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(frames.frame, st.integers(0, 11), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=20)),
            st.sampled_from(
                (asked(1), asked(3), opened(5, "/t/stream"), data(5, message(b"a")), reset(5), window(5, 9))
            ),
        ),
        max_size=12,
    ),
    opening=st.booleans(),
)
async def test_whatever_comes_the_server_answers_or_closes_and_keeps_nothing(noise: list[bytes], opening: bool) -> None:
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    async with serving(_METHODS) as port:
        before = len(asyncio.all_tasks())
        async with Peer.to(port, OPENING if opening else b"") as peer:
            for part in noise:
                peer.send(part)
                await asyncio.sleep(0)
            peer.send_eof()
            await peer.until_closed()
        async with Peer.to(port) as other:
            assert await other.is_served(1)
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.001)
    assert not faults


async def test_a_lost_connection_ends_its_calls() -> None:
    hanging = Hanging()
    async with serving({"/t/hangs": hanging}) as port:
        async with Peer.to(port) as peer:
            peer.send(*(opened(number, "/t/hangs") for number in range(1, 21, 2)))
            await peer.until_answered()
            peer.send(opened(21, "/t/hangs") + data(21, b"abc")[:7])
        async with asyncio.timeout(5):
            while hanging.cancelled < 11:
                hanging.changed.clear()
                await hanging.changed.wait()
        assert hanging.began == 11


async def test_a_broken_connection_ends_its_calls_though_its_client_does_not_read() -> None:
    hanging = Hanging()
    async with serving({"/t/hangs": hanging, "/t/sized": sized}) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 2**30)), window(0, 2**30))
        peer.send(opened(1, "/t/hangs"), asked(3, b"30000000", "/t/sized"))
        async with asyncio.timeout(5):
            while not hanging.began:
                await asyncio.sleep(0)
        peer.send(frames.frame(frames.PING, 0, 1, bytes(8)))
        async with asyncio.timeout(5):
            await hanging.changed.wait()


async def test_what_a_method_does_not_do_is_told() -> None:
    async def gives_up(call: Call) -> None:
        raise asyncio.CancelledError

    async def fails(call: Call) -> None:
        raise RuntimeError("a secret")

    async def says_much(call: Call) -> None:
        raise CallEnded(grpc.StatusCode.NOT_FOUND, "é" * 20_000_000)

    methods = {"/t/gives_up": gives_up, "/t/fails": fails, "/t/much": says_much} | _METHODS
    async with serving(methods) as port, Peer.to(port) as peer:
        peer.send(asked(1, path="/t/gives_up"), asked(3, path="/t/fails"), asked(5, path="/t/much"))
        await peer.until_over(1, 3, 5)
        assert [peer.status(number) for number in (1, 3, 5)] == ["1", "13", "5"]
        assert "secret" not in peer.reason(3)
        assert peer.reason(5).startswith("%C3%A9%C3%A9") and len(peer.reason(5)) < 8_000
        assert await peer.is_served(7)


async def test_no_more_calls_are_begun_than_there_is_room_for() -> None:
    hanging = Hanging()
    most = 2 * (1_024 + 256)
    async with serving({"/t/hangs": hanging}) as port, Peer.to(port) as peer:
        peer.send(*(opened(number, "/t/hangs") for number in range(1, 2 * most + 3, 2)))
        await peer.until_answered()
        assert hanging.began == most and peer.resets == {2 * most + 1: frames.REFUSED}
        peer.send(reset(1))
        await peer.until_answered()
        peer.send(opened(2 * most + 3, "/t/hangs"))
        await peer.until_answered()
        assert hanging.began == most + 1


async def test_one_who_waits_for_a_window_of_its_own_does_not_hold_up_the_others() -> None:
    async with serving(_METHODS) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 10_000)), asked(1, b"30000", "/t/sized"))
        await peer.until_answered()
        assert len(peer.bodies[1]) == 10_000
        assert await peer.is_served(3)
        peer.send(settings((frames.INITIAL_WINDOW, 0)), window(1, 5_000))
        await peer.until_answered()
        assert len(peer.bodies[1]) == 10_000, "the window is 5,000 bytes below nothing"
        peer.send(settings((frames.INITIAL_WINDOW, 100), (frames.INITIAL_WINDOW, 7_000)))
        await peer.until_answered()
        assert len(peer.bodies[1]) == 12_000
        peer.send(window(1, 30_000))
        await peer.until_over(1)
        assert peer.bodies[1] == message(bytes(30_000)) and peer.status(1) == "0"


async def test_large_answers_take_turns() -> None:
    async with serving(_METHODS) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 2**30)))
        peer.send(*(asked(number, b"1000000", "/t/sized") for number in (1, 3, 5)))
        await peer.until_answered()
        peer.send(window(0, 3 * (256 << 10)))
        await peer.until_answered()
        assert min(len(peer.bodies[number]) for number in (1, 3, 5)) > 150_000
        peer.send(asked(7), window(0, 2**30))
        await peer.until_over(1, 3, 5, 7)
        assert [len(peer.bodies[number]) for number in (1, 3, 5)] == [1_000_005] * 3


async def test_who_takes_frames_of_any_size_is_not_taken_for_one_who_does_not_read() -> None:
    async with serving(_METHODS) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 2**30), (frames.MAX_FRAME, 2**24 - 1)), window(0, 2**30))
        peer.send(asked(1, b"16000000", "/t/sized"), asked(3, b"16000000", "/t/sized"))
        await asyncio.sleep(0.05)
        await peer.until_answered()
        await peer.until_over(1, 3)
        assert [len(peer.bodies[number]) for number in (1, 3)] == [16_000_005] * 2


async def test_an_answer_that_is_not_read_is_given_up_and_one_that_waits_for_others_is_not() -> None:
    async with serving(_METHODS, stall_s=0.2) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 2**30)), asked(1, b"100000", "/t/sized"))
        await peer.until_over(1)
        assert peer.resets == {1: frames.CANCEL}
        peer.send(*(asked(number, b"1000000", "/t/sized") for number in (3, 5)))
        for _ in range(8):
            peer.send(window(0, 10_000))
            await peer.until_answered()
            await asyncio.sleep(0.05)
        assert peer.resets == {1: frames.CANCEL}
        peer.send(window(0, 2**30))
        await peer.until_over(3, 5)
        assert peer.status(3) == peer.status(5) == "0"


async def test_a_client_may_keep_a_table_and_never_say_that_it_has_none() -> None:
    first = b"".join(b"\x40" + pair(name, value)[1:] for name, value in ((":path", "/t/echo"), ("x", "y")))
    block = b"\x83\x86" + first + pair("content-type", "application/grpc")
    again = b"\x83\x86\xbf\xbe" + pair("content-type", "application/grpc")
    async with serving(_METHODS) as port, Peer.to(port) as peer:
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
    async with serving(_METHODS) as port, Peer.to(port) as peer:
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
    async with serving(_METHODS) as port, Peer.to(port) as peer:
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
    async with serving(_METHODS) as port, Peer.to(port) as peer:
        peer.send(opened(1, flags=0))
        part = _continued(1, bytes(16_384))
        for _ in range(1_024):
            peer.send(part)
            await peer.drain()
        await peer.until_closed()
        assert {each[1] for each in peer.goaways} <= {frames.CALM}


class _Unbounded:
    """A connection that says yes to all."""

    def credit(self, size: int) -> None: ...

    def grant(self, call: Call, size: int) -> None: ...

    async def send(self, call: Call, message: bytes) -> None: ...


async def test_who_still_reads_a_call_that_is_over_finds_nothing() -> None:
    call = Call(_Unbounded(), 1, heads.Head("/t/echo", {}), 10_000_000, 0)
    reading = asyncio.create_task(call.read())
    await asyncio.sleep(0)
    call.feed(message(b"x" * 100)[:50], 50, False)
    call.drop()
    assert await reading is None


async def test_a_message_in_tiny_parts_takes_little_more_than_its_size() -> None:
    call = Call(_Unbounded(), 1, heads.Head("/t/echo", {}), 10_000_000, 0)
    reading = asyncio.create_task(call.read())
    body = bytes(20_000)
    whole = message(body)
    tracemalloc.start()
    for at in range(0, len(whole) - 2, 2):
        call.feed(whole[at : at + 2], 2, False)
        if at % 10_000 == 0:
            await asyncio.sleep(0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 5 * len(body)
    call.feed(whole[len(whole) // 2 * 2 - (2 if len(whole) % 2 == 0 else 0) :], 2, True)
    assert await reading == body


async def test_who_watches_the_health_and_does_not_read_holds_up_nobody() -> None:
    health = Health()
    ask = message(b"\x0a" + bytes([len(SERVICE)]) + SERVICE.encode())
    path = "/grpc.health.v1.Health/Watch"
    async with serving(health.methods) as port, Peer.to(port) as peer, Peer.to(port) as other:
        peer.send(settings((frames.INITIAL_WINDOW, 0)))
        for each in (peer, other):
            each.send(opened(1, path), data(1, ask, END), opened(3, path), data(3, ask, END))
            await each.until_answered()
        other.send(reset(1))
        for ready, last in ((True, b"\x08\x01"), (False, b"\x08\x02")):
            health.tell(ready)
            await other.until_answered()
            assert other.bodies[3].endswith(message(last))
        peer.send(window(3, 100))
        await peer.until_answered()
        assert peer.bodies[3].startswith(message(b"\x08\x02"))
        other.send(opened(5, "/grpc.health.v1.Health/Check"), data(5, message(b"\x0a\x01x"), END))
        await other.until_over(5)
        assert other.status(5) == "5"
