"""Redis and PostgreSQL paused, killed and started again while four workers are under load."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from gateway.auth import migrations
from gateway.auth.administration import Administration, KeySpec
from gateway.auth.database import Database
from gateway.auth.keys import ApiKey
from gateway.call import Allowance, Scope
from tests.gateway import postgres_server, redis_server
from tests.gateway.postgres_server import PostgresServer
from tests.gateway.redis_server import RedisServer
from tests.running import ROOT, Server
from tests.worker import Worker, workers

_WORKERS = 4
# Little enough that a busy machine has the time for it.
_RATE = 20
_BURST_S = 0.2
_DEADLINE_S = 1.0
_CALLERS = 6
_SEVEN = (ROOT / "examples" / "seven.png").read_bytes()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server.running(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server.running() as started:
        yield started


@pytest.fixture(scope="module")
def database_url(postgres: PostgresServer) -> str:
    return postgres.create_database("faults")


@pytest.fixture(scope="module")
def gateway(
    server: Server, redis: RedisServer, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """Four of them before the shared server's Triton."""
    settings = {
        "AUTH__MODE": "keys",
        "AUTH__RECHECK_S": "1",
        "DATABASE__URL": database_url,
        "REDIS__URL": redis.url,
        "REDIS__RETRY_S": "0.2",
        "LIMITER__BURST_S": str(_BURST_S),
        "UPSTREAM__ADDRESS": server.triton_address(),
    }
    with workers(tmp_path_factory.mktemp("workers"), _WORKERS, **settings) as started:
        yield started


@dataclass(slots=True)
class Load:
    """Callers in a loop, each on a connection of its own; what came of their calls, and the longest."""

    address: str
    key: str
    statuses: list[int] = field(default_factory=list)
    longest_s: float = 0.0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._call()) for _ in range(_CALLERS)]
        try:
            yield
            ended = [task for task in tasks if task.done()]
            assert not ended, ended[0].exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def admitted(self, seconds: float) -> tuple[int, float]:
        """How many calls are let in within so many seconds, and how many there really were."""
        before, started = self.statuses.count(200), time.monotonic()
        await asyncio.sleep(seconds)
        return self.statuses.count(200) - before, time.monotonic() - started

    async def _call(self) -> None:
        headers = {"authorization": f"Bearer {self.key}", "x-tidegate-timeout-ms": str(int(_DEADLINE_S * 1_000))}
        url = f"http://{self.address}/v1/models/digits/classify?top_k=1"
        async with httpx.AsyncClient(headers=headers, timeout=30) as client:
            while True:
                started = time.monotonic()
                answer = await client.post(url, content=_SEVEN)
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                self.statuses.append(answer.status_code)
                if answer.is_success:
                    assert answer.json()["predictions"][0]["label"] == "7"
                else:
                    assert answer.status_code == 429, answer.text
                await asyncio.sleep(0.05)


async def _new_key(url: str, limits: Allowance) -> ApiKey:
    database = Database.at(url)
    try:
        spec = KeySpec("load", frozenset({Scope.INFER}), limits=limits)
        return await Administration(database).create_key("test", spec)
    finally:
        await database.close()


async def _settled(load: Load) -> None:
    """Wait until the stated rate is kept."""
    async with asyncio.timeout(30):
        while not _holds(*await load.admitted(2)):
            pass


def _holds(admitted: int, seconds: float) -> bool:
    """Within 10 % of the rate; what a burst holds may have been there."""
    return 0.9 * _RATE * seconds <= admitted <= 1.1 * (_RATE * seconds + _RATE * _BURST_S)


async def test_limits_and_answers_hold_through_redis_paused_killed_and_started_again(
    gateway: Worker, redis: RedisServer, database_url: str
) -> None:
    load = Load(gateway.http, (await _new_key(database_url, Allowance(requests_per_s=_RATE))).text)
    async with load.running():
        await _settled(load)
        for outage, recovery in (
            (lambda: redis.signal(signal.SIGSTOP), lambda: redis.signal(signal.SIGCONT)),
            (redis.kill, redis.start),
        ):
            await asyncio.to_thread(outage)
            # Each worker counts for itself: the callers are served on, and no more than the workers' rates together.
            admitted, seconds = await load.admitted(1)
            assert 0 < admitted <= _WORKERS * (_RATE * seconds + _RATE * _BURST_S)
            await asyncio.to_thread(recovery)
            # A worker goes on counting for itself until it has found Redis again.
            await _settled(load)
    assert set(load.statuses) == {200, 429}
    assert load.longest_s < _DEADLINE_S + 0.1


async def test_keys_in_use_are_served_through_postgresql_paused_killed_and_started_again(
    gateway: Worker, postgres: PostgresServer, database_url: str
) -> None:
    load = Load(gateway.http, (await _new_key(database_url, Allowance())).text)
    async with load.running():
        await load.admitted(1)
        for outage, recovery in (
            (lambda: postgres.signal(signal.SIGSTOP), lambda: postgres.signal(signal.SIGCONT)),
            (postgres.kill, postgres.start),
        ):
            await asyncio.to_thread(outage)
            admitted, _ = await load.admitted(1.5)
            assert admitted > 0
            unknown = await asyncio.to_thread(_asks_with, gateway, ApiKey.generate())
            assert unknown.status_code == 503 and "database" in unknown.json()["error"]
            await asyncio.to_thread(recovery)
        async with asyncio.timeout(10):
            while (await asyncio.to_thread(_asks_with, gateway, ApiKey.generate())).status_code != 401:
                await asyncio.sleep(0.1)
    assert set(load.statuses) == {200}
    assert load.longest_s < _DEADLINE_S + 0.1


def _asks_with(gateway: Worker, key: ApiKey) -> httpx.Response:
    return httpx.get(f"http://{gateway.http}/v2/models/digits", headers={"authorization": f"Bearer {key.text}"})
