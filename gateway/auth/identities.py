"""The parts of identity, built together over one database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

import httpx

from gateway.auth.administration import Administration
from gateway.auth.audit import AuditLog
from gateway.auth.authenticator import KeyAuthenticator, OpenDoor
from gateway.auth.database import Database
from gateway.auth.issuer import IssuerKeys
from gateway.auth.last_uses import LastUses
from gateway.auth.memory import KeyMemory
from gateway.auth.store import KeyStore
from gateway.auth.tokens import TokenAuthenticator
from gateway.bounded_wait import BoundedWait
from gateway.ports import Authenticator
from gateway.settings import AuthMode, GatewaySettings

_CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Identities:
    """Who may call, and who changes that."""

    authenticator: Authenticator
    administration: Administration
    audit: AuditLog
    memory: KeyMemory
    last_uses: LastUses
    issuer_keys: IssuerKeys | None
    database: Database

    @classmethod
    def build(cls, settings: GatewaySettings) -> Self:
        """Over the database of the settings, whose schema is up to date."""
        database = Database.at(settings.database_url)
        store = KeyStore(database)
        memory = KeyMemory(store, settings.auth, time.monotonic)
        last_uses = LastUses(store, settings.auth.max_remembered, time.monotonic)
        authenticator: Authenticator = OpenDoor()
        if settings.auth.mode is AuthMode.KEYS:
            authenticator = KeyAuthenticator(memory, last_uses.note)
        issuer_keys = None
        if settings.auth.mode is AuthMode.KEYS and settings.oidc.issuer is not None:
            issuer_keys = IssuerKeys(settings.oidc.issuer, settings.oidc, httpx.AsyncClient(), time.monotonic)
            authenticator = TokenAuthenticator(settings.oidc.issuer, settings.oidc, issuer_keys, authenticator)
        return cls(
            authenticator=authenticator,
            administration=Administration(database),
            audit=AuditLog(database),
            memory=memory,
            last_uses=last_uses,
            issuer_keys=issuer_keys,
            database=database,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write last uses for the length of the block, and what is left of them at its end."""
        task = asyncio.create_task(self.last_uses.keep_written())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(TimeoutError):
                await BoundedWait(_CLOSE_S).on(self.last_uses.write())

    async def close(self) -> None:
        """Give back the connections; a database that hangs does not hold up the end."""
        with suppress(TimeoutError):
            await BoundedWait(_CLOSE_S).on(self._close())

    async def _close(self) -> None:
        await self.memory.close()
        if self.issuer_keys is not None:
            await self.issuer_keys.close()
        await self.database.close()
