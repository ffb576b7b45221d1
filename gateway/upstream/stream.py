"""One ModelStreamInfer to Triton."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import aio

from gateway import wire
from gateway.errors import Unavailable
from gateway.ports import StreamAnswer
from gateway.upstream import meaning

_FINAL = "triton_final_response"
# A request that Triton refuses is refused within this time of being sent.
_REFUSED_S = 0.25


class TritonStream:
    """A stream on one connection, and so to one Triton."""

    def __init__(self, call: "aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call
        self._reading: asyncio.Future[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._sent_at = float("-inf")

    async def send(self, request: bytes) -> None:
        """Hand over a request; lost where the stream has ended, and whoever reads the answers learns why."""
        self._sent_at = self._loop.time()
        try:
            await self._call.write(request)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass

    async def done(self) -> None:
        """There are no more requests."""
        await self._call.done_writing()

    async def answers(self) -> AsyncIterator[StreamAnswer]:
        """Every response, until Triton ends the stream."""
        try:
            while isinstance(body := await self._read(), bytes):
                yield _answer(body)
        except aio.AioRpcError as error:
            raise meaning.of_status(error.code() or grpc.StatusCode.UNKNOWN, error.details() or "") from error

    async def end(self) -> None:
        """Cancel the stream; where a request was sent a moment ago, let it end by itself first.

        Triton 2.51 never lets go of a request that it refused when its stream was cancelled, nor of the model then.
        """
        try:
            async with asyncio.timeout_at(self._sent_at + _REFUSED_S):
                with contextlib.suppress(asyncio.InvalidStateError):  # It was said already.
                    await self.done()
                while isinstance(await self._read(), bytes):
                    pass
        except (TimeoutError, aio.AioRpcError, Unavailable):
            pass
        finally:
            self._call.cancel()
            if self._reading is not None:
                await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> Any:
        """The next message. gRPC cancels the whole stream with a read, so that a read outlives who waits for it."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        await asyncio.wait((self._reading,))
        reading, self._reading = self._reading, None
        if reading.cancelled():
            raise meaning.ReplicaLost("the inference server stopped answering")
        return reading.result()


def _answer(body: bytes) -> StreamAnswer:
    message, header = wire.read_stream_response(body)
    marked = header.parameters.get(_FINAL)
    # What Triton refuses before it reaches the model has no mark, and no more comes.
    final = marked is None or marked.bool_param
    error = meaning.of_stream_error(message, by_model=marked is not None) if message else None
    # A response of a model names the version by its number, even where it has no outputs.
    empty = final and not message and (not header.version or header.version.startswith(wire.REPEATED))
    return StreamAnswer(body, header.request_id, final, empty, error)
