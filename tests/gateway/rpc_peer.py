"""A gRPC server of small methods, and a client that sends it what no client library sends."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self

import hpack

from gateway.http2 import frames
from gateway.http2.fields import pair
from gateway.rpc.call import Call, Method
from gateway.rpc.server import RpcServer
from gateway.settings import LimitSettings

OPENING = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, b"")
END = frames.END_STREAM
WHOLE = frames.END_HEADERS
# Of pings and their answers, in which a method that waits for nothing ends.
_ROUNDS = 3


def listener(port: int = 0) -> socket.socket:
    """A port that others may listen on, too."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


@asynccontextmanager
async def serving(
    methods: Mapping[str, Method], tls: ssl.SSLContext | None = None, stall_s: float = 20, max_head_bytes: int = 8_192
) -> AsyncIterator[int]:
    """The port of a server; with a message limit of 30 MB."""
    limits = LimitSettings(max_body_bytes=30_000_000, max_head_bytes=max_head_bytes, stall_s=stall_s)
    server = RpcServer(methods, limits)
    taken = listener()
    await server.start(taken, tls)
    try:
        yield taken.getsockname()[1]
    finally:
        await server.stop(0)


def message(body: bytes) -> bytes:
    return frames.MESSAGE.pack(0, len(body)) + body


def head(path: str = "/t/echo", *more: tuple[str, str]) -> bytes:
    """A block of a call, without any table."""
    fields = ((":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc"), *more)
    return b"".join(pair(*each) for each in fields)


def opened(number: int, path: str = "/t/echo", flags: int = WHOLE) -> bytes:
    return frames.frame(frames.HEADERS, flags, number, head(path))


# A call that ends at once, and says that there is no table: from then on a block is read once.
WITHOUT_TABLE = frames.frame(frames.HEADERS, WHOLE | END, 1, b"\x20" + head("/t/none"))


def data(number: int, payload: bytes, flags: int = 0) -> bytes:
    """A body in frames, of which the last has the flags."""
    parts = [payload[at : at + frames.DEFAULT_FRAME] for at in range(0, len(payload), frames.DEFAULT_FRAME)] or [b""]
    return b"".join(
        frames.frame(frames.DATA, flags if at == len(parts) - 1 else 0, number, part) for at, part in enumerate(parts)
    )


def asked(number: int, body: bytes = b"hello", path: str = "/t/echo") -> bytes:
    """A whole call."""
    return opened(number, path) + data(number, message(body), END)


def window(number: int, more: int) -> bytes:
    return frames.frame(frames.WINDOW_UPDATE, 0, number, frames.NUMBER.pack(more))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frames.frame(frames.SETTINGS, 0, 0, b"".join(frames.SETTING.pack(*each) for each in pairs))


def reset(number: int, code: int = frames.CANCEL) -> bytes:
    return frames.frame(frames.RST_STREAM, 0, number, frames.NUMBER.pack(code))


class Peer:
    """What came so far.

    Attributes:
        heads: Of each call, in order.
        bodies: Of each call.
        resets: Codes by call.
        ended: Calls whose answer ended.
        goaways: Last call, code and reason.
        room: Bytes that may be sent on the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = hpack.Decoder()
        self.heads: dict[int, list[dict[str, str]]] = {}
        self.bodies: dict[int, bytes] = {}
        self.resets: dict[int, int] = {}
        self.ended: set[int] = set()
        self.goaways: list[tuple[int, int, str]] = []
        self.pongs: list[bytes] = []
        self.room = frames.DEFAULT_WINDOW
        self.closed = False

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int, opening: bytes = OPENING) -> AsyncIterator[Self]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            peer = cls(reader, writer)
            peer.send(opening)
            yield peer
        finally:
            writer.close()

    def send(self, *parts: bytes) -> None:
        self._writer.write(b"".join(parts))

    def send_eof(self) -> None:
        with contextlib.suppress(OSError):  # The other side may be gone.
            self._writer.write_eof()

    async def drain(self) -> None:
        await self._writer.drain()

    async def read(self) -> None:
        """One frame."""
        try:
            high, low, kind, flags, number = frames.FRAME.unpack(await self._reader.readexactly(frames.FRAME.size))
            payload = await self._reader.readexactly(high << 16 | low)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
            return
        if kind == frames.HEADERS:
            fields = self._decoder.decode(payload)
            self.heads.setdefault(number, []).append({str(name): str(value) for name, value in fields})
        elif kind == frames.DATA:
            self.bodies[number] = self.bodies.get(number, b"") + payload
        elif kind == frames.RST_STREAM:
            (self.resets[number],) = frames.NUMBER.unpack(payload)
        elif kind == frames.GOAWAY:
            self.goaways.append((*struct.unpack(">II", payload[:8]), payload[8:].decode()))
        elif kind == frames.PING:
            (
                self.pongs.append(payload)
                if flags & frames.ACK
                else self.send(frames.frame(frames.PING, frames.ACK, 0, payload))
            )
        elif kind == frames.WINDOW_UPDATE and number == 0:
            self.room += frames.NUMBER.unpack(payload)[0]
        if kind in (frames.HEADERS, frames.DATA) and flags & frames.END_STREAM:
            self.ended.add(number)

    async def until_over(self, *numbers: int) -> None:
        """Until these calls ended, or the connection did."""
        async with asyncio.timeout(10):
            while not self.closed and any(each not in self.ended and each not in self.resets for each in numbers):
                await self.read()

    async def until_closed(self) -> None:
        async with asyncio.timeout(10):
            while not self.closed:
                await self.read()

    async def until_answered(self) -> None:
        """Until all that was sent before has come, and what the server said to it is here; or the connection ended."""
        for _ in range(_ROUNDS):
            before = len(self.pongs)
            self.send(frames.frame(frames.PING, 0, 0, b"answered"))
            async with asyncio.timeout(10):
                while not self.closed and len(self.pongs) == before:
                    await self.read()

    def status(self, number: int) -> str:
        """The gRPC status of a call that ended."""
        return self.heads[number][-1]["grpc-status"]

    def reason(self, number: int) -> str:
        return self.heads[number][-1].get("grpc-message", "")

    async def is_served(self, number: int) -> bool:
        """Whether a call on the connection is answered."""
        self.send(asked(number, b"%d" % number))
        await self.until_over(number)
        return self.bodies.get(number) == message(b"%d" % number)


async def echo(call: Call) -> bytes | None:
    return await call.read()


async def stream(call: Call) -> None:
    while (body := await call.read()) is not None:
        await call.write(body)


async def sized(call: Call) -> bytes:
    """As many bytes as were asked for."""
    body = await call.read()
    assert body is not None
    return bytes(int(body))


METHODS: dict[str, Method] = {"/t/echo": echo, "/t/stream": stream, "/t/sized": sized}


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
