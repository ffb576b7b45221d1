"""Keys in memory while the database answers, is slow, or is away."""

import asyncio
from datetime import datetime

import pytest

from gateway.auth.keys import ApiKey
from gateway.auth.memory import KeyMemory
from gateway.auth.store import StoredKey
from gateway.call import Identity, Scope
from gateway.errors import Unavailable
from gateway.settings import AuthSettings
from tests.gateway.fakes import Clock

_SETTINGS = AuthSettings(recheck_s=2, grace_s=300, lookup_s=0.05, max_lookups=2, max_remembered=3)


def _key(revoked_at: datetime | None = None) -> StoredKey:
    key = ApiKey.generate()
    identity = Identity(f"key:{key.key_id}", frozenset({Scope.INFER}))
    return StoredKey(identity, key.secret_hash, None, None, None, revoked_at, blocked=False)


class Store:
    """A store that answers, or fails, or does not answer."""

    def __init__(self) -> None:
        self.keys: dict[str, StoredKey] = {}
        self.failing = False
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[str] = []

    async def find(self, key_id: str) -> StoredKey | None:
        self.asked.append(key_id)
        await self.open.wait()
        if self.failing:
            raise Unavailable("away")
        return self.keys.get(key_id)


@pytest.fixture
def keys() -> Store:
    return Store()


@pytest.fixture
def memory(keys: Store, clock: Clock) -> KeyMemory:
    return KeyMemory(keys, _SETTINGS, clock)  # type: ignore[arg-type]  # A double of the one class there is.


async def test_a_key_is_read_once_while_it_is_fresh(keys: Store, memory: KeyMemory, clock: Clock) -> None:
    keys.keys["a"] = _key()
    for clock.now in (0.0, 0.5, 0.9):
        assert await memory.find("a") is keys.keys["a"]
    assert keys.asked == ["a"]


async def test_a_key_in_use_is_read_again_without_a_wait(keys: Store, memory: KeyMemory, clock: Clock) -> None:
    old = keys.keys["a"] = _key()
    await memory.find("a")
    new = keys.keys["a"] = _key()
    clock.now = 1.5
    keys.open.clear()
    assert await memory.find("a") is old
    keys.open.set()
    while len(keys.asked) < 2 or await memory.find("a") is old:
        await asyncio.sleep(0)
    assert await memory.find("a") is new


async def test_calls_that_wait_for_one_key_ask_once(keys: Store, memory: KeyMemory) -> None:
    keys.keys["a"] = _key()
    keys.open.clear()
    first, *others = [asyncio.create_task(memory.find("a")) for _ in range(10)]
    await asyncio.sleep(0)
    first.cancel()
    keys.open.set()
    assert await asyncio.gather(*others) == [keys.keys["a"]] * 9
    assert keys.asked == ["a"]


async def test_a_key_seen_lately_works_while_the_database_is_away(keys: Store, memory: KeyMemory, clock: Clock) -> None:
    keys.keys["a"] = _key()
    await memory.find("a")
    keys.failing = True
    clock.now = 299
    assert await memory.find("a") is keys.keys["a"]
    clock.now = 301
    with pytest.raises(Unavailable, match="database"):
        await memory.find("a")
    keys.failing = False
    clock.now = 303
    assert await memory.find("a") is keys.keys["a"]


async def test_a_key_not_seen_is_the_databases_fault_while_it_is_away(keys: Store, memory: KeyMemory) -> None:
    keys.failing = True
    for _ in range(2):
        with pytest.raises(Unavailable, match="database"):
            await memory.find("a")
    assert keys.asked == ["a"], "while it is away it is asked once a second"


async def test_a_database_that_hangs_is_away(keys: Store, memory: KeyMemory, clock: Clock) -> None:
    keys.keys["a"] = _key()
    await memory.find("a")
    keys.open.clear()
    clock.now = 10
    assert await memory.find("a") is keys.keys["a"]
    with pytest.raises(Unavailable):
        await memory.find("b")


async def _others_run() -> None:
    """Until they wait for what the test holds back."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_guesses_do_not_hold_up_known_keys(keys: Store, memory: KeyMemory, clock: Clock) -> None:
    keys.keys["a"] = _key()
    await memory.find("a")
    keys.open.clear()
    guesses = [asyncio.create_task(memory.find(f"guess {number}")) for number in range(10)]
    await _others_run()
    assert len(keys.asked) == 1 + _SETTINGS.max_lookups
    clock.now = 3
    known = asyncio.create_task(memory.find("a"))
    await _others_run()
    assert keys.asked[-1] == "a"
    keys.open.set()
    assert await known is keys.keys["a"]
    assert await asyncio.gather(*guesses) == [None] * 10


async def test_the_memory_is_bounded(keys: Store, memory: KeyMemory) -> None:
    for number in range(10):
        assert await memory.find(str(number)) is None
    assert len(memory) == 3
