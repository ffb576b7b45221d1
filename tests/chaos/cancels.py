"""Callers that change their minds, wherever their call is."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc import aio
from tritonclient.grpc.service_pb2 import ModelInferRequest

from tests.chaos.idle import HELD_UP_MS, Idle
from tests.chaos.row import Row
from tests.chaos.stage import until
from tests.gateway.tritons import StandIn, replicas
from tests.worker import Worker, worker

_PLACES = 4
_QUEUED = 20
_MOST_MS = 50.0

_Ask = Callable[[str], Coroutine[Any, Any, object]]


class _Held:
    """What stand-ins hold: by request id when each call ended there."""

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.ended: dict[str, float] = {}

    async def infer(self, request: bytes, context: "aio.ServicerContext[bytes, bytes]") -> bytes:
        """Never answers."""
        name = ModelInferRequest.FromString(request).id
        self.begun.add(name)
        try:
            await asyncio.Event().wait()
        finally:
            self.ended[name] = time.monotonic()
        raise AssertionError


async def cancelled(directory: Path, times: int, control: Idle) -> Row:
    """Cancel calls and streams at Triton, and calls in the queue, over gRPC and REST."""
    row = Row("callers that cancel", "what they caused upstream is cancelled within 50 ms, and begun no more")
    held = _Held()
    places = {f"CONCURRENCY__{name}": str(_PLACES) for name in ("FLOOR", "INITIAL", "CEILING")}
    directory.mkdir(parents=True, exist_ok=True)
    async with replicas(2) as tritons:
        for triton in tritons:
            triton.infer = triton.stream = held.infer
        address = ",".join(triton.address for triton in tritons)
        starting = worker(directory, UPSTREAM__ADDRESS=address, **places)
        gateway = await asyncio.to_thread(starting.__enter__)
        try:
            await _measure(row, gateway, held, tritons, times, control)
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
    return row


async def _measure(row: Row, gateway: Worker, held: _Held, tritons: list[StandIn], times: int, control: Idle) -> None:
    async with aio.insecure_channel(gateway.grpc) as channel:
        async with httpx.AsyncClient(base_url=f"http://{gateway.http}", timeout=30, trust_env=False) as client:
            unary: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

            async def over_grpc(name: str) -> object:
                return await unary(_request(name).SerializeToString(), timeout=30)

            async def over_rest(name: str) -> object:
                tensor = {"name": "x", "datatype": "INT32", "shape": [1], "data": [1]}
                return await client.post("/v2/models/digits/infer", json={"id": name, "inputs": [tensor]})

            async def in_a_stream(name: str) -> object:
                call: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(timeout=30)
                await call.write(_request(name).SerializeToString())
                return await call.read()

            ways: dict[str, _Ask] = {"grpc": over_grpc, "rest": over_rest, "stream": in_a_stream}
            for way, ask in ways.items():
                judged, not_judged, missed = await _cancel_each(held, ask, way, times, control)
                worst = max(judged, default=0.0)
                row.figures[f"{way}_calls"] = len(judged)
                row.figures[f"{way}_median_ms"] = round(sorted(judged)[len(judged) // 2], 1) if judged else 0.0
                row.figures[f"{way}_worst_ms"] = round(worst, 1)
                row.figures[f"{way}_held_up_and_not_judged"] = len(not_judged)
                row.figures[f"{way}_worst_of_these_ms"] = round(max(not_judged, default=0.0), 1)
                row.need(not missed, f"{way}: {missed} calls were not cancelled upstream")
                row.need(worst <= _MOST_MS, f"{way}: slower than 50 ms: {worst:.0f}")
                row.need(len(judged) + missed >= times, f"{way}: slower: the machine let {len(judged)} be judged")
            await _cancel_queued(row, held, over_grpc, tritons)


async def _cancel_each(
    held: _Held, ask: _Ask, way: str, times: int, control: Idle
) -> tuple[list[float], list[float], int]:
    """Milliseconds of as many cancellations as asked for; of those made beside these, as the machine held them up; how many did
    not come."""
    judged: list[float] = []
    not_judged: list[float] = []
    missed = 0
    while len(judged) + missed < times and len(not_judged) < 2 * times:
        began, ended = await _cancel_one(held, ask, f"{way} {len(judged) + len(not_judged) + missed}")
        if ended is None:
            missed += 1
        elif control.late_ms(began, ended) > HELD_UP_MS:
            not_judged.append((ended - began) * 1_000)
        else:
            judged.append((ended - began) * 1_000)
    return judged, not_judged, missed


async def _cancel_one(held: _Held, ask: _Ask, name: str) -> tuple[float, float | None]:
    """When it was cancelled, and when that came to its end upstream; None where it did not."""
    call = asyncio.create_task(ask(name))
    await until(lambda: name in held.begun, 5, every_s=0.001)
    await asyncio.sleep(random.random() / 20)
    at = time.monotonic()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await until(lambda: name in held.ended, 5)
    return at, held.ended.get(name)


async def _cancel_queued(row: Row, held: _Held, ask: _Ask, tritons: list[StandIn]) -> None:
    """Cancel those that wait for a turn, then those that have one."""
    working = [asyncio.create_task(ask(f"working {number}")) for number in range(_PLACES)]
    await until(lambda: sum(name.startswith("working") for name in held.begun) == _PLACES, 5)
    waiting = [asyncio.create_task(ask(f"waiting {number}")) for number in range(_QUEUED)]
    await asyncio.sleep(0.5)
    await _end(waiting)
    await asyncio.sleep(0.1)
    await _end(working)
    await until(lambda: sum(name.startswith("working") for name in held.ended) == _PLACES, 5)
    reached = sum(name.startswith("waiting") for name in held.begun)
    row.figures |= {"queued_calls": _QUEUED, "queued_that_reached_triton": reached}
    row.need(not reached, f"{reached} calls reached Triton that were cancelled while they waited")
    for triton in tritons:
        triton.infer = None
    answers = await asyncio.gather(*(ask(f"after {number}") for number in range(_PLACES)), return_exceptions=True)
    failed = sum(isinstance(answer, grpc.RpcError) for answer in answers)
    row.need(not failed, f"{failed} calls failed afterwards")


async def _end(calls: list["asyncio.Task[object]"]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


def _request(name: str) -> ModelInferRequest:
    request = ModelInferRequest(model_name="digits", id=name, raw_input_contents=[bytes(4)])
    request.inputs.add(name="x", datatype="INT32", shape=[1])
    return request
