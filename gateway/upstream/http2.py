"""One HTTP/2 connection for unary gRPC calls, in the event loop itself.

grpc.aio's client does its work in threads of its own and hands every call over twice, which costs a small call more than all
of the gateway's stages together: docs/decisions/0009-upstream-http2.md. This is the part of RFC 9113 that a client of a trusted
server over a plain connection needs: no server push, no priorities, no header tables.
"""

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import cast

import grpc

from gateway.upstream import headers

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = Struct(">BHBBI")
_SETTING = Struct(">HI")
_NUMBER = Struct(">I")
_MESSAGE = Struct(">BI")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    *(0, 1, 3, 4, 5, 6, 7, 8, 9),
)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME = 1, 2, 3, 4, 5
_CANCEL = 8
_REFUSED = 7
_DEFAULT_WINDOW = 65_535
_DEFAULT_FRAME = 16_384
_LARGEST_WINDOW = 2**31 - 1
_LAST_STREAM = 2**31 - 1
_ID_BITS = 0x7FFF_FFFF
# Of what came, so much is let pass before the server is told that it may send more.
_CREDIT = 1 << 20
_MAX_HEADER_BYTES = 64 << 10


class CallFailed(Exception):
    """A call ended with a status other than OK.

    Attributes:
        code: Triton's, or the one that gRPC's clients give to what happened to the connection.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class _Call:
    __slots__ = ("answer", "headers", "left", "parts", "received", "window")

    def __init__(self, answer: "asyncio.Future[bytes]", body: memoryview | None, window: int) -> None:
        self.answer = answer
        self.left = body
        self.window = window
        self.parts: list[bytes] = []
        self.received = 0
        self.headers = b""


class Http2Connection(asyncio.Protocol):
    """Unary calls side by side on one connection.

    Attributes:
        open: Takes calls.
        calls: How many are under way.
    """

    def __init__(self, max_message_bytes: int, keepalive_s: float, ping_timeout_s: float) -> None:
        self._max_message_bytes = max_message_bytes
        self._keepalive_s = keepalive_s
        self._ping_timeout_s = ping_timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, _Call] = {}
        # Calls whose bodies wait for the server's or the socket's consent, in order.
        self._waiting: dict[int, _Call] = {}
        self._next_id = 1
        self._rest = b""
        self._window = _DEFAULT_WINDOW
        self._initial_window = _DEFAULT_WINDOW
        self._max_frame = _DEFAULT_FRAME
        self._max_streams = _LARGEST_WINDOW
        self._credit = 0
        self._block: tuple[int, int, bytes] | None = None
        self._writable = True
        self._heard_at = 0.0
        self._keepalive: asyncio.TimerHandle | None = None
        self.open = False
        self.closed = self._loop.create_future()

    @property
    def calls(self) -> int:
        """How many are under way."""
        return len(self._calls)

    async def call(self, block: bytes, request: bytes, timeout_s: float) -> bytes:
        """Make one call; cancelled, it is cancelled at the server.

        Args:
            block: Its headers.

        Raises:
            CallFailed: It has no answer.
        """
        if len(self._calls) >= self._max_streams:
            raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._max_streams} calls are on the connection")
        answer: asyncio.Future[bytes] = self._loop.create_future()
        number = self._begin(block, request, answer)
        timer = self._loop.call_later(timeout_s, self._expire, number)
        try:
            return await answer
        except asyncio.CancelledError:
            self._give_up(number)
            raise
        finally:
            timer.cancel()

    def abandon(self) -> None:
        """Give up every call."""
        for number, call in tuple(self._calls.items()):
            self._give_up(number)
            _fail(call, grpc.StatusCode.UNAVAILABLE, "given up")

    def close(self) -> None:
        """Close it; calls under way fail."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = ((_HEADER_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_INITIAL_WINDOW, _LARGEST_WINDOW))
        payload = b"".join(_SETTING.pack(*setting) for setting in settings)
        update = _frame(_WINDOW_UPDATE, 0, 0, _NUMBER.pack(_LARGEST_WINDOW - _DEFAULT_WINDOW))
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, payload) + update)
        self._heard_at = self._loop.time()
        self._keepalive = self._loop.call_later(self._keepalive_s, self._keep_alive)
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._keepalive is not None:
            self._keepalive.cancel()
        calls, self._calls, self._waiting = self._calls, {}, {}
        for call in calls.values():
            _fail(call, grpc.StatusCode.UNAVAILABLE, "the connection was lost")
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._send_waiting()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._rest:
            data = self._rest + data
        position, size = 0, len(data)
        try:
            while size - position >= _FRAME.size:
                high, low, kind, flags, number = _FRAME.unpack_from(data, position)
                start = position + _FRAME.size
                end = start + (high << 16 | low)
                if end - start > _DEFAULT_FRAME:
                    raise _ProtocolBroken(f"a frame of {end - start} bytes")
                if end > size:
                    break
                self._received(kind, flags, number & _ID_BITS, data[start:end])
                position = end
        except (_ProtocolBroken, headers.HPACKError, IndexError, ValueError):
            # A connection that is out of step cannot be put right; its calls are asked again elsewhere.
            self.close()
            return
        self._rest = data[position:]

    # Sending.

    def _begin(self, block: bytes, request: bytes, answer: "asyncio.Future[bytes]") -> int:
        assert self._transport is not None
        number = self._next_id
        self._next_id += 2
        if self._next_id > _LAST_STREAM:
            self.open = False
        size = _MESSAGE.size + len(request)
        head = _frame(_HEADERS, _END_HEADERS, number, block)
        prefix = _MESSAGE.pack(0, len(request))
        if size <= min(self._max_frame, self._window, self._initial_window) and self._writable and not self._waiting:
            self._window -= size
            self._calls[number] = _Call(answer, None, self._initial_window - size)
            self._transport.write(
                b"".join((head, _FRAME.pack(size >> 16, size & 0xFFFF, _DATA, _END_STREAM, number), prefix, request))
            )
            return number
        call = _Call(answer, memoryview(prefix + request), self._initial_window)
        self._calls[number] = self._waiting[number] = call
        self._transport.write(head)
        self._send_waiting()
        return number

    def _send_waiting(self) -> None:
        """As much of the bodies as the server and the socket take."""
        for number, call in tuple(self._waiting.items()):
            if not self._writable or self._window <= 0:
                return
            self._send(number, call)

    def _send(self, number: int, call: _Call) -> None:
        assert self._transport is not None and call.left is not None
        frames: list[bytes | memoryview] = []
        while call.left is not None and (size := min(len(call.left), self._max_frame, self._window, call.window)) > 0:
            part, rest = call.left[:size], call.left[size:]
            call.left = rest or None
            self._window -= size
            call.window -= size
            flags = 0 if rest else _END_STREAM
            frames += (_FRAME.pack(size >> 16, size & 0xFFFF, _DATA, flags, number), part)
        if call.left is None:
            del self._waiting[number]
        if frames:
            self._transport.writelines(frames)

    def _give_up(self, number: int) -> None:
        if self._calls.pop(number, None) is None or self._transport is None:
            return
        self._waiting.pop(number, None)
        self._transport.write(_frame(_RST_STREAM, 0, number, _NUMBER.pack(_CANCEL)))

    def _expire(self, number: int) -> None:
        call = self._calls.get(number)
        self._give_up(number)
        if call is not None:
            _fail(call, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _keep_alive(self) -> None:
        """Ask a server that is silent with calls under way whether it is there; without an answer it is not."""
        assert self._transport is not None
        quiet_s = self._loop.time() - self._heard_at
        if not self._calls or quiet_s < self._keepalive_s:
            wait_s = self._keepalive_s if not self._calls else self._keepalive_s - quiet_s
        elif quiet_s < self._keepalive_s + self._ping_timeout_s:
            self._transport.write(_frame(_PING, 0, 0, bytes(8)))
            wait_s = self._keepalive_s + self._ping_timeout_s - quiet_s
        else:
            self.close()
            return
        self._keepalive = self._loop.call_later(max(wait_s, 0.001), self._keep_alive)

    # Receiving.

    def _received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise _ProtocolBroken("a header block is interrupted")
        if kind == _DATA:
            self._on_data(number, flags, payload)
        elif kind == _HEADERS:
            payload = _unpadded(payload, flags)
            self._on_block(number, flags, payload[5:] if flags & _PRIORITY else payload)
        elif (on := _RARE.get(kind)) is not None:
            on(self, flags, number, payload)

    def _on_data(self, number: int, flags: int, payload: bytes) -> None:
        self._credit += len(payload)
        if self._credit >= _CREDIT and self._transport is not None:
            self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, _NUMBER.pack(self._credit)))
            self._credit = 0
        call = self._calls.get(number)
        if call is None:  # Given up.
            return
        payload = _unpadded(payload, flags)
        call.parts.append(payload)
        call.received += len(payload)
        if call.received > self._max_message_bytes + _MESSAGE.size:
            self._give_up(number)
            limit = f"the answer is larger than {self._max_message_bytes} bytes"
            _fail(call, grpc.StatusCode.RESOURCE_EXHAUSTED, limit)
        elif flags & _END_STREAM:
            self._end(number, call, None)

    def _on_block(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) > _MAX_HEADER_BYTES:
            raise _ProtocolBroken("a header block is too large")
        if not flags & _END_HEADERS:
            self._block = number, flags, payload
            return
        call = self._calls.get(number)
        said = headers.status(payload)
        if call is not None and (said is not None or flags & _END_STREAM):
            self._end(number, call, said)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise _ProtocolBroken("a continuation of nothing")
        (_, first, block), self._block = self._block, None
        self._on_block(number, first | flags & _END_HEADERS, block + payload)

    def _end(self, number: int, call: _Call, said: tuple[grpc.StatusCode, str] | None) -> None:
        del self._calls[number]
        if self._waiting.pop(number, None) is not None and self._transport is not None:
            # It answered without having read all; the rest is not sent.
            self._transport.write(_frame(_RST_STREAM, 0, number, _NUMBER.pack(_CANCEL)))
        if said is None:
            _fail(call, grpc.StatusCode.UNAVAILABLE, "the answer has no status")
        elif said[0] is not grpc.StatusCode.OK:
            _fail(call, *said)
        elif not call.answer.done():
            body = call.parts[0] if len(call.parts) == 1 else b"".join(call.parts)
            if len(body) < _MESSAGE.size or _MESSAGE.unpack_from(body) != (0, len(body) - _MESSAGE.size):
                _fail(call, grpc.StatusCode.INTERNAL, "the answer is not one uncompressed message")
            else:
                call.answer.set_result(body[_MESSAGE.size :])

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        call = self._calls.pop(number, None)
        self._waiting.pop(number, None)
        if call is None:
            return
        (error,) = _NUMBER.unpack(payload)
        if error == _REFUSED:
            _fail(call, grpc.StatusCode.UNAVAILABLE, "the call was refused")
        else:
            code = grpc.StatusCode.CANCELLED if error == _CANCEL else grpc.StatusCode.INTERNAL
            _fail(call, code, f"Received RST_STREAM with error code {error}")

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if flags & _ACK:
            return
        assert self._transport is not None
        for name, value in _SETTING.iter_unpack(payload):
            if name == _INITIAL_WINDOW:
                for call in self._calls.values():
                    call.window += value - self._initial_window
                self._initial_window = value
            elif name == _MAX_FRAME:
                self._max_frame = value
            elif name == _MAX_STREAMS:
                self._max_streams = value
        self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        self._send_waiting()

    def _on_window(self, flags: int, number: int, payload: bytes) -> None:
        (more,) = _NUMBER.unpack(payload)
        if number == 0:
            self._window += more & _ID_BITS
        elif (call := self._calls.get(number)) is not None:
            call.window += more & _ID_BITS
        if self._waiting:
            self._send_waiting()

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if not flags & _ACK and self._transport is not None:
            self._transport.write(_frame(_PING, _ACK, 0, payload))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        """Calls that it began are finished; the others were not looked at."""
        self.open = False
        last = _NUMBER.unpack_from(payload)[0] & _ID_BITS
        for later in [each for each in self._calls if each > last]:
            self._waiting.pop(later, None)
            _fail(self._calls.pop(later), grpc.StatusCode.UNAVAILABLE, "the connection is going away")

    def _on_push(self, flags: int, number: int, payload: bytes) -> None:
        raise _ProtocolBroken("a push")


_RARE: dict[int, Callable[[Http2Connection, int, int, bytes], None]] = {
    _RST_STREAM: Http2Connection._on_reset,
    _SETTINGS: Http2Connection._on_settings,
    _PUSH_PROMISE: Http2Connection._on_push,
    _PING: Http2Connection._on_ping,
    _GOAWAY: Http2Connection._on_goaway,
    _WINDOW_UPDATE: Http2Connection._on_window,
    _CONTINUATION: Http2Connection._on_continuation,
}


class _ProtocolBroken(Exception):
    """The server sent what no server sends."""


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, number) + payload


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload


def _fail(call: _Call, code: grpc.StatusCode, details: str) -> None:
    if not call.answer.done():
        call.answer.set_exception(CallFailed(code, details))
