"""What `tidegate keys`, `tenants` and `audit` share: the database that the gateway reads, and who is at the keyboard."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from gateway.auth import migrations
from gateway.auth.database import Database
from gateway.call import Allowance
from gateway.errors import Conflict, InvalidArgument, NotFound, Unavailable
from tidegate.errors import BadInput, CommandError, bad_database
from tidegate.settings import gateway_settings

_T = TypeVar("_T")

_PIPED_WIDTH = 10_000


def actor() -> str:
    """Who acts, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli:unknown"


def with_database(work: Callable[[Database], Awaitable[_T]]) -> _T:
    """Do something with the configured database, its schema brought up to date first.

    Raises:
        BadInput: What was asked does not fit.
        CommandError: The database cannot be used.
    """
    settings = gateway_settings()

    async def run() -> _T:
        database = Database.at(settings.database_url)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        migrations.upgrade(settings.database_url)
        return asyncio.run(run())
    except Unavailable as error:
        raise bad_database(error) from error
    except (Conflict, InvalidArgument, NotFound) as error:
        raise BadInput(error.message) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}; check TIDEGATE_STATE_DIR") from error


def migrate() -> None:
    """Bring the schema up to date, and say so."""

    async def nothing(_: Database) -> None:
        pass

    with_database(nothing)
    print("The database of keys has the newest schema.")


def show_table(table: Table) -> None:
    """Print it as it is; where it is piped, nothing is cut to the width of a terminal that is not there."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    console.print(table)


def in_words(limits: Allowance) -> str:
    """Limits for a table."""
    words = {
        "requests/s": limits.requests_per_s,
        "images/s": limits.images_per_s,
        "images/day": limits.images_per_day,
        "in flight": limits.max_in_flight,
    }
    return ", ".join(f"{amount:g} {unit}" for unit, amount in words.items() if amount is not None) or "-"
