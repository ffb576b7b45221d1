"""Sequences and streams under the same faults: what is lost is said, and nothing else is."""

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
from grpc import aio
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse

from tests.chaos.row import Row
from tests.chaos.stage import Stage, staged, until
from tests.conformance import models

_SERVICE = "/inference.GRPCInferenceService/"
_SEQUENCES = 12
_STREAMS = 8
# Triton waits for sequences that nobody ends.
SETTINGS = {"TRITON__EXIT_TIMEOUT_S": "1"}


def write(repository: Path) -> None:
    """A model of sequences, and one of streams."""
    models.write(repository)
    for name in models.names():
        if name not in ("accumulate", "repeat"):
            shutil.rmtree(repository / name)
    config = repository / "accumulate" / "config.pbtxt"
    many = "sequence_batching { oldest { max_candidate_sequences: 32 }"
    config.write_text(config.read_text().replace("sequence_batching {", many))


async def broken_off(where: Path | Stage, fault: str) -> Row:
    """A fault while sequences and streams are on both replicas.

    Args:
        fault: SIGKILL or SIGSTOP of one replica.
    """
    row = Row(
        f"{fault} of one replica, sequences and streams on both",
        "those of the other replica go on; the rest end as UNAVAILABLE and can begin again; none is answered without its "
        "state",
    )
    async with staged(where, write, **SETTINGS) as stage, aio.insecure_channel(stage.server.grpc) as channel:
        callers = _Callers(channel, stage)
        homes = [await callers.step(number, 1, starts=True) for number in range(_SEQUENCES)]
        streams = [asyncio.create_task(callers.stream(number)) for number in range(_STREAMS)]
        await asyncio.sleep(1)
        triton = stage.tritons()[1]
        before = stage.server.log.count("replica is out")
        triton.kill() if fault == "SIGKILL" else triton.suspend()
        try:
            out = await until(lambda: stage.server.log.count("replica is out") > before, 10)
            steps = [await callers.step(number, 1) for number in range(_SEQUENCES)]
            begun = [await callers.step(number, 5, starts=True) for number, step in enumerate(steps) if step != "2"]
            ended = await asyncio.gather(*streams)
        finally:
            if fault == "SIGSTOP":
                triton.resume()
        row.figures = {
            "replica_out_after_s": out,
            "sequences": _SEQUENCES,
            "went_on": steps.count("2"),
            "told_unavailable": steps.count("UNAVAILABLE"),
            "began_again": begun.count("5"),
            "streams": _STREAMS,
            "streams_went_on": ended.count("OK"),
            "streams_told_unavailable": ended.count("UNAVAILABLE"),
        }
        row.need(homes == ["1"] * _SEQUENCES, f"sequences began as {homes}")
        row.need(set(steps) <= {"2", "UNAVAILABLE"}, f"sequences were told {steps}")
        row.need(0 < steps.count("2") < _SEQUENCES, "not both replicas had sequences")
        row.need(begun == ["5"] * len(begun), f"sequences began again as {begun}")
        row.need(set(ended) <= {"OK", "UNAVAILABLE"}, f"streams ended as {ended}")
        row.need(0 < ended.count("OK") < _STREAMS, "not both replicas had streams")
    return row


async def handed_over(directory: Path) -> Row:
    """SIGTERM of one gateway worker of two, with sequences and streams on both."""
    row = Row("SIGTERM of one worker, sequences and streams on both", "every sequence and every stream goes on")
    async with staged(directory, write, WORKERS="2", **SETTINGS) as stage, AsyncExitStack() as stack:
        callers = []
        for number in range(_STREAMS):
            options = [("grpc.use_local_subchannel_pool", 1), ("tidegate.connection", number)]
            channel = await stack.enter_async_context(aio.insecure_channel(stage.server.grpc, options=options))
            callers.append(_Callers(channel, stage))
        homes = [await each.step(number, 1, starts=True) for number, each in enumerate(callers)]
        streams = [asyncio.create_task(each.stream(number)) for number, each in enumerate(callers)]
        await asyncio.sleep(1)
        worker = stage.workers()[0]
        worker.terminate()
        steps = [await each.step(number, 1) for number, each in enumerate(callers)]
        ended = await asyncio.gather(*streams)
        gone = await until(lambda: not worker.is_running() or worker.status() == "zombie", 20)
        after = [await each.step(number, 1) for number, each in enumerate(callers)]
        row.figures = {
            "sequences": len(homes),
            "went_on": after.count("3"),
            "streams": _STREAMS,
            "streams_went_on": ended.count("OK"),
        }
        row.need(homes == ["1"] * _STREAMS, f"sequences began as {homes}")
        row.need(steps == ["2"] * _STREAMS and after == ["3"] * _STREAMS, f"sequences were told {steps}, then {after}")
        row.need(ended == ["OK"] * _STREAMS, f"streams ended as {ended}")
        row.need(gone is not None, "the worker did not end")
    return row


class _Callers:
    def __init__(self, channel: aio.Channel, stage: Stage) -> None:
        self._infer: Any = channel.unary_unary(_SERVICE + "ModelInfer")
        self._stream: Any = channel.stream_stream(
            _SERVICE + "ModelStreamInfer", ModelInferRequest.SerializeToString, ModelStreamInferResponse.FromString
        )
        self._metadata = (("authorization", f"Bearer {stage.keys['standard']}"),)

    async def step(self, sequence: int, x: int, *, starts: bool = False) -> str:
        """The total after adding to a sequence, or the status."""
        request = ModelInferRequest(model_name="accumulate", raw_input_contents=[np.int32(x).tobytes()])
        request.inputs.add(name="x", datatype="INT32", shape=[1, 1])
        request.parameters["sequence_id"].int64_param = sequence + 1
        request.parameters["sequence_start"].bool_param = starts
        try:
            answer = await self._infer(request.SerializeToString(), timeout=1, metadata=self._metadata)
        except aio.AioRpcError as error:
            return str(error.code().name)
        return str(np.frombuffer(ModelInferResponse.FromString(answer).raw_output_contents[0], np.int32)[0])

    async def stream(self, number: int) -> str:
        """How a stream of 30 answers, ten a second, ended."""
        request = ModelInferRequest(model_name="repeat", id=str(number))
        for name, value in {"times": 30, "wait_ms": 100}.items():
            request.inputs.add(name=name, datatype="INT32", shape=[1])
            request.raw_input_contents.append(np.int32(value).tobytes())
        seen = 0
        try:
            async for _ in self._stream(iter([request]), timeout=20, metadata=self._metadata):
                seen += 1
        except aio.AioRpcError as error:
            return str(error.code().name)
        return "OK" if seen == 30 else f"{seen} answers"
