"""uvicorn's HTTP/1.1, with bounds that it has not: on the head of a request, and on a caller that stalls."""

from asyncio import TimerHandle
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.settings import LimitSettings


def bounded(limits: LimitSettings) -> type[HttpToolsProtocol]:
    """uvicorn makes the protocol of each connection itself, and so takes a class."""

    class BoundedProtocol(_BoundedProtocol):
        max_head_bytes = limits.max_head_bytes
        stall_s = limits.stall_s

    return BoundedProtocol


class _BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose caller is too slow with a request's head, or reads nothing of an answer.

    The time for a body is the call's deadline.
    """

    max_head_bytes: int
    stall_s: float

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = False
        self._head_bytes = 0
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_done()
        self._stop_watching()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes and not self.transport.is_closing():
                self._refuse()
        # What comes between two requests, such as the rest of a body that was refused, may not go on either.
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._head_done()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    def _head_done(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _await_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.stall_s, self.transport.abort)

    def _watch_writing(self) -> None:
        self._write_timer = self.loop.call_later(self.stall_s, self._check_writing, self._unwritten())

    def _check_writing(self, unwritten: int) -> None:
        if self._unwritten() < unwritten:
            self._watch_writing()
        else:
            self.transport.abort()

    def _unwritten(self) -> int:
        return self.transport.get_write_buffer_size()

    def _stop_watching(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _refuse(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        body = f'{{"error":"the head of the request is over {self.max_head_bytes} bytes"}}'
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write((head + body).encode())
        self.transport.close()
