"""One ModelStreamInfer to Triton."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import aio

from gateway import wire
from gateway.ports import StreamAnswer
from gateway.upstream import meaning

_FINAL = "triton_final_response"


class TritonStream:
    """A stream on one connection, and so to one Triton."""

    def __init__(self, call: "aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call

    async def send(self, request: bytes) -> None:
        """Hand over a request; lost where the stream has ended, and whoever reads the answers learns why."""
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
            async for body in self._call:
                yield _answer(body)
        except aio.AioRpcError as error:
            raise meaning.of_status(error.code() or grpc.StatusCode.UNKNOWN, error.details() or "") from error
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            raise meaning.ReplicaLost("the inference server stopped answering") from error


def _is_cancelled() -> bool:
    """Whether it is the caller that is cancelled, and not only its gRPC call."""
    task: asyncio.Task[Any] | None = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _answer(body: bytes) -> StreamAnswer:
    message, header = wire.read_stream_response(body)
    marked = header.parameters.get(_FINAL)
    # What Triton refuses before it reaches the model has no mark, and no more comes.
    final = marked is None or marked.bool_param
    error = meaning.of_stream_error(message, by_model=marked is not None) if message else None
    # A response of a model names the version by its number, even where it has no outputs.
    empty = final and not message and (not header.version or header.version.startswith(wire.REPEATED))
    return StreamAnswer(body, header.request_id, final, empty, error)
