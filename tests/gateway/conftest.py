"""Real databases, shared by the tests of a session."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.auth import migrations
from gateway.auth.administration import Administration
from gateway.auth.database import Database
from gateway.auth.store import KeyStore
from tests.gateway import postgres_server, redis_server
from tests.gateway.fakes import Clock
from tests.gateway.postgres_server import PostgresServer
from tests.gateway.redis_server import RedisServer

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Tests share it: each makes a database of its own."""
    with postgres_server.running() as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Tests share it: each names its own accounts."""
    with redis_server.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, that it may pause and kill."""
    with redis_server.running(tmp_path) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database(f"test_{next(_numbers)}")


@pytest.fixture
def url(empty_url: str) -> str:
    """A database with the newest schema."""
    migrations.upgrade(empty_url)
    return empty_url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database.at(url)
    yield database
    await database.close()


@pytest.fixture
def administration(database: Database) -> Administration:
    return Administration(database)


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
def clock() -> Clock:
    return Clock()
