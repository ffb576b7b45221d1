"""One ModelStreamInfer to Triton."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
from grpc import aio

from gateway import wire
from gateway.errors import Unavailable
from gateway.ports import StreamAnswer
from gateway.upstream import meaning

_FINAL = "triton_final_response"
# A request that Triton refuses is refused within this time of being sent, and its answer is here within this time.
_REFUSED_S, _HEARD_S = 0.03, 0.01
# For what Triton has under way in a stream that is not to be cancelled.
GRACE_S = 10.0


class TritonStream:
    """A stream on one connection, and so to one Triton."""

    def __init__(self, call: "aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call
        self._reading: asyncio.Future[Any] | None = None
        self._writing: asyncio.Future[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._sent_at = float("-inf")
        self._under_way = 0
        self._refused = False
        self._no_more = False
        self._told = False

    async def send(self, request: bytes) -> None:
        """Hand over a request; lost where the stream has ended, and whoever reads the answers learns why."""
        self._sent_at = self._loop.time()
        self._under_way += 1
        try:
            await self._write(self._call.write(request))
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass

    async def done(self) -> None:
        """There are no more requests.

        Triton is told when it has answered all of them: 2.51 aborts when a stream is cancelled in which it was told before.
        """
        self._no_more = True
        await self._tell()

    async def answers(self) -> AsyncIterator[StreamAnswer]:
        """Every response, until Triton ends the stream."""
        try:
            while isinstance(body := await self._read(), bytes):
                answer = self._answer(body)
                await self._tell()
                yield answer
        except aio.AioRpcError as error:
            raise meaning.of_status(error.code() or grpc.StatusCode.UNKNOWN, error.details() or "") from error

    async def end(self) -> None:
        """Cancel what is under way; a stream in which nothing is, or in which Triton refused a request, ends by itself.

        Triton 2.51 never lets go of a request that it refused once its stream is cancelled, be it much later, nor of the
        model then. A stream that is told that there are no more requests lets go of all of them.
        """
        now = self._loop.time()
        # When it is known that nothing was refused.
        heard_at = max(self._sent_at + _REFUSED_S, now + _HEARD_S)
        try:
            async with asyncio.timeout_at(heard_at if self._to_cancel else now + GRACE_S) as patience:
                if self._writing is not None:
                    await asyncio.wait((self._writing,))
                await self.done()
                while isinstance(body := await self._read(), bytes):
                    self._answer(body)
                    await self._tell()
                    if not self._to_cancel:
                        patience.reschedule(now + GRACE_S)
        except (TimeoutError, aio.AioRpcError, Unavailable):
            pass
        finally:
            self._call.cancel()
            left = [each for each in (self._reading, self._writing) if each is not None]
            await asyncio.gather(*left, return_exceptions=True)

    @property
    def _to_cancel(self) -> bool:
        return self._under_way > 0 and not self._refused

    async def _tell(self) -> None:
        if self._no_more and self._under_way <= 0 and not self._told:
            self._told = True
            await self._write(self._call.done_writing())

    async def _write(self, writing: Coroutine[Any, Any, None]) -> None:
        """gRPC cancels the whole stream with a write, so that a write outlives who waits for it."""
        self._writing = asyncio.ensure_future(writing)
        await asyncio.shield(self._writing)

    async def _read(self) -> Any:
        """The next message. gRPC cancels the whole stream with a read, so that a read outlives who waits for it."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        await asyncio.wait((self._reading,))
        reading, self._reading = self._reading, None
        if reading.cancelled():
            raise meaning.ReplicaLost("the inference server stopped answering")
        return reading.result()

    def _answer(self, body: bytes) -> StreamAnswer:
        message, header = wire.read_stream_response(body)
        marked = header.parameters.get(_FINAL)
        # What Triton refuses before it reaches the model has no mark, and no more comes.
        final = marked is None or marked.bool_param
        self._under_way -= final
        self._refused = self._refused or marked is None
        error = meaning.of_stream_error(message, by_model=marked is not None) if message else None
        # A response of a model names the version by its number, even where it has no outputs.
        empty = final and not message and (not header.version or header.version.startswith(wire.REPEATED))
        return StreamAnswer(body, header.request_id, final, empty, error)
