"""One HTTP/2 connection for unary gRPC calls, in the event loop itself.

grpc.aio's client does its work in threads of its own and hands every call over twice, which costs a small call more than all
of the gateway's stages together: docs/decisions/0009-upstream-http2.md. This is the part of RFC 9113 that a client of a trusted
server over a plain connection needs: no server push, no priorities, no header tables.
"""

import asyncio
from collections.abc import Callable
from struct import error as StructError
from typing import cast

import grpc

from gateway.http2 import frames
from gateway.http2.sending import Outgoing
from gateway.upstream import headers
from gateway.upstream.pending import CallFailed, CallLost, PendingCall

# Of what came, so much is let pass before the server is told that it may send more.
_CREDIT = 1 << 20
_MAX_HEADER_BYTES = 64 << 10
# For the answer to a call that nobody waits for: most of them come within it, and those that would be late are cancelled.
_PATIENCE_S = 0.03


class Http2Connection(asyncio.Protocol):
    """Unary calls side by side on one connection.

    Attributes:
        open: Takes calls.
    """

    def __init__(self, max_message_bytes: int, keepalive_s: float, ping_timeout_s: float) -> None:
        self._max_message_bytes = max_message_bytes
        self._keepalive_s = keepalive_s
        self._ping_timeout_s = ping_timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, PendingCall] = {}
        # Calls whose bodies wait for the server's or the socket's consent, in order.
        self._waiting: dict[int, PendingCall] = {}
        self._next_id = 1
        self._rest = b""
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._max_frame = frames.DEFAULT_FRAME
        self._max_streams = frames.LARGEST_WINDOW
        self._credit = 0
        self._block: tuple[int, int, bytes] | None = None
        self._writable = True
        self._unsent: list[bytes | memoryview] = []
        self._heard_at = 0.0
        self._keepalive: asyncio.TimerHandle | None = None
        self.open = False
        self.closed = self._loop.create_future()

    async def call(self, block: bytes, request: bytes, timeout_s: float) -> bytes:
        """Make one call; cancelled, it is cancelled at the server, where that does not answer within a moment.

        Args:
            block: Its headers.

        Raises:
            CallFailed: It was answered with another status than OK.
            CallLost: It was not answered.
        """
        if len(self._calls) >= self._max_streams:
            raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._max_streams} calls are on the connection")
        answer: asyncio.Future[bytes] = self._loop.create_future()
        number = self._begin(block, request, answer)
        timer = self._loop.call_later(timeout_s, self._expire, number)
        try:
            return await answer
        except asyncio.CancelledError:
            self._leave(number)
            raise
        finally:
            timer.cancel()
            # Its exception holds this frame, and with it the request, for as long as this frame holds it.
            del answer

    def abandon(self) -> None:
        """Give up every call."""
        for number, call in tuple(self._calls.items()):
            self._give_up(number)
            call.fail(CallLost("it was given up"))

    def close(self) -> None:
        """Close it; calls under way fail."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = (
            (frames.HEADER_TABLE_SIZE, 0),
            (frames.ENABLE_PUSH, 0),
            (frames.INITIAL_WINDOW, frames.LARGEST_WINDOW),
        )
        payload = b"".join(frames.SETTING.pack(*setting) for setting in settings)
        update = frames.frame(
            frames.WINDOW_UPDATE, 0, 0, frames.NUMBER.pack(frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)
        )
        self._transport.write(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, payload) + update)
        self._heard_at = self._loop.time()
        self._keepalive = self._loop.call_later(self._keepalive_s, self._keep_alive)
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._keepalive is not None:
            self._keepalive.cancel()
        calls, self._calls, self._waiting = self._calls, {}, {}
        for call in calls.values():
            call.fail(CallLost("the connection was lost"))
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
            while size - position >= frames.FRAME.size:
                high, low, kind, flags, number = frames.FRAME.unpack_from(data, position)
                start = position + frames.FRAME.size
                end = start + (high << 16 | low)
                if end - start > frames.DEFAULT_FRAME:
                    raise frames.ProtocolBroken(f"a frame of {end - start} bytes")
                if end > size:
                    break
                self._received(kind, flags, number & frames.ID_BITS, data[start:end])
                position = end
        except (frames.ProtocolBroken, headers.HPACKError, StructError, IndexError, ValueError):
            # A connection that is out of step cannot be put right; its calls are asked again elsewhere.
            self.close()
            return
        self._rest = data[position:]

    # Sending.

    def _write(self, *parts: bytes | memoryview) -> None:
        """Send, with what else is sent in this round of the event loop: what Triton gets at once it can batch."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent += parts

    def _flush(self) -> None:
        parts, self._unsent = self._unsent, []
        if self._transport is not None and parts:
            self._transport.writelines(parts)

    def _begin(self, block: bytes, request: bytes, answer: "asyncio.Future[bytes]") -> int:
        assert self._transport is not None
        number = self._next_id
        self._next_id += 2
        if self._next_id > frames.LAST_STREAM:
            self.open = False
        size = frames.MESSAGE.size + len(request)
        head = frames.frame(frames.HEADERS, frames.END_HEADERS, number, block)
        prefix = frames.MESSAGE.pack(0, len(request))
        if size <= min(self._max_frame, self._window, self._initial_window) and self._writable and not self._waiting:
            self._window -= size
            self._calls[number] = PendingCall(answer, None, self._initial_window - size)
            data = frames.FRAME.pack(size >> 16, size & 0xFFFF, frames.DATA, frames.END_STREAM, number)
            self._write(head + data + prefix, request)
            return number
        call = PendingCall(answer, Outgoing(request), self._initial_window)
        self._calls[number] = self._waiting[number] = call
        self._write(head)
        self._send_waiting()
        return number

    def _send_waiting(self) -> None:
        """As much of the bodies as the server and the socket take."""
        for number, call in tuple(self._waiting.items()):
            if not self._writable or self._window <= 0:
                return
            self._send(number, call)

    def _send(self, number: int, call: PendingCall) -> None:
        assert call.outgoing is not None
        while call.outgoing:
            before, room = len(call.outgoing), min(self._window, call.window)
            parts = call.outgoing.next(number, room, self._max_frame, frames.END_STREAM)
            if not parts:
                return
            self._write(*parts)
            self._window -= before - len(call.outgoing)
            call.window -= before - len(call.outgoing)
        del self._waiting[number]

    def _leave(self, number: int) -> None:
        """Nobody waits for the answer any more.

        Triton 2.51 ends with a fault where it answers a call just as it learns that it was cancelled: of those of a fast model
        one in some thousands.
        """
        if number in self._waiting:
            self._give_up(number)
        else:
            self._loop.call_later(_PATIENCE_S, self._give_up, number)

    def _give_up(self, number: int) -> None:
        if number in self._calls and self._transport is not None:
            self._write(frames.frame(frames.RST_STREAM, 0, number, frames.NUMBER.pack(frames.CANCEL)))
            self._forget(number)

    def _forget(self, number: int) -> None:
        del self._calls[number]
        self._waiting.pop(number, None)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self.open and not self._calls and self._transport is not None:
            self._flush()
            self._transport.close()

    def _expire(self, number: int) -> None:
        call = self._calls.get(number)
        self._leave(number)
        if call is not None:
            call.fail(CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _keep_alive(self) -> None:
        """Ask a server that is silent with calls under way whether it is there; without an answer it is not."""
        assert self._transport is not None
        quiet_s = self._loop.time() - self._heard_at
        if not self._calls or quiet_s < self._keepalive_s:
            wait_s = self._keepalive_s if not self._calls else self._keepalive_s - quiet_s
        elif quiet_s < self._keepalive_s + self._ping_timeout_s:
            self._write(frames.frame(frames.PING, 0, 0, bytes(8)))
            wait_s = self._keepalive_s + self._ping_timeout_s - quiet_s
        else:
            self.close()
            return
        self._keepalive = self._loop.call_later(max(wait_s, 0.001), self._keep_alive)

    # Receiving.

    def _received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise frames.ProtocolBroken("a header block is interrupted")
        if kind == frames.DATA:
            self._on_data(number, flags, payload)
        elif kind == frames.HEADERS:
            payload = frames.unpadded(payload, flags)
            self._on_block(number, flags, payload[5:] if flags & frames.HAS_PRIORITY else payload)
        elif (on := _RARE.get(kind)) is not None:
            on(self, flags, number, payload)

    def _on_data(self, number: int, flags: int, payload: bytes) -> None:
        self._credit += len(payload)
        if self._credit >= _CREDIT and self._transport is not None:
            self._write(frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.NUMBER.pack(self._credit)))
            self._credit = 0
        call = self._calls.get(number)
        if call is None:  # Given up.
            return
        payload = frames.unpadded(payload, flags)
        call.parts.append(payload)
        call.received += len(payload)
        if call.received > self._max_message_bytes + frames.MESSAGE.size:
            self._give_up(number)
            limit = f"the answer is larger than {self._max_message_bytes} bytes"
            call.fail(CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, limit))
        elif flags & frames.END_STREAM:
            self._end(number, call, None)

    def _on_block(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) > _MAX_HEADER_BYTES:
            raise frames.ProtocolBroken("a header block is too large")
        if not flags & frames.END_HEADERS:
            self._block = number, flags, payload
            return
        call = self._calls.get(number)
        said = headers.status(payload)
        if call is not None and (said is not None or flags & frames.END_STREAM):
            self._end(number, call, said)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise frames.ProtocolBroken("a continuation of nothing")
        (_, first, block), self._block = self._block, None
        self._on_block(number, first | flags & frames.END_HEADERS, block + payload)

    def _end(self, number: int, call: PendingCall, said: tuple[grpc.StatusCode, str] | None) -> None:
        if number in self._waiting:
            # It answered without having read all; the rest is not sent.
            self._give_up(number)
        else:
            self._forget(number)
        if said is None:
            call.fail(CallLost("the answer has no status"))
        elif said[0] is not grpc.StatusCode.OK:
            call.fail(CallFailed(*said))
        else:
            call.complete()

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        (error,) = frames.NUMBER.unpack(payload)
        self._forget(number)
        if error == frames.REFUSED:
            call.fail(CallLost("it was refused"))
        else:
            code = grpc.StatusCode.CANCELLED if error == frames.CANCEL else grpc.StatusCode.INTERNAL
            call.fail(CallFailed(code, f"Received RST_STREAM with error code {error}"))

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        assert self._transport is not None
        for name, value in frames.SETTING.iter_unpack(payload):
            if name == frames.INITIAL_WINDOW:
                for call in self._calls.values():
                    call.window += value - self._initial_window
                self._initial_window = value
            elif name == frames.MAX_FRAME:
                self._max_frame = value
            elif name == frames.MAX_STREAMS:
                self._max_streams = value
        self._write(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._send_waiting()

    def _on_window(self, flags: int, number: int, payload: bytes) -> None:
        (more,) = frames.NUMBER.unpack(payload)
        if number == 0:
            self._window += more & frames.ID_BITS
        elif (call := self._calls.get(number)) is not None:
            call.window += more & frames.ID_BITS
        if self._waiting:
            self._send_waiting()

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if not flags & frames.ACK and self._transport is not None:
            self._write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        """Calls that it began are finished; the others were not looked at."""
        self.open = False
        last = frames.NUMBER.unpack_from(payload)[0] & frames.ID_BITS
        for later in [each for each in self._calls if each > last]:
            self._calls[later].fail(CallLost("the connection goes away"))
            self._forget(later)
        self._close_if_done()

    def _on_push(self, flags: int, number: int, payload: bytes) -> None:
        raise frames.ProtocolBroken("a push")


_RARE: dict[int, Callable[[Http2Connection, int, int, bytes], None]] = {
    frames.RST_STREAM: Http2Connection._on_reset,
    frames.SETTINGS: Http2Connection._on_settings,
    frames.PUSH_PROMISE: Http2Connection._on_push,
    frames.PING: Http2Connection._on_ping,
    frames.GOAWAY: Http2Connection._on_goaway,
    frames.WINDOW_UPDATE: Http2Connection._on_window,
    frames.CONTINUATION: Http2Connection._on_continuation,
}
