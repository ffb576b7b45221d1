"""A caller's stream, as streams to one Triton."""

import asyncio
from collections.abc import AsyncIterator, Callable

from gateway.errors import GatewayError
from gateway.ports import StreamAnswer
from gateway.upstream.stream import TritonStream


class TritonStreams:
    """One stream for the requests of decoupled models and one for the others, each opened by its first request.

    Triton 2.51 aborts where both answer in one: it writes the answers of either kind in its own way, at the same time.
    """

    def __init__(self, open_stream: Callable[[], TritonStream]) -> None:
        self._open_stream = open_stream
        self._opened: dict[bool, TritonStream] = {}
        self._reading: list[asyncio.Task[None]] = []
        self._no_more = False
        # An answer, or how a stream ended. Of one, because who reads no answers is to hold up Triton.
        self._came: asyncio.Queue[StreamAnswer | GatewayError | None] = asyncio.Queue(1)

    async def send(self, request: bytes, decoupled: bool) -> None:
        """Hand over a request; lost where its stream has ended, and whoever reads the answers learns why."""
        if decoupled not in self._opened:
            stream = self._opened[decoupled] = self._open_stream()
            self._reading.append(asyncio.create_task(self._read(stream)))
        await self._opened[decoupled].send(request)

    async def done(self) -> None:
        """There are no more requests."""
        self._no_more = True
        if not self._opened:
            await self._came.put(None)
        for stream in self._opened.values():
            await stream.done()

    async def answers(self) -> AsyncIterator[StreamAnswer]:
        """Every response, until Triton ends the streams, or one of them too early."""
        ended = 0
        while not self._no_more or ended < len(self._opened):
            came = await self._came.get()
            if isinstance(came, StreamAnswer):
                yield came
            elif came is not None:
                raise came
            elif self._no_more:
                ended += 1
            else:
                return

    async def end(self) -> None:
        """Cancel what is under way, or have it end."""
        for reading in self._reading:
            reading.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        self._reading.clear()  # What they ended with holds this.
        await asyncio.gather(*(stream.end() for stream in self._opened.values()))

    async def _read(self, stream: TritonStream) -> None:
        try:
            async for answer in stream.answers():
                await self._came.put(answer)
        except GatewayError as error:
            await self._came.put(error)
        else:
            await self._came.put(None)
