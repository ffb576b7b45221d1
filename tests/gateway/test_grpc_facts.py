"""What gRPC's core does for the upstream, and what it does not: docs/decisions/0008-upstream-pool.md stands on these."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from grpc import aio

from gateway.upstream.link import SERVICE
from tests.gateway.tritons import StandIn, fails, hangs, replicas

_INFER = f"/{SERVICE}/ModelInfer"


async def _asked_with_retries(triton: StandIn, request: bytes) -> int:
    config = {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 2,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.01s",
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
    options = [("grpc.service_config", json.dumps(config))]
    async with aio.insecure_channel(triton.address, options=options) as channel:
        call: Any = channel.unary_unary(_INFER)
        with pytest.raises(aio.AioRpcError):
            await call(request)
    return triton.inferences


async def test_its_retry_policy_retries_what_is_small_and_nothing_of_an_images_size() -> None:
    async with replicas(2) as (small, large):
        small.infer = large.infer = fails(grpc.StatusCode.UNAVAILABLE, "stopping")
        assert await _asked_with_retries(small, b"x" * 1_000) == 2
        assert await _asked_with_retries(large, b"x" * 600_000) == 1


async def test_its_round_robin_goes_on_sending_to_a_replica_that_is_stuck() -> None:
    async with replicas(2) as (stuck, well):
        stuck.infer = hangs
        config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
        target = f"ipv4:{stuck.address},{well.address}"
        async with aio.insecure_channel(target, options=[("grpc.service_config", config)]) as channel:
            await channel.channel_ready()
            call: Any = channel.unary_unary(_INFER)
            while not stuck.inferences or not well.inferences:
                await asyncio.wait({asyncio.ensure_future(call(b"", timeout=5))}, timeout=0.05)
            before = stuck.inferences
            calls = [asyncio.ensure_future(call(b"", timeout=5)) for _ in range(20)]
            while stuck.inferences + well.inferences < 20 + before:
                await asyncio.sleep(0.01)
            assert stuck.inferences - before >= 8
            for each in calls:
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
