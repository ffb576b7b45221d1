"""The one database of identities: SQLite or PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from gateway.errors import Unavailable

_CONNECT_S = 5.0
_COMMAND_S = 10.0

# While it connects, asyncpg's own errors come as they are; later SQLAlchemy wraps them.
DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


def create_engine(url: str) -> AsyncEngine:
    """An engine whose waits are bounded."""
    bounds: dict[str, float] = {}
    if make_url(url).get_driver_name() == "asyncpg":
        bounds = {"timeout": _CONNECT_S, "command_timeout": _COMMAND_S}
    return create_async_engine(url, pool_pre_ping=True, pool_timeout=_CONNECT_S, connect_args=bounds)


class Database:
    """Sessions over one pool of connections. What goes wrong with it is Unavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    @classmethod
    def at(cls, url: str) -> Self:
        """Over a database whose schema is up to date."""
        return cls(create_engine(url))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Committed at the end, rolled back on an exception.

        Raises:
            Unavailable: The database did not answer.
        """
        try:
            async with self._sessions.begin() as session:
                yield session
        except DATABASE_ERRORS as error:
            raise Unavailable("the database of keys does not answer") from error

    async def close(self) -> None:
        """Give back the connections."""
        await self._engine.dispose()
