"""PostgreSQL paused, killed and started again under load: keys seen lately go on, and no call waits."""

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest

from gateway.auth import migrations
from gateway.auth.administration import Administration, KeySpec
from gateway.auth.authenticator import KeyAuthenticator
from gateway.auth.database import Database
from gateway.auth.keys import ApiKey
from gateway.auth.last_uses import LastUses
from gateway.auth.memory import KeyMemory
from gateway.auth.store import KeyStore
from gateway.call import Scope
from gateway.errors import GatewayError, Unavailable
from gateway.settings import AuthSettings
from tests.gateway import postgres_server
from tests.gateway.postgres_server import PostgresServer

_SETTINGS = AuthSettings(recheck_s=1, grace_s=60, lookup_s=0.3)
_INFER = frozenset({Scope.INFER})


@pytest.fixture
def failing() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own."""
    with postgres_server.running() as server:
        yield server


async def test_a_key_in_use_goes_on_through_a_pause_a_kill_and_a_new_start(failing: PostgresServer) -> None:
    url = await asyncio.to_thread(failing.create_database, "keys")
    await asyncio.to_thread(migrations.upgrade, url)
    database = Database.at(url)
    administration, store = Administration(database), KeyStore(database)
    uses = LastUses(store, 10, time.monotonic)
    memory = KeyMemory(store, _SETTINGS, time.monotonic)
    authenticator = KeyAuthenticator(memory, uses.note)
    key = await administration.create_key("t", KeySpec("used", _INFER))
    outcomes: set[str] = set()
    longest_s = 0.0

    async def call() -> None:
        nonlocal longest_s
        while True:
            started = time.monotonic()
            try:
                await authenticator.authenticate(key.text, Scope.INFER)
                outcomes.add("ok")
            except GatewayError as error:
                outcomes.add(error.kind.value)
            longest_s = max(longest_s, time.monotonic() - started)
            await asyncio.sleep(0.005)

    callers = [asyncio.create_task(call()) for _ in range(4)]
    await asyncio.sleep(0.5)
    failing.signal(signal.SIGSTOP)
    await asyncio.sleep(2)
    with pytest.raises(Unavailable, match="database"):
        await authenticator.authenticate(ApiKey.generate().text, Scope.INFER)
    await asyncio.wait_for(uses.write(), 60)
    failing.signal(signal.SIGCONT)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(failing.kill)
    await asyncio.sleep(1)
    await asyncio.to_thread(failing.start)
    assert outcomes == {"ok"}
    await _until_revoked(administration, authenticator, key)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    # What could not be written while it was away is written when it is back.
    await uses.write()
    (summary,) = await administration.keys()
    assert summary.last_used_at is not None
    await memory.close()
    await database.close()
    # A key in use is read before it must be, so that not even the first call of an outage waits; the time is for a busy
    # machine, and well under what the driver takes to leave a connection that hangs.
    assert longest_s < 1


async def _until_revoked(administration: Administration, authenticator: KeyAuthenticator, key: ApiKey) -> None:
    """Revoke a key, and wait until it is refused: within 5 s."""
    async with asyncio.timeout(10):
        while True:
            try:
                await administration.revoke_key("t", key.key_id)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        while True:
            try:
                await authenticator.authenticate(key.text, Scope.INFER)
            except GatewayError:
                return
            await asyncio.sleep(0.05)
