"""Names are resolved again and again; replicas come and go with them."""

import asyncio
from collections.abc import Sequence

from gateway.upstream.membership import Membership, resolve
from tests.gateway.fakes import soon
from tests.gateway.test_upstream import ask
from tests.gateway.tritons import Figures, check, replicas, upstream


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
