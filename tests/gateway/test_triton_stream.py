"""One stream to Triton: when it is told that there are no more requests, and when it is cancelled."""

import asyncio
from typing import cast

from grpc import aio
from tritonclient.grpc.service_pb2 import ModelStreamInferResponse

from gateway.upstream.stream import TritonStream


class FakeCall:
    """gRPC's side of a stream."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def write(self, request: bytes) -> None:
        self.done.append("write")

    async def done_writing(self) -> None:
        self.done.append("no more")

    async def read(self) -> bytes:
        return await self.answers.get()

    def cancel(self) -> bool:
        self.done.append("cancel")
        self.answers.put_nowait(b"")
        return True


def _stream(call: FakeCall) -> TritonStream:
    return TritonStream(cast("aio.StreamStreamCall[bytes, bytes]", call))


def _answer(*, final: bool) -> bytes:
    response = ModelStreamInferResponse()
    response.infer_response.parameters["triton_final_response"].bool_param = final
    return bytes(response.SerializeToString())


async def test_triton_is_told_that_there_are_no_more_when_it_has_answered_all() -> None:
    call = FakeCall()
    stream = _stream(call)
    await stream.send(b"")
    await stream.done()
    answers = stream.answers()
    for final in (False, True):
        assert call.done == ["write"]
        call.answers.put_nowait(_answer(final=final))
        assert (await anext(answers)).final is final
    assert call.done == ["write", "no more"]


async def test_a_stream_that_is_cancelled_was_not_told_that_there_are_no_more() -> None:
    call = FakeCall()
    stream = _stream(call)
    await stream.send(b"")
    await stream.done()
    await stream.end()
    assert call.done == ["write", "cancel"]


async def test_a_stream_with_nothing_under_way_is_told_so() -> None:
    call = FakeCall()
    stream = _stream(call)
    await stream.done()
    assert call.done == ["no more"]
