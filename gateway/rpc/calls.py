"""The calls under way on one connection."""

import asyncio
from collections.abc import Callable

import grpc
import structlog

from gateway.errors import GatewayError
from gateway.http2 import frames
from gateway.rpc import heads
from gateway.rpc.call import Call, CallEnded, Method
from gateway.rpc.heads import Head
from gateway.rpc.sending import Sender
from gateway.rpc.status import STATUS

# Of bodies that no handler reads yet, over all calls of a connection.
WINDOW = 4 << 20
# Of what was taken, so much is let pass before the client is told that it may send more.
_CREDIT = 1 << 20
_STATUS_OK = grpc.StatusCode.OK
_OK = heads.trailers(_STATUS_OK, "", ())

_log = structlog.get_logger(__name__)


class Calls:
    """Begins calls, answers them and ends them.

    Args:
        stall_s: A client that reads nothing of its answer for so long does not get it.
        tell_fewer: Called when one is over.

    Attributes:
        open: Those that are not over, by number.
    """

    __slots__ = (
        "_credit", "_loop", "_max_calls", "_max_message_bytes", "_sender", "_stall_s", "_tasks", "_tell_fewer",
        "_window", "open",
    )  # fmt: skip

    def __init__(
        self, sender: Sender, max_calls: int, max_message_bytes: int, stall_s: float, tell_fewer: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sender = sender
        self._max_calls = max_calls
        self._max_message_bytes = max_message_bytes
        self._stall_s = stall_s
        self._tell_fewer = tell_fewer
        self._tasks = 0
        self._window = WINDOW
        self._credit = 0
        self.open: dict[int, Call] = {}

    @property
    def full(self) -> bool:
        """No more are begun; those count that were cancelled and have not ended yet."""
        return self._tasks >= self._max_calls

    def begin(self, number: int, head: Head, ended: bool, method: Method) -> None:
        """Let a method serve a call, of which the client may have said all."""
        call = Call(self, number, head, self._max_message_bytes, self._sender.initial_window)
        if ended:
            call.feed(b"", 0, True)
        self.open[number] = call
        self._tasks += 1
        call.task = self._loop.create_task(self._serve(call, method))
        call.task.add_done_callback(self._task_ended)

    def reset(self, call: Call, code: int) -> None:
        """End a call without a word more."""
        self._sender.write(reset(call.number, code))
        self.cancel(call)

    def cancel(self, call: Call) -> None:
        """Forget a call, as its client did."""
        task = call.task
        self._forget(call)
        if task is not None:
            task.cancel()

    def end_all(self, ended: CallEnded) -> None:
        """End every call."""
        for call in tuple(self.open.values()):
            task = call.task
            self._end(call, ended)
            if task is not None:
                task.cancel()

    def lose_all(self) -> None:
        """The connection is lost, and every call with it."""
        for call in tuple(self.open.values()):
            self.cancel(call)

    # What they receive.

    def received(self, size: int) -> None:
        """So many bytes came.

        Raises:
            ProtocolBroken: They are more than the client may send.
        """
        self._window -= size
        if self._window < 0:
            raise frames.ProtocolBroken("more than the connection's window", frames.FLOW_CONTROL_ERROR)

    def credit(self, size: int) -> None:
        """So many bytes were taken: the client may send as many more on the connection."""
        self._credit += size
        if self._credit >= _CREDIT:
            self._sender.write(frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.NUMBER.pack(self._credit)))
            self._window += self._credit
            self._credit = 0

    def grant(self, call: Call, size: int) -> None:
        """The client may send so many bytes more of this call."""
        self._sender.write(frames.frame(frames.WINDOW_UPDATE, 0, call.number, frames.NUMBER.pack(size)))

    # What they send.

    async def send(self, call: Call, message: bytes) -> None:
        """Send a message, when the client takes it.

        Raises:
            CallEnded: The call is over.
        """
        if self.open.get(call.number) is not call:
            raise CallEnded(grpc.StatusCode.CANCELLED)
        if not self._sender.takes(call, message):
            await self._queued(call, message)
            return
        head = b"" if call.begun else frames.frame(frames.HEADERS, frames.END_HEADERS, call.number, heads.HEAD)
        call.begun = True
        self._sender.write(b"".join((head, *self._sender.data(call, message))))

    def _queued(self, call: Call, message: bytes) -> asyncio.Future[None]:
        if not call.begun:
            call.begun = True
            self._sender.write(frames.frame(frames.HEADERS, frames.END_HEADERS, call.number, heads.HEAD))
        return self._sender.queue(call, message)

    async def _serve(self, call: Call, method: Method) -> None:
        try:
            reply = await method(call)
            if reply is not None and not self._sender.takes(call, reply):
                await self._send_within(call, reply)
                reply = None
            self._finish(call, reply, _OK if not call.trailing else heads.trailers(_STATUS_OK, "", call.trailing))
        except CallEnded as ended:
            self._end(call, ended)
        except GatewayError as error:
            self._end(call, CallEnded(STATUS[error.kind], error.message))
        except asyncio.CancelledError:
            # Not by its client, whose call would be over.
            self._end(call, CallEnded(grpc.StatusCode.CANCELLED, "the call was given up"))
            raise
        except Exception as error:  # The edge of the transport.
            _log.error("unexpected failure", exc_info=error)
            self._end(call, CallEnded(grpc.StatusCode.INTERNAL, "the gateway failed; its log says why"))

    async def _send_within(self, call: Call, reply: bytes) -> None:
        """Send an answer to a client that reads some of it now and then, or, where that is what it waits for, of others."""
        if self.open.get(call.number) is not call:
            return
        sent = self._queued(call, reply)
        while not sent.done():
            left, of_all = len(call.outgoing or b""), self._sender.sent
            await asyncio.wait((sent,), timeout=self._stall_s)
            waits_for_others = call.send_window > 0 and self._sender.sent != of_all
            if not sent.done() and len(call.outgoing or b"") == left and not waits_for_others:
                self.reset(call, frames.CANCEL)
                return

    def _finish(self, call: Call, reply: bytes | None, trailers: bytes) -> None:
        """End a call that is not over, with a last message if there is one, which the client takes."""
        number = call.number
        if self.open.get(number) is not call:
            return
        parts: list[bytes] = []
        if reply is not None:
            if not call.begun:
                parts.append(frames.frame(frames.HEADERS, frames.END_HEADERS, number, heads.HEAD))
            parts += self._sender.data(call, reply)
        elif not call.begun:
            trailers = heads.ONLY_TRAILERS + trailers
        parts.append(frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, trailers))
        if not call.ended:
            # The client need not send the rest.
            parts.append(reset(number, frames.NO_ERROR))
        self._sender.write(b"".join(parts))
        self._forget(call)

    def _end(self, call: Call, ended: CallEnded) -> None:
        self._finish(call, None, heads.trailers(ended.code, ended.details, ended.metadata))

    def _forget(self, call: Call) -> None:
        del self.open[call.number]
        if call.outgoing is not None:
            self._sender.forget(call)
        call.drop()
        call.task = None  # What it ends with holds the call.
        self._tell_fewer()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks -= 1


def reset(number: int, code: int) -> bytes:
    """The frame that ends a stream."""
    return frames.frame(frames.RST_STREAM, 0, number, frames.NUMBER.pack(code))
