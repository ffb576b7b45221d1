"""What gRPC's core does for the upstream, and what it does not: docs/decisions/0008-upstream-pool.md stands on these."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from grpc import aio

from gateway.errors import Unavailable
from gateway.settings import UpstreamSettings
from gateway.upstream.link import SERVICE, TritonLink
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


async def test_its_keepalive_finds_out_a_peer_that_is_gone_without_a_word() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends what a server's connection begins with, an empty SETTINGS frame, and then nothing."""
        writer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        while await reader.read(65_536):
            pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    link = TritonLink(address, UpstreamSettings(keepalive_s=1, channels=1), 1_000_000)
    try:
        with pytest.raises(Unavailable):
            await link.call("ModelInfer", b"", timeout_s=50)
    finally:
        await link.close()
        server.close()


async def test_it_finds_a_restarted_replica_by_itself() -> None:
    async with replicas(1) as (triton,):
        link = TritonLink(triton.address, UpstreamSettings(channels=1), 1_000_000)
        await link.call("ServerReady", b"", timeout_s=5)
        await triton.stop()
        with pytest.raises(Unavailable):
            await link.call("ServerReady", b"", timeout_s=5)
        await triton.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    await link.call("ServerReady", b"", timeout_s=5)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        await link.close()
        assert triton.asked[-1] == "ServerReady"
