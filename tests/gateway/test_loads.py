"""Loads on one machine and on several."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.cache.loads import REDIS_KEY, MachineLoads, SharedLoads
from gateway.redis_link import RedisLink
from gateway.settings import RedisSettings
from tests.gateway.redis_server import RedisServer


def test_all_workers_of_a_machine_know_at_once(tmp_path: Path) -> None:
    workers = [MachineLoads(tmp_path / "loads") for _ in range(3)]
    before = workers[0].current
    assert [worker.current for worker in workers] == [before] * 3
    workers[1].advance()
    assert {worker.current for worker in workers} == {workers[1].current} != {before}
    successor = MachineLoads(tmp_path / "loads")
    assert successor.current == workers[1].current
    for worker in [*workers, successor]:
        worker.close()


def test_a_file_that_is_damaged_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "loads").write_bytes(b"cut")
    loads = MachineLoads(tmp_path / "loads")
    assert len(loads.current) == 16
    loads.close()


Machine = Callable[[str], SharedLoads]


@pytest.fixture
async def link(redis: RedisServer) -> AsyncIterator[RedisLink]:
    # A busy machine may take longer than the settings allow.
    settings = RedisSettings(url=SecretStr(redis.url)).model_copy(update={"timeout_s": 10.0})
    made = RedisLink(settings, "tested", time.monotonic)
    await made.client.delete(REDIS_KEY)
    yield made
    await made.close()


@pytest.fixture
def machine(tmp_path: Path, link: RedisLink) -> Machine:
    """One more worker of the machine of a name."""
    return lambda name: SharedLoads(MachineLoads(tmp_path / name), link, lease_s=60)


async def test_a_load_on_one_machine_is_the_others_with_the_next_agreement(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    await here.agree()
    await there.agree()
    agreed = there.current
    assert here.current == agreed
    here.advance()
    assert here.current != agreed, "at once where it is known"
    await here.agree()
    await there.agree()
    assert there.current == here.current != agreed
    settled = here.current
    for loads in (here, there, here):
        await loads.agree()
    assert {here.current, there.current} == {settled}, "and it stays"


async def test_loads_on_two_machines_at_once_end_in_one_number_that_is_new(machine: Machine) -> None:
    machines = [machine("a"), machine("a"), machine("b"), machine("b")]
    used = set()
    for number in (0, 2):
        machines[number].advance()
        used.add(machines[number].current)
    for _ in range(3):
        for loads in machines:
            await loads.agree()
    assert len({loads.current for loads in machines}) == 1
    assert machines[0].current not in used


async def test_a_worker_that_comes_new_takes_what_the_others_agreed_on(machine: Machine) -> None:
    old = machine("old")
    old.advance()
    await old.agree()
    agreed = old.current
    new = machine("new")
    await new.agree()
    assert new.current == old.current == agreed


async def test_where_nobody_watched_nothing_is_good_any_more(machine: Machine, link: RedisLink) -> None:
    loads = machine("here")
    await loads.agree()
    before = loads.current
    assert 0 < await link.client.pttl(REDIS_KEY) <= 60_000
    await link.client.delete(REDIS_KEY)  # As when its time is over, or Redis began anew.
    await loads.agree()
    assert loads.current != before


@pytest.mark.parametrize("damage", [b"short", b"long" * 100])
async def test_a_number_that_is_damaged_is_replaced(machine: Machine, link: RedisLink, damage: bytes) -> None:
    loads = machine("here")
    await link.client.set(REDIS_KEY, damage)
    await loads.agree()
    assert await link.client.get(REDIS_KEY) == loads.current != damage
    await link.client.delete(REDIS_KEY)
    await link.client.rpush(REDIS_KEY, "a list")
    await loads.agree()
    assert await link.client.get(REDIS_KEY) == loads.current


async def test_a_redis_that_goes_back_in_time_brings_no_number_back(machine: Machine, link: RedisLink) -> None:
    loads = machine("here")
    await loads.agree()
    before = loads.current
    loads.advance()
    await loads.agree()
    await link.client.set(REDIS_KEY, before)
    for _ in range(2):
        await loads.agree()
    assert loads.current == await link.client.get(REDIS_KEY) != before


async def test_what_could_not_be_told_is_told_later(tmp_path: Path, redis: RedisServer, machine: Machine) -> None:
    absent = RedisLink(RedisSettings(url=SecretStr("redis://127.0.0.1:1/0")), "tested", time.monotonic)
    alone = SharedLoads(MachineLoads(tmp_path / "here"), absent, lease_s=60)
    there = machine("there")
    await there.agree()
    before = there.current
    alone.advance()
    await alone.agree()
    sibling = machine("here")  # Redis is back.
    await sibling.agree()
    await there.agree()
    assert alone.current == sibling.current == there.current != before
    await absent.close()
