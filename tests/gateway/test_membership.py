"""Names are resolved again and again; replicas come and go with them."""

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from gateway.upstream.membership import Membership, resolve
from tests.gateway.fakes import soon
from tests.gateway.test_upstream import ask
from tests.gateway.tritons import Figures, StandIn, check, replicas, upstream
from tests.worker import worker

# A command in a place where /etc/hosts is another file.
_WITH_HOSTS = ("unshare", "--mount", "--map-root-user", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


class Names:
    """A resolver that answers as told."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.away = False

    async def __call__(self, host: str, port: str) -> Sequence[str]:
        if self.away:
            raise OSError("no answer")
        return self.addresses


async def test_a_name_stands_for_all_its_addresses_and_keeps_them_while_it_does_not_resolve() -> None:
    names = Names("10.0.0.1:8001", "10.0.0.2:8001")
    membership = Membership(["dns:///triton:8001", "other:1"], 64, names)
    assert membership.resolves
    before = await membership.current()
    assert before == ["10.0.0.1:8001", "10.0.0.2:8001", "other:1"]
    names.away = True
    assert await membership.current() == before


async def test_no_more_replicas_than_allowed_are_used() -> None:
    assert await Membership(["a:1", "b:1", "c:1"], 2).current() == ["a:1", "b:1"]


async def test_this_machines_resolver_gives_addresses_to_connect_to() -> None:
    assert "127.0.0.1:8001" in await resolve("localhost", "8001")


async def test_a_replica_that_leaves_ends_its_calls_and_takes_no_more() -> None:
    figures = Figures()
    async with replicas(3) as three, upstream(three[:2], figures, refresh_s=0.01, slow_start_s=0) as up:
        names = Names(three[0].address, three[1].address)
        up._membership = Membership(["dns:///triton:8001"], 64, names)
        release = asyncio.Event()

        async def slow(request: bytes, context: object) -> bytes:
            await release.wait()
            return b"\x1a\x04last"

        three[0].infer = slow
        calls = [asyncio.create_task(ask(up, soon())) for _ in range(8)]
        while not three[0].inferences:
            await asyncio.sleep(0.01)
        names.addresses = (three[1].address, three[2].address)
        await up.find_replicas()
        await check(up)
        asked = three[0].inferences
        assert {await ask(up) for _ in range(40)} == {"b", "c"}
        assert three[0].inferences == asked
        release.set()
        assert "last" in await asyncio.gather(*calls)
        assert sorted(figures.up) == [0, 1, 2]


async def test_a_worker_follows_a_name_whose_addresses_change(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 triton.test\n")
    within = (*_WITH_HOSTS, str(hosts))
    if subprocess.run([*within, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets no one have a file system of its own")
    async with replicas(1) as (first,):
        port = first.address.rpartition(":")[2]
        second = StandIn("second")
        second.address = f"127.0.0.2:{port}"
        await second.start()
        settings = {"UPSTREAM__ADDRESS": f"dns:///triton.test:{port}", "UPSTREAM__RESOLVE_S": "0.05"}
        starting = worker(tmp_path, within=within, **settings)
        gateway = await asyncio.to_thread(starting.__enter__)
        try:
            async with aio.insecure_channel(gateway.grpc) as channel, asyncio.timeout(20):
                await _answered_by(channel, {"a"})
                hosts.write_text("127.0.0.1 triton.test\n127.0.0.2 triton.test\n")
                await _answered_by(channel, {"a", "second"})
                hosts.write_text("127.0.0.2 triton.test\n")
                await _answered_by(channel, {"second"})
                hosts.write_text("")
                asked = first.inferences
                for _ in range(20):
                    assert await _who_answers(channel) == "second"
                assert first.inferences == asked
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
            await second.stop()


async def _answered_by(channel: aio.Channel, names: set[str]) -> None:
    """Until calls are answered by these and no others."""
    while {await _who_answers(channel) for _ in range(20)} != names:
        pass


async def _who_answers(channel: aio.Channel) -> str:
    infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    request = ModelInferRequest(model_name="digits", raw_input_contents=[bytes(4)])
    request.inputs.add(name="x", datatype="INT32", shape=[1])
    answer = await infer(request.SerializeToString(), timeout=5)
    return str(ModelInferResponse.FromString(answer).id)
