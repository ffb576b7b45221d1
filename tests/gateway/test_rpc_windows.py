"""How much may be under way on a gRPC connection, either way."""

import asyncio

import grpc
import pytest

from gateway.http2 import frames
from gateway.http2.fields import pair
from gateway.rpc.call import WINDOW, Call, CallEnded
from tests.gateway.rpc_peer import (
    END,
    METHODS,
    WHOLE,
    WITHOUT_TABLE,
    Hanging,
    Peer,
    asked,
    data,
    head,
    message,
    opened,
    reset,
    serving,
    settings,
    window,
)

_CONNECTION_WINDOW = 4 << 20


async def test_who_reads_nothing_is_dropped() -> None:
    async with serving(METHODS) as port, Peer.to(port) as peer:
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

    methods = METHODS | {
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
    async with serving({"/t/waits": waits} | METHODS) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 2**30)), window(0, 2**30))
        peer.send(opened(1, "/t/waits"), data(1, message(body)[:WINDOW]))
        assert await peer.is_served(3)
        reads.set()
        await peer.until_answered()
        peer.send(data(1, message(body)[WINDOW:], END))
        await peer.until_over(1)
        assert peer.bodies[1] == message(body)


async def test_one_who_waits_for_a_window_of_its_own_does_not_hold_up_the_others() -> None:
    async with serving(METHODS) as port, Peer.to(port) as peer:
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
    async with serving(METHODS) as port, Peer.to(port) as peer:
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
    async with serving(METHODS) as port, Peer.to(port) as peer:
        peer.send(settings((frames.INITIAL_WINDOW, 2**30), (frames.MAX_FRAME, 2**24 - 1)), window(0, 2**30))
        peer.send(asked(1, b"16000000", "/t/sized"), asked(3, b"16000000", "/t/sized"))
        await asyncio.sleep(0.05)
        await peer.until_answered()
        await peer.until_over(1, 3)
        assert [len(peer.bodies[number]) for number in (1, 3)] == [16_000_005] * 2


async def test_an_answer_that_is_not_read_is_given_up_and_one_that_waits_for_others_is_not() -> None:
    async with serving(METHODS, stall_s=0.2) as port, Peer.to(port) as peer:
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
