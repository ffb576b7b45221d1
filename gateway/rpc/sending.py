"""What one connection sends, as far as its client and the socket take it."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from gateway.http2 import frames
from gateway.http2.sending import Outgoing
from gateway.rpc.call import Call

# More than this that the client does not read, messages apart, which wait for it.
_MAX_UNSENT_BYTES = 4 << 20
# So much of a message is sent before the next one has its turn, and the socket is asked whether it takes more.
_BATCH_BYTES = 256 << 10


class Sender:
    """Messages that have to wait take turns; those that only their own window holds up are not in the others' way.

    Attributes:
        transport: None: the connection is lost.
        writable: The socket takes more.
        window: Bytes that the client takes now, over all calls.
        initial_window: That of a new call.
        max_frame: Bytes of a frame. Clients take 16 MB, of which the first would hold up everything else.
        sent: Bytes of messages that had to wait, those that were sent.
    """

    __slots__ = (
        "_held", "_loop", "_unsent", "_waiting",
        "initial_window", "max_frame", "sent", "transport", "window", "writable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.writable = True
        self.window = frames.DEFAULT_WINDOW
        self.initial_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.DEFAULT_FRAME
        self.sent = 0
        self._loop = asyncio.get_running_loop()
        # What is written in one round of the event loop goes to the socket at once.
        self._unsent: list[bytes] = []
        self._held = 0
        self._waiting: OrderedDict[int, Call] = OrderedDict()

    def write(self, data: bytes) -> None:
        """Send frames that no window bounds. A client that reads none of many is dropped."""
        if not self._unsent:
            self._loop.call_soon(self.flush)
        self._unsent.append(data)
        self._held += len(data)
        if self._held >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what was written over to the socket."""
        data, self._unsent, self._held = b"".join(self._unsent), [], 0
        if self.transport is None or not data:
            return
        self.transport.write(data)
        if not self.writable and self.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.transport.abort()

    def takes(self, call: Call, message: bytes) -> bool:
        """Whether a message can be sent at once, in one frame."""
        size = frames.MESSAGE.size + len(message)
        return (
            size <= self.max_frame
            and size <= self.window
            and size <= call.send_window
            and self.writable
            and not self._waiting
        )

    def data(self, call: Call, message: bytes) -> tuple[bytes, bytes, bytes]:
        """The frame of a message that is taken, in parts."""
        size = frames.MESSAGE.size + len(message)
        self.window -= size
        call.send_window -= size
        head = frames.FRAME.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, call.number)
        return head, frames.MESSAGE.pack(0, len(message)), message

    def queue(self, call: Call, message: bytes) -> asyncio.Future[None]:
        """Send a message when it is taken; the future is done when all of it is with the socket."""
        call.outgoing = Outgoing(message)
        call.sent = self._loop.create_future()
        self._waiting[call.number] = call
        self.send_waiting()
        return call.sent

    def forget(self, call: Call) -> None:
        """What is left of its message is not sent."""
        self._waiting.pop(call.number, None)

    def widen(self, more: int) -> None:
        """The client takes so many bytes more.

        Raises:
            ProtocolBroken: They are none, or too many.
        """
        if more == 0:
            raise frames.ProtocolBroken("a window that grows by nothing")
        self.window += more
        if self.window > frames.LARGEST_WINDOW:
            raise frames.ProtocolBroken("a window that is too large", frames.FLOW_CONTROL_ERROR)
        if self._waiting:
            self.send_waiting()

    def widen_call(self, call: Call, more: int) -> None:
        """The client takes so many bytes more of a call."""
        call.send_window += more
        if call.outgoing is not None:
            self._waiting[call.number] = call
            self.send_waiting()

    def set_max_frame(self, size: int) -> None:
        """The client takes frames of so many bytes."""
        self.max_frame = min(size, _BATCH_BYTES)

    def set_initial_window(self, size: int, calls: Iterable[Call]) -> None:
        """The client takes so many bytes of each call, those under way included: by as many more or less.

        Raises:
            ProtocolBroken: They are too many.
        """
        more = size - self.initial_window
        self.initial_window = size
        if more == 0:
            return
        for call in calls:
            call.send_window += more
            if call.send_window > frames.LARGEST_WINDOW:
                raise frames.ProtocolBroken("a window that is too large", frames.FLOW_CONTROL_ERROR)
            if call.outgoing is not None:
                self._waiting[call.number] = call
        self.send_waiting()

    def send_waiting(self) -> None:
        """As much of the messages as the client and the socket take."""
        while self._waiting and self.writable and self.transport is not None:
            call = next(iter(self._waiting.values()))
            outgoing, batch = call.outgoing, self._batch(call)
            assert outgoing is not None and call.sent is not None
            if batch:
                self.flush()
                self.transport.writelines(batch)
            if not outgoing:
                call.outgoing = None
                del self._waiting[call.number]
                if not call.sent.done():
                    call.sent.set_result(None)
            elif outgoing.fits(min(self.window, call.send_window)):
                self._waiting.move_to_end(call.number)
            elif not outgoing.fits(call.send_window):
                del self._waiting[call.number]
            else:
                return

    def _batch(self, call: Call) -> list[bytes | memoryview]:
        """The next frames of its message, in parts."""
        outgoing = call.outgoing
        assert outgoing is not None
        batch: list[bytes | memoryview] = []
        before = left = len(outgoing)
        while left and before - left < _BATCH_BYTES:
            parts = outgoing.next(call.number, min(self.window, call.send_window), self.max_frame)
            if not parts:
                break
            batch += parts
            sent = left - len(outgoing)
            left -= sent
            self.window -= sent
            call.send_window -= sent
        self.sent += before - left
        return batch
