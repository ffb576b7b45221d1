"""The way to one Triton: connections that are lost, and found again."""

import asyncio

import pytest

from gateway.settings import UpstreamSettings
from gateway.upstream.link import TritonLink
from gateway.upstream.meaning import ReplicaLost
from tests.gateway.tritons import replicas


async def test_keepalive_finds_out_a_peer_that_is_gone_without_a_word() -> None:
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
        with pytest.raises(ReplicaLost):
            await link.call("ModelInfer", b"", timeout_s=50)
    finally:
        await link.close()
        server.close()


async def test_a_restarted_replica_is_found_by_itself() -> None:
    async with replicas(1) as (triton,):
        link = TritonLink(triton.address, UpstreamSettings(channels=1), 1_000_000)
        await link.call("ServerReady", b"", timeout_s=5)
        await triton.stop()
        with pytest.raises(ReplicaLost):
            await link.call("ServerReady", b"", timeout_s=5)
        await triton.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    await link.call("ServerReady", b"", timeout_s=5)
                    break
                except ReplicaLost:
                    await asyncio.sleep(0.05)
        await link.close()
        assert triton.asked[-1] == "ServerReady"
