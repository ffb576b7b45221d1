"""The audit log: who did what to which key, tenant or model, when, and what became of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.auth.database import Database
from gateway.auth.schema import AuditRow
from gateway.errors import ErrorKind, GatewayError, Unavailable

OK = "ok"
BEGUN = "begun"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act of an administrator."""

    at: datetime
    actor: str
    action: str
    target: str
    result: str


def record(session: AsyncSession, actor: str, action: str, target: str) -> None:
    """Note an act in the transaction that does it: neither is there without the other."""
    session.add(_row(actor, action, target, OK))


class AuditLog:
    """Reads the log, and writes what is done outside the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def act(self, actor: str, action: str, target: str) -> AsyncIterator[None]:
        """Note an act before it begins, and its result after.

        Raises:
            Unavailable: It cannot be noted, and must not be done.
        """
        row = _row(actor, action, target, BEGUN)
        async with self._database.transaction() as session:
            session.add(row)
        result = ErrorKind.INTERNAL.value
        try:
            yield
            result = OK
        except GatewayError as error:
            result = error.kind.value
            raise
        finally:
            await self._end(row.entry_id, result)

    async def latest(self, limit: int) -> list[AuditEntry]:
        """The newest entries first.

        Raises:
            Unavailable: The database did not answer.
        """
        async with self._database.transaction() as session:
            rows = await session.scalars(select(AuditRow).order_by(AuditRow.entry_id.desc()).limit(limit))
            return [AuditEntry(row.at, row.actor, row.action, row.target, row.result) for row in rows]

    async def _end(self, entry_id: int, result: str) -> None:
        try:
            async with self._database.transaction() as session:
                await session.execute(update(AuditRow).where(AuditRow.entry_id == entry_id).values(result=result))
        except Unavailable:
            _log.error("the result of an act is not in the audit log", entry=entry_id, result=result)


def _row(actor: str, action: str, target: str, result: str) -> AuditRow:
    return AuditRow(
        at=datetime.now(UTC), actor=_plain(actor, 200), action=action, target=_plain(target, 300), result=result
    )


def _plain(text: str, length: int) -> str:
    """Within the column, and without what a terminal would obey or a database refuse."""
    return "".join(letter if letter.isprintable() else "�" for letter in text[:length])
