"""One HTTP/2 connection of gRPC calls, in the event loop itself, as their server.

grpc.aio's server costs a small call more than all of the gateway's stages together: docs/decisions/0010-doors.md. Header tables
are declined, so that equal calls have equal blocks, which are read once. Everything that a client can make grow is bounded here:
blocks, windows, calls, and frames that only cost work.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import error as StructError
from typing import cast

import grpc
import structlog

from gateway.errors import GatewayError
from gateway.http2 import frames
from gateway.http2.sending import Outgoing
from gateway.rpc import heads
from gateway.rpc.call import WINDOW, Call, CallEnded, Method
from gateway.rpc.heads import Head, HeadReader, Malformed
from gateway.rpc.status import STATUS

# Of bodies that no handler reads yet, over all calls of a connection.
_CONNECTION_WINDOW = 4 << 20
# Of what was taken, so much is let pass before the client is told that it may send more.
_CREDIT = 1 << 20
# More than this that the client does not read, answers apart, which wait for it.
_MAX_UNSENT_BYTES = 4 << 20
# Frames that ask for nothing, such as pings and resets: so many in less than so many seconds are an attack.
_MAX_IDLE_FRAMES = 5_000
_IDLE_FRAMES_S = 5.0
# Between two looks whether the socket takes more.
_BATCH_BYTES = 256 << 10
_BLOCK_TIMES_OVER = 2
_MAX_SKIPPED_BLOCK_BYTES = 16 << 20
# A client that does not answer a ping is told the last call all the same.
_GONE_AWAY_S = 1.0
_EOF_S = 0.25
_KEEPALIVE_S = 60.0
_PING_TIMEOUT_S = 20.0
_GOING = b"tidegate"
_PING_BYTES = 8
_PRIORITY_BYTES = 5
_HTTP_OK = 200
_STATUS_OK = grpc.StatusCode.OK
_OK = heads.trailers(_STATUS_OK, "", ())
_NOT_HTTP2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"this port speaks gRPC, over HTTP/2 with prior knowledge\n"
)
_NO_METHOD = "this server has no such method"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Served:
    """What the connections of a server have in common.

    Attributes:
        methods: By path.
        max_calls: Of one connection, those included that were cancelled and have not ended yet.
        known: Header blocks that were read.
        connections: All that are open.
    """

    methods: dict[str, Method]
    max_message_bytes: int
    max_head_bytes: int
    max_calls: int
    stall_s: float
    known: dict[bytes, Head] = field(default_factory=dict)
    connections: "set[Connection]" = field(default_factory=set)


@dataclass(slots=True)
class _Block:
    """A header block of which more is to come.

    Attributes:
        size: Of what came, all that was kept and what was not.
    """

    number: int
    flags: int
    parts: list[bytes]
    size: int


class Connection(asyncio.Protocol):
    """Calls side by side on one connection."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = HeadReader(served.max_head_bytes, served.known)
        self._calls: dict[int, Call] = {}
        # Calls whose answers wait for the client's or the socket's consent, in order.
        self._waiting: dict[int, Call] = {}
        self._tasks = 0
        self._last = 0
        self._begun = False
        self._opened = False
        self._goes = False
        self._last_said = False
        self._broken = False
        self._rest = b""
        self._block: _Block | None = None
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._max_frame = frames.DEFAULT_FRAME
        self._receive_window = _CONNECTION_WINDOW
        self._credit = 0
        self._idle_frames = 0
        self._idle_since = 0.0
        self._heard_at = 0.0
        self._writable = True
        self._timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    async def go_away(self) -> None:
        """Take no more calls, finish those under way, and close.

        The client is told twice: what it sends before it has read the first word is still served, so that no call is lost.
        """
        if not self._opened or self._transport is None:
            self._close()
            return
        self._goes = True
        self._write(_goaway(frames.LAST_STREAM, frames.NO_ERROR, "") + frames.frame(frames.PING, 0, 0, _GOING))
        self._loop.call_later(_GONE_AWAY_S, self._be_gone)
        await asyncio.shield(self.closed)

    def cancel(self) -> None:
        """End every call, and close."""
        for call in tuple(self._calls.values()):
            self._end(call, CallEnded(grpc.StatusCode.UNAVAILABLE, "the gateway ends"))
            _cancel(call)
        self._close()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = (
            (frames.HEADER_TABLE_SIZE, 0),
            (frames.MAX_STREAMS, self._served.max_calls),
            (frames.INITIAL_WINDOW, WINDOW),
            (frames.MAX_HEADERS, self._served.max_head_bytes),
        )
        payload = b"".join(frames.SETTING.pack(*setting) for setting in settings)
        more = frames.NUMBER.pack(_CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
        self._write(frames.frame(frames.SETTINGS, 0, 0, payload) + frames.frame(frames.WINDOW_UPDATE, 0, 0, more))
        self._heard_at = self._idle_since = self._loop.time()
        self._timer = self._loop.call_later(self._served.stall_s, self._expect_opening)
        self._served.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._served.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        calls, self._calls, self._waiting = self._calls, {}, {}
        for call in calls.values():
            _cancel(call)
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
            if not self._begun:
                if not data.startswith(frames.PREFACE[:size]):
                    self._refuse_protocol(data)
                    return
                if size < len(frames.PREFACE):
                    self._rest = data
                    return
                self._begun, position = True, len(frames.PREFACE)
            while size - position >= frames.FRAME.size:
                high, low, kind, flags, number = frames.FRAME.unpack_from(data, position)
                start = position + frames.FRAME.size
                end = start + (high << 16 | low)
                if end - start > frames.DEFAULT_FRAME:
                    raise frames.ProtocolBroken(f"a frame of {end - start} bytes", frames.FRAME_SIZE_ERROR)
                if end > size:
                    break
                self._received(kind, flags, number & frames.ID_BITS, data[start:end])
                if self._transport is None or self._broken:
                    return
                position = end
        except (StructError, IndexError):
            self._break(frames.ProtocolBroken("a frame of another size than its kind has", frames.FRAME_SIZE_ERROR))
            return
        except frames.ProtocolBroken as error:
            self._break(error)
            return
        self._rest = data[position:]

    # For calls.

    def credit(self, size: int) -> None:
        """So many bytes were taken: the client may send as many more on the connection."""
        self._credit += size
        if self._credit >= _CREDIT:
            self._write(frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.NUMBER.pack(self._credit)))
            self._receive_window += self._credit
            self._credit = 0

    def grant(self, call: Call, size: int) -> None:
        """The client may send so many bytes more of this call."""
        self._write(frames.frame(frames.WINDOW_UPDATE, 0, call.number, frames.NUMBER.pack(size)))

    async def send(self, call: Call, message: bytes) -> None:
        """Send a message, when the client takes it.

        Raises:
            CallEnded: The call is over.
        """
        if self._calls.get(call.number) is not call:
            raise CallEnded(grpc.StatusCode.CANCELLED)
        head = b"" if call.begun else frames.frame(frames.HEADERS, frames.END_HEADERS, call.number, heads.HEAD)
        call.begun = True
        if self._takes(call, message):
            self._write(b"".join((head, *self._data(call, message))))
            return
        if head:
            self._write(head)
        call.outgoing = Outgoing(message)
        call.sent = self._loop.create_future()
        self._waiting[call.number] = call
        self._send_waiting()
        await call.sent

    # Calls.

    async def _serve(self, call: Call, method: Method) -> None:
        try:
            reply = await method(call)
            if reply is not None and not self._takes(call, reply):
                await self._send_within(call, reply)
                reply = None
            self._finish(call, reply, _OK if not call.trailing else heads.trailers(_STATUS_OK, "", call.trailing))
        except CallEnded as ended:
            self._end(call, ended)
        except GatewayError as error:
            self._end(call, CallEnded(STATUS[error.kind], error.message))
        except Exception as error:  # The edge of the transport.
            _log.error("unexpected failure", exc_info=error)
            self._end(call, CallEnded(grpc.StatusCode.INTERNAL, "the gateway failed; its log says why"))

    async def _send_within(self, call: Call, reply: bytes) -> None:
        """Send an answer to a client that reads some of it now and then.

        Raises:
            CallEnded: It does not.
        """
        sending = asyncio.ensure_future(self.send(call, reply))
        try:
            left = -1
            while not sending.done() and left != (left := len(call.outgoing or b"")):
                await asyncio.wait((sending,), timeout=self._served.stall_s)
            if not sending.done():
                self._reset(call, frames.CANCEL)
        finally:
            sending.cancel()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks -= 1

    def _finish(self, call: Call, reply: bytes | None, trailers: bytes) -> None:
        """End a call that is not over, with a last message if there is one, which the client takes."""
        number = call.number
        if self._calls.get(number) is not call:
            return
        parts: list[bytes] = []
        if reply is not None:
            if not call.begun:
                parts.append(frames.frame(frames.HEADERS, frames.END_HEADERS, number, heads.HEAD))
            parts += self._data(call, reply)
        elif not call.begun:
            trailers = heads.ONLY_TRAILERS + trailers
        parts.append(frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, trailers))
        if not call.ended:
            # The client need not send the rest.
            parts.append(_reset(number, frames.NO_ERROR))
        self._write(b"".join(parts))
        self._forget(call)

    def _end(self, call: Call, ended: CallEnded) -> None:
        self._finish(call, None, heads.trailers(ended.code, ended.details, ended.metadata))

    def _reset(self, call: Call, code: int) -> None:
        """End a call without a word more."""
        self._write(_reset(call.number, code))
        self._forget(call)
        _cancel(call)

    def _forget(self, call: Call) -> None:
        del self._calls[call.number]
        self._waiting.pop(call.number, None)
        call.drop()
        self._close_if_done()

    # Sending.

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._transport.write(data)
        if not self._writable and self._transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self._transport.abort()

    def _takes(self, call: Call, message: bytes) -> bool:
        """Whether a message can be sent at once, in one frame."""
        size = frames.MESSAGE.size + len(message)
        return size <= min(self._max_frame, self._window, call.send_window) and self._writable and not self._waiting

    def _data(self, call: Call, message: bytes) -> tuple[bytes, bytes, bytes]:
        """The frame of a message that is taken."""
        size = frames.MESSAGE.size + len(message)
        self._window -= size
        call.send_window -= size
        head = frames.FRAME.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, call.number)
        return head, frames.MESSAGE.pack(0, len(message)), message

    def _send_waiting(self) -> None:
        """As much of the messages as the client and the socket take."""
        for call in tuple(self._waiting.values()):
            if not self._writable or self._window <= 0:
                return
            self._send_some(call)

    def _send_some(self, call: Call) -> None:
        assert call.outgoing is not None and call.sent is not None
        while call.outgoing and self._writable and self._transport is not None:
            batch: list[bytes | memoryview] = []
            before = len(call.outgoing)
            while call.outgoing and before - len(call.outgoing) < _BATCH_BYTES:
                room, left = min(self._window, call.send_window), len(call.outgoing)
                if not (parts := call.outgoing.next(call.number, room, self._max_frame, 0)):
                    break
                batch += parts
                self._window -= left - len(call.outgoing)
                call.send_window -= left - len(call.outgoing)
            if not batch:
                return
            self._transport.writelines(batch)
        if not call.outgoing:
            call.outgoing = None
            del self._waiting[call.number]
            if not call.sent.done():
                call.sent.set_result(None)

    # The end.

    def _expect_opening(self) -> None:
        if self._opened:
            self._keep_alive()
        elif self._transport is not None:
            self._transport.abort()

    def _keep_alive(self) -> None:
        """Ask a client that is silent whether it is there; without an answer it is not."""
        quiet_s = self._loop.time() - self._heard_at
        if quiet_s >= _KEEPALIVE_S + _PING_TIMEOUT_S:
            if self._transport is not None:
                self._transport.abort()
            return
        wait_s = _KEEPALIVE_S - quiet_s
        if wait_s <= 0:
            self._write(frames.frame(frames.PING, 0, 0, bytes(8)))
            wait_s += _PING_TIMEOUT_S
        self._timer = self._loop.call_later(max(wait_s, 0.001), self._keep_alive)

    def _be_gone(self) -> None:
        """Say which call is the last."""
        if not self._last_said:
            self._last_said = True
            self._write(_goaway(self._last, frames.NO_ERROR, ""))
            self._close_if_done()

    def _close_if_done(self) -> None:
        """Close, a moment later than the client should have."""
        if self._last_said and not self._calls:
            self._loop.call_later(_EOF_S, self._close)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _break(self, error: frames.ProtocolBroken) -> None:
        """A connection that is out of step cannot be put right."""
        self._broken = True
        self._write(_goaway(self._last, error.code, str(error)))
        self._close()

    def _refuse_protocol(self, data: bytes) -> None:
        self._broken = True
        if data[:1].isalpha():
            self._write(_NOT_HTTP2)
        self._close()

    # Receiving.

    def _received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == frames.DATA:
            self._on_data(flags, number, payload)
        elif (on := _FRAMES.get(kind)) is not None:
            on(self, flags, number, payload)
        else:
            self._on_idle()
        if self._block is not None and kind not in (frames.HEADERS, frames.CONTINUATION):
            raise frames.ProtocolBroken("a header block is interrupted")
        if not self._opened:
            raise frames.ProtocolBroken("the first frame is not SETTINGS")

    def _on_idle(self) -> None:
        """A frame that asks for nothing."""
        self._idle_frames += 1
        if self._idle_frames >= _MAX_IDLE_FRAMES:
            now = self._loop.time()
            if now - self._idle_since < _IDLE_FRAMES_S:
                raise frames.ProtocolBroken("too many frames that ask for nothing", frames.CALM)
            self._idle_frames, self._idle_since = 0, now

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise frames.ProtocolBroken("more than the connection's window", frames.FLOW_CONTROL_ERROR)
        call = self._calls.get(number)
        if call is None:
            if number > self._last or number % 2 == 0:
                raise frames.ProtocolBroken("data of no call")
            self.credit(size)
            self._on_idle()
            return
        part = frames.unpadded(payload, flags)
        end = bool(flags & frames.END_STREAM)
        if call.ended or size > call.window:
            self.credit(size)
            self._reset(call, frames.STREAM_CLOSED if call.ended else frames.FLOW_CONTROL_ERROR)
            return
        if not part and not end:
            self._on_idle()
        call.feed(part, size, end)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if number % 2 == 0:
            raise frames.ProtocolBroken("a header block of no call")
        if self._block is not None:
            raise frames.ProtocolBroken("a header block is interrupted")
        payload = frames.unpadded(payload, flags)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise IndexError
            payload = payload[_PRIORITY_BYTES:]
        if flags & frames.END_HEADERS:
            self._on_block(flags, number, payload)
        else:
            self._block = _Block(number, flags, [payload], len(payload))

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.number != number:
            raise frames.ProtocolBroken("a continuation of nothing")
        self._on_idle()
        block.size += len(payload)
        if block.size > _MAX_SKIPPED_BLOCK_BYTES:
            raise frames.ProtocolBroken(f"a header block of over {_MAX_SKIPPED_BLOCK_BYTES} bytes", frames.CALM)
        fits = block.size <= _BLOCK_TIMES_OVER * self._served.max_head_bytes
        block.parts = [*block.parts, payload] if fits else []
        if flags & frames.END_HEADERS:
            self._block = None
            if fits:
                self._on_block(block.flags, number, b"".join(block.parts))
            else:
                self._on_skipped(block)

    def _on_skipped(self, block: _Block) -> None:
        """A block that was too large to be kept."""
        if block.number > self._last:
            self._last = block.number
            code, details = heads.too_large(block.size, self._served.max_head_bytes)
            self._answer(block.number, block.flags, heads.only_trailers(code, details))
        if not self._reader.stateless:
            # What follows might mean what was in it.
            self._be_gone()

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        call = self._calls.get(number)
        if call is not None or number <= self._last:
            # Trailers, which say nothing to us.
            self._reader.skip(block)
            if call is not None:
                if call.ended or not flags & frames.END_STREAM:
                    raise frames.ProtocolBroken("a second head of a call")
                call.feed(b"", 0, True)
            return
        self._last = number
        if self._last_said:
            self._reader.skip(block)
            return
        try:
            head = self._reader.read(block)
        except Malformed:
            self._write(_reset(number, frames.PROTOCOL_ERROR))
            self._on_idle()
            return
        if self._tasks >= self._served.max_calls:
            self._write(_reset(number, frames.REFUSED))
        elif head.http_status != _HTTP_OK:
            self._answer(number, flags, heads.http_refusal(head.http_status))
        elif head.refusal is not None:
            self._answer(number, flags, heads.only_trailers(*head.refusal))
        elif (method := self._served.methods.get(head.path)) is None:
            self._answer(number, flags, heads.only_trailers(grpc.StatusCode.UNIMPLEMENTED, _NO_METHOD))
        else:
            self._begin(Call(self, number, head, self._served.max_message_bytes, self._initial_window), flags, method)

    def _begin(self, call: Call, flags: int, method: Method) -> None:
        if flags & frames.END_STREAM:
            call.feed(b"", 0, True)
        if call.head.timeout_s is not None:
            call.deadline = self._loop.time() + call.head.timeout_s
        self._calls[call.number] = call
        self._tasks += 1
        call.task = self._loop.create_task(self._serve(call, method))
        call.task.add_done_callback(self._task_ended)

    def _answer(self, number: int, flags: int, block: bytes) -> None:
        """Answer and end a call of which nothing is kept."""
        answer = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, block)
        self._write(answer if flags & frames.END_STREAM else answer + _reset(number, frames.NO_ERROR))

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise frames.ProtocolBroken("a priority of no call")
        if len(payload) != _PRIORITY_BYTES:
            raise IndexError
        self._on_idle()

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        frames.NUMBER.unpack(payload)
        if number == 0 or number > self._last:
            raise frames.ProtocolBroken("a reset of no call")
        self._on_idle()
        if (call := self._calls.get(number)) is not None:
            self._forget(call)
            _cancel(call)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise frames.ProtocolBroken("settings of a call")
        self._on_idle()
        if flags & frames.ACK:
            if payload:
                raise IndexError
            self._reader.without_table()
            return
        self._opened = True
        for name, value in frames.SETTING.iter_unpack(payload):
            if name == frames.INITIAL_WINDOW:
                if value > frames.LARGEST_WINDOW:
                    raise frames.ProtocolBroken("a window that is too large", frames.FLOW_CONTROL_ERROR)
                for call in self._calls.values():
                    call.send_window += value - self._initial_window
                self._initial_window = value
            elif name == frames.MAX_FRAME:
                if not frames.DEFAULT_FRAME <= value <= frames.LARGEST_FRAME:
                    raise frames.ProtocolBroken(f"frames of {value} bytes")
                self._max_frame = value
            elif name == frames.ENABLE_PUSH and value > 1:
                raise frames.ProtocolBroken("ENABLE_PUSH is neither 0 nor 1")
        self._write(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._send_waiting()

    def _on_push(self, flags: int, number: int, payload: bytes) -> None:
        raise frames.ProtocolBroken("a push by a client")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise frames.ProtocolBroken("a ping of a call")
        if len(payload) != _PING_BYTES:
            raise IndexError
        if not flags & frames.ACK:
            self._on_idle()
            self._write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif self._goes and payload == _GOING:
            # It has read the first word, and all that it sent before has come.
            self._be_gone()

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        """It begins no more calls; those under way are finished."""
        if number != 0:
            raise frames.ProtocolBroken("a farewell of a call")
        frames.NUMBER.unpack_from(payload)
        self._on_idle()

    def _on_window(self, flags: int, number: int, payload: bytes) -> None:
        more = frames.NUMBER.unpack(payload)[0] & frames.ID_BITS
        call = self._calls.get(number)
        if number > self._last:
            raise frames.ProtocolBroken("a window of no call")
        if number == 0:
            self._window += more
            if more == 0:
                raise frames.ProtocolBroken("a window that grows by nothing")
            if self._window > frames.LARGEST_WINDOW:
                raise frames.ProtocolBroken("a window that is too large", frames.FLOW_CONTROL_ERROR)
        elif call is not None:
            call.send_window += more
            if more == 0 or call.send_window > frames.LARGEST_WINDOW:
                self._reset(call, frames.FLOW_CONTROL_ERROR if more else frames.PROTOCOL_ERROR)
                return
        if self._waiting:
            self._send_waiting()


_FRAMES: dict[int, Callable[[Connection, int, int, bytes], None]] = {
    frames.HEADERS: Connection._on_headers,
    frames.PRIORITY: Connection._on_priority,
    frames.RST_STREAM: Connection._on_reset,
    frames.SETTINGS: Connection._on_settings,
    frames.PUSH_PROMISE: Connection._on_push,
    frames.PING: Connection._on_ping,
    frames.GOAWAY: Connection._on_goaway,
    frames.WINDOW_UPDATE: Connection._on_window,
    frames.CONTINUATION: Connection._on_continuation,
}


def _goaway(last: int, code: int, why: str) -> bytes:
    return frames.frame(frames.GOAWAY, 0, 0, frames.NUMBER.pack(last) + frames.NUMBER.pack(code) + why.encode())


def _reset(number: int, code: int) -> bytes:
    return frames.frame(frames.RST_STREAM, 0, number, frames.NUMBER.pack(code))


def _cancel(call: Call) -> None:
    if call.task is not None:
        call.task.cancel()
