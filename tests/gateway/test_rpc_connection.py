"""A connection of our gRPC server from its first byte to its last."""

import asyncio
import tracemalloc

import grpc
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.http2 import frames
from gateway.rpc import heads
from gateway.rpc.call import Call, CallEnded
from gateway.rpc.health import Health
from gateway.upstream.link import SERVICE
from tests.gateway.rpc_peer import (
    END,
    METHODS,
    OPENING,
    Hanging,
    Peer,
    asked,
    data,
    message,
    opened,
    reset,
    serving,
    settings,
    sized,
    window,
)


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
    async with serving(METHODS) as port, Peer.to(port) as peer:
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
    async with serving(METHODS) as port:
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

    methods = {"/t/gives_up": gives_up, "/t/fails": fails, "/t/much": says_much} | METHODS
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
