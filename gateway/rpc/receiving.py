"""What the frames of a gRPC client say, one after the other."""

import asyncio
from collections.abc import Callable, Mapping

import grpc

from gateway.http2 import frames
from gateway.http2.blocks import Block
from gateway.rpc import heads
from gateway.rpc.call import Method
from gateway.rpc.calls import Calls, reset
from gateway.rpc.heads import HeadReader, Malformed
from gateway.rpc.sending import Sender

# What asks for nothing, such as pings and resets: who sends so much of it in less than so many seconds attacks.
_MAX_IDLE = 50_000
_IDLE_S = 5.0
# What a frame counts there: a ping one; a call that was begun in vain, and settings, as much as their work is more.
_VAIN_CALL = 5
_SETTINGS = 100
_BLOCK_TIMES_OVER = 2
_PING_BYTES = 8
_PRIORITY_BYTES = 5
_HTTP_OK = 200
_NO_METHOD = "this server has no such method"


class Receiver:
    """Begins, feeds and ends the calls of one connection.

    Args:
        methods: By path.
        be_gone: Says which call is the last.
        pinged: Told what came back with a ping.

    Attributes:
        opened: The client said its settings.
        last: The number of the call that it began last.
        last_said: It was told so; no block is read any more.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        max_head_bytes: int,
        reader: HeadReader,
        sender: Sender,
        calls: Calls,
        be_gone: Callable[[], None],
        pinged: Callable[[bytes], None],
    ) -> None:
        self._methods = methods
        self._max_head_bytes = max_head_bytes
        self._reader = reader
        self._sender = sender
        self._calls = calls
        self._be_gone = be_gone
        self._pinged = pinged
        self._loop = asyncio.get_running_loop()
        self._block: Block | None = None
        self._idle = 0
        self._idle_since = self._loop.time()
        self.opened = False
        self.last = 0
        self.last_said = False

    def received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Do as a frame says.

        Raises:
            ProtocolBroken: It may not say that.
            struct.error: It is of another size than its kind has.
        """
        if self._block is not None and kind != frames.CONTINUATION:
            raise frames.ProtocolBroken("a header block is interrupted")
        if not self.opened and (kind != frames.SETTINGS or flags & frames.ACK):
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
            if number > self.last or number % 2 == 0:
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
            self._block = Block(number, flags, payload, _BLOCK_TIMES_OVER * self._max_head_bytes)

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
        if block.number <= self.last:
            self._on_trailers(block.flags, block.number)
        else:
            self.last = block.number
            refusal = heads.too_large(block.size, self._max_head_bytes)
            if not self.last_said:
                self._answer(block.number, block.flags, heads.only_trailers(*refusal))
        if not self._reader.stateless:
            # What follows might mean what was in it.
            self._be_gone()

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        if self.last_said:
            # No block is read any more.
            if number > self.last:
                self.last = number
            else:
                self._on_trailers(flags, number)
            return
        if number <= self.last:
            self._reader.skip(block)
            self._on_trailers(flags, number)
            return
        self.last = number
        try:
            head = self._reader.read(block)
        except Malformed:
            self._sender.write(reset(number, frames.PROTOCOL_ERROR))
            self._on_idle(_VAIN_CALL)
            return
        if self._calls.full:
            self._sender.write(reset(number, frames.REFUSED))
            self._on_idle(_VAIN_CALL)
        elif head.http_status != _HTTP_OK:
            self._answer(number, flags, heads.http_refusal(head.http_status))
        elif head.refusal is not None:
            self._answer(number, flags, heads.only_trailers(*head.refusal))
        elif (method := self._methods.get(head.path)) is None:
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
        self._sender.write(answer if flags & frames.END_STREAM else answer + reset(number, frames.NO_ERROR))

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise frames.ProtocolBroken("a priority of no call")
        if len(payload) != _PRIORITY_BYTES:
            raise frames.wrong_size(len(payload))
        self._on_idle()

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        frames.NUMBER.unpack(payload)
        if number == 0 or number > self.last:
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
        self.opened = True
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
        else:
            self._pinged(payload)

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        """It begins no more calls; those under way are finished."""
        if number != 0:
            raise frames.ProtocolBroken("a farewell of a call")
        frames.NUMBER.unpack_from(payload)
        self._on_idle()

    def _on_window(self, flags: int, number: int, payload: bytes) -> None:
        more = frames.NUMBER.unpack(payload)[0] & frames.ID_BITS
        if number > self.last:
            raise frames.ProtocolBroken("a window of no call")
        if number == 0:
            self._sender.widen(more)
        elif (call := self._calls.open.get(number)) is not None:
            if more == 0 or call.send_window + more > frames.LARGEST_WINDOW:
                self._calls.reset(call, frames.FLOW_CONTROL_ERROR if more else frames.PROTOCOL_ERROR)
                self._on_idle(_VAIN_CALL)
            else:
                self._sender.widen_call(call, more)


_FRAMES: dict[int, Callable[[Receiver, int, int, bytes], None]] = {
    frames.HEADERS: Receiver._on_headers,
    frames.PRIORITY: Receiver._on_priority,
    frames.RST_STREAM: Receiver._on_reset,
    frames.SETTINGS: Receiver._on_settings,
    frames.PUSH_PROMISE: Receiver._on_push,
    frames.PING: Receiver._on_ping,
    frames.GOAWAY: Receiver._on_goaway,
    frames.WINDOW_UPDATE: Receiver._on_window,
    frames.CONTINUATION: Receiver._on_continuation,
}
