"""One HTTP/2 connection of gRPC calls, in the event loop itself, as their server.

grpc.aio's server costs a small call more than all of the gateway's stages together: docs/decisions/0012-grpc-server.md. Header tables
are declined, so that equal calls have equal blocks, which are read once. Everything that a client can make grow is bounded here:
blocks, windows, calls, and frames that only cost work.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import error as StructError
from typing import cast

import grpc

from gateway.http2 import frames
from gateway.http2.blocks import Block
from gateway.rpc import calls, heads
from gateway.rpc.call import WINDOW, CallEnded, Method
from gateway.rpc.calls import Calls
from gateway.rpc.heads import Head, HeadReader, Malformed
from gateway.rpc.sending import Sender

# What asks for nothing, such as pings and resets: who sends so much of it in less than so many seconds attacks.
_MAX_IDLE = 50_000
_IDLE_S = 5.0
# What a frame counts there: a ping one; a call that was begun in vain, and settings, as much as their work is more.
_VAIN_CALL = 5
_SETTINGS = 100
_BLOCK_TIMES_OVER = 2
# A client that does not answer a ping is told the last call all the same.
_GONE_AWAY_S = 1.0
_EOF_S = 0.25
_KEEPALIVE_S = 60.0
_PING_TIMEOUT_S = 20.0
_GOING = b"tidegate"
_PING_BYTES = 8
_PRIORITY_BYTES = 5
_HTTP_OK = 200
_NOT_HTTP2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"this port speaks gRPC, over HTTP/2 with prior knowledge\n"
)
_NO_METHOD = "this server has no such method"


@dataclass(slots=True)
class Served:
    """What the connections of a server have in common.

    Attributes:
        methods: By path.
        max_calls: Of one connection, those included that were cancelled and have not ended yet.
        known: Header blocks that were read.
        connections: All that are open.
        ends: Connections that are made now are told so at once.
    """

    methods: Mapping[str, Method]
    max_message_bytes: int
    max_head_bytes: int
    max_calls: int
    stall_s: float
    known: dict[bytes, Head] = field(default_factory=dict)
    connections: "set[Connection]" = field(default_factory=set)
    ends: bool = False


class Connection(asyncio.Protocol):
    """Calls side by side on one connection.

    Attributes:
        closed: Done when it is.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._loop = asyncio.get_running_loop()
        self._sender = Sender()
        self._calls = Calls(
            self._sender, served.max_calls, served.max_message_bytes, served.stall_s, self._close_if_done
        )
        self._reader = HeadReader(served.max_head_bytes, served.known)
        self._last = 0
        self._begun = False
        self._opened = False
        self._last_said = False
        self._broken = False
        self._rest = b""
        self._block: Block | None = None
        self._idle = 0
        self._idle_since = 0.0
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def go_away(self) -> None:
        """Take no more calls, finish those under way, and close.

        The client is told twice: what it sends before it has read the first word is still served, so that no call is lost.
        """
        if self._begun:
            ping = frames.frame(frames.PING, 0, 0, _GOING)
            self._sender.write(_goaway(frames.LAST_STREAM, frames.NO_ERROR, "") + ping)
        self._loop.call_later(_GONE_AWAY_S, self._be_gone)

    def cancel(self) -> None:
        """End every call, and close."""
        self._calls.end_all(CallEnded(grpc.StatusCode.UNAVAILABLE, "the gateway ends"))
        self._close()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sender.transport = cast(asyncio.Transport, transport)
        self._heard_at = self._idle_since = self._loop.time()
        self._timer = self._loop.call_later(self._served.stall_s, self._expect_opening)
        self._served.connections.add(self)
        if self._served.ends:
            self.go_away()

    def _greet(self) -> None:
        """Answer the client's opening, and not before: who speaks no HTTP/2 could not read it."""
        self._begun = True
        settings = (
            (frames.HEADER_TABLE_SIZE, 0),
            (frames.MAX_STREAMS, self._served.max_calls),
            (frames.INITIAL_WINDOW, WINDOW),
            (frames.MAX_HEADERS, self._served.max_head_bytes),
        )
        payload = b"".join(frames.SETTING.pack(*setting) for setting in settings)
        more = frames.NUMBER.pack(calls.WINDOW - frames.DEFAULT_WINDOW)
        self._sender.write(
            frames.frame(frames.SETTINGS, 0, 0, payload) + frames.frame(frames.WINDOW_UPDATE, 0, 0, more)
        )
        if self._served.ends:
            self.go_away()

    def connection_lost(self, error: Exception | None) -> None:
        self._sender.transport = None
        self._served.connections.discard(self)
        self._calls.lose_all()
        if self._timer is not None:
            self._timer.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._sender.writable = False

    def resume_writing(self) -> None:
        self._sender.writable = True
        self._sender.send_waiting()

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
                self._greet()
                position = len(frames.PREFACE)
            while size - position >= frames.FRAME.size:
                high, low, kind, flags, number = frames.FRAME.unpack_from(data, position)
                start = position + frames.FRAME.size
                end = start + (high << 16 | low)
                if end - start > frames.DEFAULT_FRAME:
                    raise frames.wrong_size(end - start)
                if end > size:
                    break
                self._received(kind, flags, number & frames.ID_BITS, data[start:end])
                if self._broken:
                    return
                position = end
        except StructError:
            self._break(frames.ProtocolBroken("a frame of another size than its kind has", frames.FRAME_SIZE_ERROR))
            return
        except frames.ProtocolBroken as error:
            self._break(error)
            return
        self._rest = data[position:]

    # The end.

    def _expect_opening(self) -> None:
        if self._opened:
            self._keep_alive()
        else:
            self._abort()

    def _keep_alive(self) -> None:
        """Ask a client that is silent whether it is there; without an answer it is not."""
        quiet_s = self._loop.time() - self._heard_at
        if quiet_s >= _KEEPALIVE_S + _PING_TIMEOUT_S:
            self._abort()
            return
        wait_s = _KEEPALIVE_S - quiet_s
        if wait_s <= 0:
            self._sender.write(frames.frame(frames.PING, 0, 0, bytes(_PING_BYTES)))
            wait_s += _PING_TIMEOUT_S
        self._timer = self._loop.call_later(max(wait_s, 0.001), self._keep_alive)

    def _be_gone(self) -> None:
        """Say which call is the last."""
        if not self._begun:
            self._close()
        elif not self._last_said:
            self._last_said = True
            self._sender.write(_goaway(self._last, frames.NO_ERROR, ""))
            self._close_if_done()

    def _close_if_done(self) -> None:
        """Close, a moment later than the client should have."""
        if self._last_said and not self._calls.open:
            self._loop.call_later(_EOF_S, self._close)

    def _close(self) -> None:
        """Close, when the client has read what it was sent, but soon."""
        if self._sender.transport is not None and not self._sender.transport.is_closing():
            self._sender.flush()
            self._sender.transport.close()
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(self._served.stall_s, self._abort)

    def _abort(self) -> None:
        if self._sender.transport is not None:
            self._sender.transport.abort()

    def _break(self, error: frames.ProtocolBroken) -> None:
        """A connection that is out of step cannot be put right."""
        self._broken = True
        self._sender.write(_goaway(self._last, error.code, str(error)))
        self._calls.lose_all()
        self._close()

    def _refuse_protocol(self, data: bytes) -> None:
        self._broken = True
        if data[:1].isalpha():
            self._sender.write(_NOT_HTTP2)
        self._close()

    # Receiving.

    def _received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise frames.ProtocolBroken("a header block is interrupted")
        if not self._opened and (kind != frames.SETTINGS or flags & frames.ACK):
            raise frames.ProtocolBroken("the first frame is not SETTINGS")
        if kind == frames.DATA:
            self._on_data(flags, number, payload)
        elif (on := _FRAMES.get(kind)) is not None:
            on(self, flags, number, payload)
        else:
            self._on_idle()

    def _on_idle(self, cost: int = 1) -> None:
        """Something that asks for nothing.

        Raises:
            ProtocolBroken: There is too much of it.
        """
        self._idle += cost
        if self._idle >= _MAX_IDLE:
            now = self._loop.time()
            if now - self._idle_since < _IDLE_S:
                raise frames.ProtocolBroken("too many frames that ask for nothing", frames.CALM)
            self._idle, self._idle_since = 0, now

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._calls.received(size)
        call = self._calls.open.get(number)
        if call is None:
            if number > self._last or number % 2 == 0:
                raise frames.ProtocolBroken("data of no call")
            self._calls.credit(size)
            self._on_idle()
            return
        part = frames.unpadded(payload, flags)
        end = bool(flags & frames.END_STREAM)
        if call.ended or size > call.window:
            self._calls.credit(size)
            self._calls.reset(call, frames.STREAM_CLOSED if call.ended else frames.FLOW_CONTROL_ERROR)
            self._on_idle(_VAIN_CALL)
            return
        if not part and not end:
            self._on_idle()
        call.feed(part, size, end)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if number % 2 == 0:
            raise frames.ProtocolBroken("a header block of no call")
        payload = frames.unpadded(payload, flags)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise frames.wrong_size(len(payload))
            payload = payload[_PRIORITY_BYTES:]
        if flags & frames.END_HEADERS:
            self._on_block(flags, number, payload)
        else:
            self._block = Block(number, flags, payload, _BLOCK_TIMES_OVER * self._served.max_head_bytes)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.number != number:
            raise frames.ProtocolBroken("a continuation of nothing")
        self._on_idle()
        block.add(payload)
        if flags & frames.END_HEADERS:
            self._block = None
            if (whole := block.whole()) is not None:
                self._on_block(block.flags, number, whole)
            else:
                self._on_skipped(block)

    def _on_skipped(self, block: Block) -> None:
        """A block that was too large to be kept."""
        if block.number <= self._last:
            self._on_trailers(block.flags, block.number)
        else:
            self._last = block.number
            refusal = heads.too_large(block.size, self._served.max_head_bytes)
            if not self._last_said:
                self._answer(block.number, block.flags, heads.only_trailers(*refusal))
        if not self._reader.stateless:
            # What follows might mean what was in it.
            self._be_gone()

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        if self._last_said:
            # No block is read any more.
            if number > self._last:
                self._last = number
            else:
                self._on_trailers(flags, number)
            return
        if number <= self._last:
            self._reader.skip(block)
            self._on_trailers(flags, number)
            return
        self._last = number
        try:
            head = self._reader.read(block)
        except Malformed:
            self._sender.write(calls.reset(number, frames.PROTOCOL_ERROR))
            self._on_idle(_VAIN_CALL)
            return
        if self._calls.full:
            self._sender.write(calls.reset(number, frames.REFUSED))
            self._on_idle(_VAIN_CALL)
        elif head.http_status != _HTTP_OK:
            self._answer(number, flags, heads.http_refusal(head.http_status))
        elif head.refusal is not None:
            self._answer(number, flags, heads.only_trailers(*head.refusal))
        elif (method := self._served.methods.get(head.path)) is None:
            self._answer(number, flags, heads.only_trailers(grpc.StatusCode.UNIMPLEMENTED, _NO_METHOD))
        else:
            self._calls.begin(number, head, bool(flags & frames.END_STREAM), method)

    def _on_trailers(self, flags: int, number: int) -> None:
        """A block after a call's first one, which says nothing to us but that the call's end has come."""
        call = self._calls.open.get(number)
        if call is None:
            self._on_idle()
            return
        if call.ended or not flags & frames.END_STREAM:
            raise frames.ProtocolBroken("a second head of a call")
        call.feed(b"", 0, True)

    def _answer(self, number: int, flags: int, block: bytes) -> None:
        """Answer and end a call of which nothing is kept."""
        answer = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, block)
        self._sender.write(answer if flags & frames.END_STREAM else answer + calls.reset(number, frames.NO_ERROR))

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise frames.ProtocolBroken("a priority of no call")
        if len(payload) != _PRIORITY_BYTES:
            raise frames.wrong_size(len(payload))
        self._on_idle()

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        frames.NUMBER.unpack(payload)
        if number == 0 or number > self._last:
            raise frames.ProtocolBroken("a reset of no call")
        if (call := self._calls.open.get(number)) is not None:
            self._calls.cancel(call)
            self._on_idle(_VAIN_CALL)
        else:
            self._on_idle()

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise frames.ProtocolBroken("settings of a call")
        if flags & frames.ACK:
            if payload:
                raise frames.wrong_size(len(payload))
            self._on_idle()
            return
        self._on_idle(_SETTINGS)
        self._opened = True
        window = self._sender.initial_window
        for name, value in frames.SETTING.iter_unpack(payload):
            if name == frames.INITIAL_WINDOW:
                if value > frames.LARGEST_WINDOW:
                    raise frames.ProtocolBroken("a window that is too large", frames.FLOW_CONTROL_ERROR)
                window = value
            elif name == frames.MAX_FRAME:
                if not frames.DEFAULT_FRAME <= value <= frames.LARGEST_FRAME:
                    raise frames.ProtocolBroken(f"frames of {value} bytes")
                self._sender.set_max_frame(value)
            elif name == frames.ENABLE_PUSH and value > 1:
                raise frames.ProtocolBroken("ENABLE_PUSH is neither 0 nor 1")
        self._sender.write(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._sender.set_initial_window(window, self._calls.open.values())

    def _on_push(self, flags: int, number: int, payload: bytes) -> None:
        raise frames.ProtocolBroken("a push by a client")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise frames.ProtocolBroken("a ping of a call")
        if len(payload) != _PING_BYTES:
            raise frames.wrong_size(len(payload))
        self._on_idle()
        if not flags & frames.ACK:
            self._sender.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif self._served.ends and payload == _GOING:
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
        if number > self._last:
            raise frames.ProtocolBroken("a window of no call")
        if number == 0:
            self._sender.widen(more)
        elif (call := self._calls.open.get(number)) is not None:
            if more == 0 or call.send_window + more > frames.LARGEST_WINDOW:
                self._calls.reset(call, frames.FLOW_CONTROL_ERROR if more else frames.PROTOCOL_ERROR)
                self._on_idle(_VAIN_CALL)
            else:
                self._sender.widen_call(call, more)


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
