"""uvicorn's HTTP/1.1, with bounds that it has not: on the head of a request, and on a caller that stalls."""

import sys
from asyncio import TimerHandle
from collections.abc import Callable
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.operations import Readiness
from gateway.rest.body import LOST
from gateway.settings import LimitSettings


def bounded(limits: LimitSettings, readiness: Readiness) -> type[HttpToolsProtocol]:
    """uvicorn makes the protocol of each connection itself, and so takes a class."""

    class BoundedProtocol(_BoundedProtocol):
        max_head_bytes = limits.max_head_bytes
        stall_s = limits.stall_s
        told = readiness

    return BoundedProtocol


class _BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose caller is too slow with a request's head, or reads nothing of an answer.

    The time for a body is the call's deadline. What is no HTTP is told so. Where a connection ends before all of a
    request came, the rest is read for a while without being looked at: one that is closed over what was not read is reset,
    and takes the answer with it.
    """

    max_head_bytes: int
    stall_s: float
    told: Readiness

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = False
        self._deaf = False
        self._piece = b""
        # Of a response whose body has not begun.
        self._head = b""
        self._headed: Any = None
        # Since a head was complete or any of a body came: of heads, and of what stands around chunks and behind them.
        self._frame_bytes = 0
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._for_cycles: Any = SimpleNamespace(
            write=self._write, is_closing=transport.is_closing, close=self._end_after_answer
        )
        self._when_lost: set[Callable[[], None]] = set()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Not to this object, which holds the cycle.
        self._for_cycles.write, self._for_cycles.close = self.transport.write, self.transport.close
        for tell in tuple(self._when_lost):
            tell()
        self._head_done()
        self._stop_watching()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._frame_bytes += len(data)
        self._piece = data
        super().data_received(data)
        if self._frame_bytes > self.max_head_bytes:
            part = "head" if self._in_head else "frame around the body"
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the {part} of the request is over {self.max_head_bytes} bytes",
            )
        # What comes between two requests, such as the rest of a body that was refused, may not go on either.
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()
        if error is not None and isinstance(error.__context__, httptools.HttpParserInvalidURLError):
            error = error.__context__
        self._refuse(HTTPStatus.BAD_REQUEST, f"the request is not HTTP/1.1: {error}")

    def eof_received(self) -> None:
        if self._in_head or self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            self._refuse(HTTPStatus.BAD_REQUEST, f"the request ends within its {'head' if self._in_head else 'body'}")

    def _asks_for_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _unsupported_upgrade_warning(self) -> None:
        """Read the request anew as one that asks for no other protocol: httptools passes over the body of one that does."""
        passed = sys.exception()
        if not isinstance(passed, httptools.HttpParserUpgrade) or not self._asks_for_upgrade():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # One after the other; else a caller could have a piece read as often as it likes.
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn makes it.
        super().data_received(b"\r\n".join(lines) + b"\r\n\r\n" + self._piece[passed.args[0] :])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # Nobody reads those behind a body.
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._asks_for_upgrade():
            return
        self._head_done()
        self._frame_bytes = 0
        self.scope["extensions"] = {LOST: self._when_lost}  # type: ignore[dict-item]  # uvicorn knows its own.
        super().on_headers_complete()
        self.cycle.transport = self._for_cycles
        if self.told.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._frame_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._asks_for_upgrade():
            return
        self._frame_bytes = 0
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # A large body's end paused it, and a caller that goes away is to be seen.

    def shutdown(self) -> None:
        if self._deaf:
            self.transport.close()
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        if not self._deaf:
            super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    def _write(self, data: bytes) -> None:
        """Write a response's head together with what comes behind it, and in any case soon."""
        if self.cycle.response_started and self._headed is not self.cycle:
            self._headed, self._head = self.cycle, data
            self.loop.call_soon(self._write_head)
        else:
            head, self._head = self._head, b""
            self.transport.writelines((head, data) if head else (data,))

    def _write_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self.transport.write(head)

    def _head_done(self) -> None:
        self._in_head = False
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

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        if self._deaf or self.transport.is_closing():
            return
        self._deaf = True
        self._write_head()
        unanswered = self.cycle is not None and not self.cycle.response_complete
        if unanswered and (self.cycle.response_started or self.pipeline):
            self.transport.close()  # The answer would be taken for that to an earlier request.
            return
        if unanswered:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = orjson.dumps({"error": message})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._end_deaf()

    def _end_after_answer(self) -> None:
        self._write_head()
        if self.cycle.more_body and not self._deaf:
            self._end_deaf()
        else:
            self.transport.close()

    def _end_deaf(self) -> None:
        self._deaf = True
        if not self.transport.can_write_eof():  # TLS, which ends both ways at once.
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._head_done()
        self._await_head()
