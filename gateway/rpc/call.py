"""One gRPC call, as its handler sees it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

import grpc

from gateway.compression import Inflater
from gateway.errors import InvalidArgument, TooLarge
from gateway.http2 import frames
from gateway.http2.sending import Outgoing
from gateway.rpc.heads import Head

Metadata = tuple[tuple[str, str], ...]

# Most photographs come in one go.
WINDOW = 256 << 10
# Parts that are smaller than this are kept in one piece: each has a cost of its own.
_SMALL_BYTES = 1_024
_IDENTITY = "identity"


class CallEnded(Exception):
    """The call ends with another status than OK."""

    def __init__(self, code: grpc.StatusCode, details: str = "", metadata: Metadata = ()) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.metadata = metadata


class Wire(Protocol):
    """What a call needs of its connection."""

    def credit(self, size: int) -> None:
        """So many bytes were taken: the client may send as many more on the connection."""

    def grant(self, call: "Call", size: int) -> None:
        """The client may send so many bytes more of this call."""

    async def send(self, call: "Call", message: bytes) -> None:
        """Send a message, when the client takes it."""


class Call:
    """What was asked, and the way to answer.

    Its body is taken only while the handler waits for a message: whoever is refused before that sent a window's worth at most.

    Attributes:
        head: What stood before the body.
        trailing: Metadata that ends it.
        begun: The head of the answer was sent.
        window: Bytes that the client may send now.
        send_window: Bytes that the client takes now.
    """

    __slots__ = (
        "_ended", "_have", "_max_message_bytes", "_more", "_parts", "_reading", "_start", "_unread", "_wire",
        "begun", "head", "number", "outgoing", "send_window", "sent", "task", "trailing", "window",
    )  # fmt: skip

    def __init__(self, wire: Wire, number: int, head: Head, max_message_bytes: int, window: int) -> None:
        self._wire = wire
        self._max_message_bytes = max_message_bytes
        self._parts: list[bytes] = []
        self._start = 0  # Of the next message, in the first part.
        self._have = 0
        self._unread = 0
        self._reading = False
        self._ended = False
        self._more: asyncio.Future[None] | None = None
        self.number = number
        self.head = head
        self.trailing: Metadata = ()
        self.begun = False
        self.window = WINDOW
        self.send_window = window
        self.outgoing: Outgoing | None = None
        self.sent: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None

    # For its handler.

    async def read(self) -> bytes | None:
        """The next message; None where there is none, or not the whole of it, before the client's end.

        Raises:
            GatewayError: It is too large, or compressed in a way that is not understood.
        """
        self._reading = True
        self._take_unread()
        try:
            while self._have < frames.MESSAGE.size:
                if self._ended:
                    return None
                await self._wait()
            compressed, size = self._prefix()
            total = frames.MESSAGE.size + size
            while self._have < total:
                if self._ended:
                    return None
                # What is padding is granted again, when it came.
                if (missing := total - self._have - self.window) > 0:
                    self._grant(missing)
                await self._wait()
        finally:
            self._reading = False
        message = self._taken(total)
        if not self._ended and (taken := WINDOW - self.window - self._have) >= WINDOW // 2:
            self._grant(taken)
        return await self._inflated(message) if compressed else message

    async def write(self, message: bytes) -> None:
        """Send one of several messages; returns when the client has room for it."""
        await self._wire.send(self, message)

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Metadata for the end of the call."""
        self.trailing = metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", metadata: Metadata = ()) -> NoReturn:
        """End the call.

        Raises:
            CallEnded: Always.
        """
        raise CallEnded(code, details, metadata)

    # For its connection.

    @property
    def ended(self) -> bool:
        """The client has sent all that it wants to."""
        return self._ended

    def feed(self, part: bytes, size: int, end: bool) -> None:
        """A part of the body came.

        Args:
            size: What it counted in the window, padding included.
        """
        self.window -= size
        if part:
            self._have += len(part)
            if len(part) < _SMALL_BYTES and self._parts and len(self._parts[-1]) < _SMALL_BYTES:
                self._parts[-1] += part
            else:
                self._parts.append(part)
        self._ended |= end
        self._unread += size
        if self._reading:
            self._take_unread()
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def drop(self) -> None:
        """Nobody reads the rest."""
        self._take_unread()
        self._parts.clear()
        self._have = self._start = 0
        self._ended = True

    def _take_unread(self) -> None:
        if self._unread:
            self._wire.credit(self._unread)
            self._unread = 0

    def _grant(self, size: int) -> None:
        self.window += size
        self._wire.grant(self, size)

    async def _wait(self) -> None:
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    def _prefix(self) -> tuple[bool, int]:
        while len(self._parts[0]) - self._start < frames.MESSAGE.size:
            self._parts[:2] = [self._parts[0][self._start :] + self._parts[1]]
            self._start = 0
        flag, size = frames.MESSAGE.unpack_from(self._parts[0], self._start)
        if size > self._max_message_bytes:
            raise TooLarge(f"the message has {size} bytes, limit {self._max_message_bytes}")
        if flag > 1:
            raise InvalidArgument(f"the flag of the message is {flag}, neither 0 nor 1")
        return bool(flag), size

    def _taken(self, total: int) -> bytes:
        """The message of so many bytes, prefix included, without its prefix."""
        parts, first, start = self._parts, self._parts[0], self._start
        self._have -= total
        if len(first) >= (end := start + total):
            self._start = end
            if len(first) == end:
                del parts[0]
                self._start = 0
            return first[start + frames.MESSAGE.size : end]
        pieces: list[bytes | memoryview] = [memoryview(first)[start + frames.MESSAGE.size :]]
        left, whole = total - len(first) + start, 1
        while left and len(parts[whole]) <= left:
            pieces.append(parts[whole])
            left -= len(parts[whole])
            whole += 1
        if left:
            pieces.append(memoryview(parts[whole])[:left])
        del parts[:whole]
        self._start = left
        return b"".join(pieces)

    async def _inflated(self, message: bytes) -> bytes:
        encoding = self.head.fields.get("grpc-encoding", _IDENTITY)
        if encoding == _IDENTITY:
            raise InvalidArgument("the message is compressed, but no grpc-encoding says how")
        inflater = Inflater(encoding, self._max_message_bytes, "grpc-encoding")
        inflated = await asyncio.to_thread(inflater.feed, message)
        inflater.end()
        return inflated


Method = Callable[[Call], Awaitable[bytes | None]]
