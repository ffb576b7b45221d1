"""A request's body: read within its bound, and watched for a caller that goes away."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Message, Receive

from gateway.compression import Inflater
from gateway.errors import TooLarge

_T = TypeVar("_T")

# The extension of ASGI with what is called when the connection is lost.
LOST = "tidegate.lost"
# What is this small becomes at most a megabyte, sooner than a thread is asked.
_INLINE_BYTES = 1_024


class CallerGone(Exception):
    """The connection closed before the answer: there is nobody to tell."""


class Body:
    """The body of one request, not read until it is asked for.

    Attributes:
        request: The same request; whatever parses its body is bounded.
    """

    def __init__(self, request: Request, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bounded = _Bounded(request.receive, max_bytes)
        self.request = Request(request.scope, self._bounded)

    async def read(self) -> bytes:
        """All of it.

        Raises:
            TooLarge: It says it is over the limit, or is, as it came or when it is decompressed.
            InvalidArgument: It is not compressed as it says.
            Unimplemented: It is compressed in a way that is not known here.
        """
        self.check_headers()
        content = bytearray()  # A list of chunks would take many times what a caller that sends bytes one by one does.
        async for chunk in self.request.stream():
            content += chunk
        return bytes(content)

    def check_headers(self) -> None:
        """Refuse by the headers alone what would be refused later."""
        headers = self.request.headers
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            self._bounded.inflater = Inflater(encoding, self._max_bytes)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise TooLarge(f"the body has {length} bytes, the limit is {self._max_bytes}")

    async def unless_gone(self, work: Coroutine[None, None, _T]) -> _T:
        """Do the work, and cancel it when the caller's connection closes.

        Raises:
            CallerGone: It closed.
        """
        task = asyncio.current_task()
        assert task is not None
        left = False

        def leave() -> None:
            nonlocal left
            left = True
            task.cancel()

        lost: set[Callable[[], None]] = self.request.scope["extensions"][LOST]
        lost.add(leave)
        try:
            return await work
        except asyncio.CancelledError as error:
            if task.cancelling() > left:  # Somebody else cancels it, too.
                raise
            raise CallerGone from error
        finally:
            if left:
                task.uncancel()
            lost.discard(leave)


class _Bounded:
    """A request's messages within the bound of its body, decompressed where they have to be."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._taken = 0
        self.inflater: Inflater | None = None

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError("the caller closed the connection within the body")
        self._taken += len(message.get("body", b""))
        if self._taken > self._max_bytes:
            raise TooLarge(f"the body is over {self._max_bytes} bytes")
        more = message.get("more_body", False)
        if self.inflater is not None and message["type"] == "http.request":
            message = {**message, "body": await _inflated(self.inflater, message["body"])}
            if not more:
                self.inflater.end()
        return message


async def _inflated(inflater: Inflater, piece: bytes) -> bytes:
    if len(piece) <= _INLINE_BYTES:
        return inflater.feed(piece)
    return await asyncio.to_thread(inflater.feed, piece)
