"""Calls under way on a connection to Triton, and how they end."""

import asyncio

import grpc

from gateway.http2 import frames
from gateway.http2.sending import Outgoing


class CallLost(Exception):
    """A call has no answer because of its connection, or was given up."""


class CallFailed(Exception):
    """A call ended with a status other than OK.

    Attributes:
        code: The server's, or the one that gRPC's clients give to what happened.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class PendingCall:
    """A call whose answer is awaited, and what came of it."""

    __slots__ = ("answer", "outgoing", "parts", "received", "window")

    def __init__(self, answer: "asyncio.Future[bytes]", outgoing: Outgoing | None, window: int) -> None:
        self.answer = answer
        self.outgoing = outgoing
        self.window = window
        self.parts: list[bytes] = []
        self.received = 0

    def fail(self, error: Exception) -> None:
        """It has no answer; nothing happens where it already ended."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def complete(self) -> None:
        """All that came is the answer; nothing happens where it already ended."""
        if self.answer.done():
            return
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        size = len(body) - frames.MESSAGE.size
        if size < 0 or frames.MESSAGE.unpack_from(body) != (0, size):
            self.fail(CallFailed(grpc.StatusCode.INTERNAL, "the answer is not one uncompressed message"))
        else:
            self.answer.set_result(body[frames.MESSAGE.size :])
