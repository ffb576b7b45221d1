"""The schema's history, applied by Alembic."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy import make_url, text

from gateway.auth.database import DATABASE_ERRORS, create_engine
from gateway.errors import Unavailable

_LOCK = text("SELECT pg_advisory_xact_lock(7416424401)")  # A number of ours, the same in every process.


def upgrade(url: str) -> None:
    """Bring the database at `url` to the newest schema; nothing happens where it is there.

    Raises:
        Unavailable: The database did not answer.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        _upgrade_sqlite(parsed)
    else:
        asyncio.run(_upgrade(url))


def _upgrade_sqlite(url: URL) -> None:
    # Without aiosqlite, whose thread may outlive the loop of a database that does not open, and then prints a traceback.
    engine = create_sync_engine(url.set(drivername="sqlite"))
    try:
        with engine.begin() as connection:
            _run(connection)
    except DATABASE_ERRORS as error:
        raise Unavailable("the database of keys does not answer") from error
    finally:
        engine.dispose()


async def _upgrade(url: str) -> None:
    engine = create_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run)
    except DATABASE_ERRORS as error:
        raise Unavailable("the database of keys does not answer") from error
    finally:
        await engine.dispose()


def _run(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
