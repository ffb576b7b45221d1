"""One HTTP/2 connection of gRPC calls, in the event loop itself, as their server.

grpc.aio's server costs a small call more than all of the gateway's stages together: docs/decisions/0012-grpc-server.md. Header tables
are declined, so that equal calls have equal blocks, which are read once. Everything that a client can make grow is bounded, here and in
`receiving.py`: blocks, windows, calls, and frames that only cost work.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import error as StructError
from typing import cast

import grpc

from gateway.http2 import frames
from gateway.rpc import calls
from gateway.rpc.call import WINDOW, CallEnded, Method
from gateway.rpc.calls import Calls
from gateway.rpc.heads import Head, HeadReader
from gateway.rpc.receiving import Receiver
from gateway.rpc.sending import Sender

# A client that does not answer a ping is told the last call all the same.
_GONE_AWAY_S = 1.0
_EOF_S = 0.25
_KEEPALIVE_S = 60.0
_PING_TIMEOUT_S = 20.0
_GOING = b"tidegate"
_PING_BYTES = 8
_NOT_HTTP2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"this port speaks gRPC, over HTTP/2 with prior knowledge\n"
)


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
        self._receiver = Receiver(
            served.methods,
            served.max_head_bytes,
            HeadReader(served.max_head_bytes, served.known),
            self._sender,
            self._calls,
            self._be_gone,
            self._pinged,
        )
        self._begun = False
        self._broken = False
        self._rest = b""
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
        self._heard_at = self._loop.time()
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
                self._receiver.received(kind, flags, number & frames.ID_BITS, data[start:end])
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
        if self._receiver.opened:
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
        elif not self._receiver.last_said:
            self._receiver.last_said = True
            self._sender.write(_goaway(self._receiver.last, frames.NO_ERROR, ""))
            self._close_if_done()

    def _pinged(self, payload: bytes) -> None:
        if self._served.ends and payload == _GOING:
            # It has read the first word, and all that it sent before has come.
            self._be_gone()

    def _close_if_done(self) -> None:
        """Close, a moment later than the client should have."""
        if self._receiver.last_said and not self._calls.open:
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
        self._sender.write(_goaway(self._receiver.last, error.code, str(error)))
        self._calls.lose_all()
        self._close()

    def _refuse_protocol(self, data: bytes) -> None:
        self._broken = True
        if data[:1].isalpha():
            self._sender.write(_NOT_HTTP2)
        self._close()


def _goaway(last: int, code: int, why: str) -> bytes:
    return frames.frame(frames.GOAWAY, 0, 0, frames.NUMBER.pack(last) + frames.NUMBER.pack(code) + why.encode())
