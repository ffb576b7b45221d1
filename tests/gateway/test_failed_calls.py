"""What a call sent is let go of when it fails, and not when somebody looks for garbage."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from grpc import aio
from tritonclient.grpc.service_pb2 import ModelInferRequest

from tests.gateway.tritons import Infer, fails, hangs, replicas
from tests.worker import Worker, worker

_BODY = bytes(3_000_000)
_CALLS = 40
# Of the 120 MB that were sent, before so many calls are of interest to the collector.
_KEPT_MIB = 40

_Ask = Callable[[Worker], Awaitable[None]]


async def _over_grpc(gateway: Worker, timeout: float = 10.0) -> None:
    request = ModelInferRequest(model_name="digits", raw_input_contents=[_BODY])
    request.inputs.add(name="x", datatype="UINT8", shape=[1, len(_BODY)])
    body = request.SerializeToString()
    async with aio.insecure_channel(gateway.grpc) as channel:
        infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(_CALLS):
            with pytest.raises(aio.AioRpcError):
                await infer(body, timeout=timeout)


async def _whose_deadline_is_over_grpc(gateway: Worker) -> None:
    await _over_grpc(gateway, 0.1)


async def _over_rest(gateway: Worker, **headers: str) -> None:
    size = len(_BODY)
    tensor = {"name": "x", "datatype": "UINT8", "shape": [1, size], "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    async with httpx.AsyncClient(base_url=f"http://{gateway.http}", trust_env=False) as client:
        for _ in range(_CALLS):
            answer = await client.post(
                "/v2/models/digits/infer",
                content=head + _BODY,
                headers={"inference-header-content-length": str(len(head)), **headers},
            )
            assert answer.is_error, answer.text


async def _whose_deadline_is_over_rest(gateway: Worker) -> None:
    await _over_rest(gateway, **{"x-tidegate-timeout-ms": "100"})


@pytest.mark.parametrize(
    ("infer", "ask"),
    [
        (fails(grpc.StatusCode.INVALID_ARGUMENT, "no"), _over_grpc),
        (fails(grpc.StatusCode.INVALID_ARGUMENT, "no"), _over_rest),
        (hangs, _whose_deadline_is_over_grpc),
        (hangs, _whose_deadline_is_over_rest),
    ],
)
async def test_a_failed_call_keeps_nothing_of_its_body(infer: Infer, ask: _Ask, tmp_path: Path) -> None:
    async with replicas(1) as (triton,):
        triton.infer = infer
        starting = worker(tmp_path, UPSTREAM__ADDRESS=triton.address)
        gateway = await asyncio.to_thread(starting.__enter__)
        try:
            process = psutil.Process(gateway.pid)
            await ask(gateway)
            before = process.memory_info().rss
            await ask(gateway)
            assert process.memory_info().rss - before < _KEPT_MIB << 20
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)


async def test_a_caller_that_goes_when_a_large_body_has_come_is_seen(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def held(request: bytes, context: "aio.ServicerContext[bytes, bytes]") -> bytes:
        begun.set()
        try:
            return await hangs(request, context)
        finally:
            ended.set()

    async with replicas(1) as (triton,):
        triton.infer = held
        starting = worker(tmp_path, UPSTREAM__ADDRESS=triton.address)
        gateway = await asyncio.to_thread(starting.__enter__)
        try:
            asked = asyncio.create_task(_over_rest(gateway))
            async with asyncio.timeout(10):
                await begun.wait()
                asked.cancel()
                await ended.wait()
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
