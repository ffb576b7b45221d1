"""Making, changing and ending keys and tenants: what the command line and the admin API share.

Each change and its entry in the audit log are one transaction.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.auth import audit
from gateway.auth.database import Database
from gateway.auth.keys import ApiKey
from gateway.auth.schema import KeyRow, TenantRow
from gateway.auth.store import allowance
from gateway.call import Allowance, Scope, Tier
from gateway.errors import Conflict, InvalidArgument, NotFound

TENANT_NAME = r"[a-z0-9][a-z0-9-]{0,62}"
GLOB = r"[A-Za-z0-9_.*?\[\]!-]+"
_MAX_NAME = 100
_MAX_MODELS = 1_000


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a new key is to be.

    Attributes:
        models: Globs of the models it may name.
    """

    name: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ("*",)
    tenant: str | None = None
    expires_at: datetime | None = None
    limits: Allowance = Allowance()
    tier: Tier = Tier.STANDARD


@dataclass(frozen=True, slots=True)
class KeySummary:
    """A key as an administrator sees it."""

    key_id: str
    name: str
    tenant: str | None
    scopes: tuple[Scope, ...]
    models: tuple[str, ...]
    tier: Tier
    limits: Allowance
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    old_secret_until: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who owns keys, and what they may use together."""

    name: str
    limits: Allowance
    created_at: datetime
    disabled_at: datetime | None


class Administration:
    """Acts on keys and tenants. Each says who does it, for the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_key(self, actor: str, spec: KeySpec) -> ApiKey:
        """Make a key. What is returned cannot be had again.

        Raises:
            InvalidArgument: The name or a glob is not one.
            NotFound: There is no such tenant.
        """
        _check(spec)
        key = ApiKey.generate()
        row = KeyRow(
            key_id=key.key_id,
            name=spec.name,
            tenant=spec.tenant,
            secret_hash=key.secret_hash,
            scopes=" ".join(sorted(spec.scopes)),
            models=" ".join(spec.models),
            tier=spec.tier.value,
            created_at=datetime.now(UTC),
            expires_at=spec.expires_at,
            **asdict(spec.limits),
        )
        async with self._database.transaction() as session:
            if spec.tenant is not None:
                await _tenant(session, spec.tenant)
            session.add(row)
            audit.record(session, actor, "keys.create", key.key_id)
        return key

    async def rotate_key(self, actor: str, key_id: str, overlap: timedelta) -> ApiKey:
        """Give a key a new secret; the one it has is good for `overlap` more, one before that no more.

        Raises:
            NotFound: There is no such live key.
        """
        key = ApiKey.renewed(key_id)
        async with self._database.transaction() as session:
            row = await _live_key(session, key_id)
            row.old_secret_hash, row.old_secret_until = row.secret_hash, datetime.now(UTC) + overlap
            row.secret_hash = key.secret_hash
            audit.record(session, actor, "keys.rotate", key_id)
        return key

    async def limit_key(self, actor: str, key_id: str, limits: Allowance) -> None:
        """Put these limits in place of a key's.

        Raises:
            NotFound: There is no such live key.
        """
        async with self._database.transaction() as session:
            _set(await _live_key(session, key_id), limits)
            audit.record(session, actor, "keys.limit", key_id)

    async def revoke_key(self, actor: str, key_id: str) -> None:
        """End a key.

        Raises:
            NotFound: There is no such live key.
        """
        async with self._database.transaction() as session:
            (await _live_key(session, key_id)).revoked_at = datetime.now(UTC)
            audit.record(session, actor, "keys.revoke", key_id)

    async def keys(self) -> list[KeySummary]:
        """All keys, oldest first, revoked ones too."""
        async with self._database.transaction() as session:
            return [_summary(row) for row in await session.scalars(select(KeyRow).order_by(KeyRow.created_at))]

    async def create_tenant(self, actor: str, name: str, limits: Allowance) -> None:
        """Make a tenant.

        Raises:
            InvalidArgument: The name is not one.
            Conflict: It is taken.
        """
        if re.fullmatch(TENANT_NAME, name) is None:
            raise InvalidArgument(f"tenant {name!r}: a name is 1 to 63 of a-z, 0-9 and -, and does not begin with -")
        async with self._database.transaction() as session:
            session.add(TenantRow(name=name, created_at=datetime.now(UTC), **asdict(limits)))
            try:
                await session.flush()
            except IntegrityError as error:
                raise Conflict(f"tenant {name!r} is there already") from error
            audit.record(session, actor, "tenants.create", name)

    async def limit_tenant(self, actor: str, name: str, limits: Allowance) -> None:
        """Put these limits in place of a tenant's.

        Raises:
            NotFound: There is no such tenant.
        """
        async with self._database.transaction() as session:
            _set(await _tenant(session, name), limits)
            audit.record(session, actor, "tenants.limit", name)

    async def disable_tenant(self, actor: str, name: str, disabled: bool) -> None:
        """Refuse all keys of a tenant, or take them again.

        Raises:
            NotFound: There is no such tenant.
        """
        async with self._database.transaction() as session:
            (await _tenant(session, name)).disabled_at = datetime.now(UTC) if disabled else None
            audit.record(session, actor, "tenants.disable" if disabled else "tenants.enable", name)

    async def tenants(self) -> list[Tenant]:
        """All tenants by name."""
        async with self._database.transaction() as session:
            rows = await session.scalars(select(TenantRow).order_by(TenantRow.name))
            return [Tenant(row.name, allowance(row), row.created_at, row.disabled_at) for row in rows]


async def _live_key(session: AsyncSession, key_id: str) -> KeyRow:
    row = await session.get(KeyRow, key_id, with_for_update=True)
    if row is None or row.revoked_at is not None:
        raise NotFound(f"there is no live key {key_id!r}")
    return row


async def _tenant(session: AsyncSession, name: str) -> TenantRow:
    row = await session.get(TenantRow, name)
    if row is None:
        raise NotFound(f"there is no tenant {name!r}")
    return row


def _set(row: KeyRow | TenantRow, limits: Allowance) -> None:
    for field, amount in asdict(limits).items():
        setattr(row, field, amount)


def _check(spec: KeySpec) -> None:
    if not 0 < len(spec.name) <= _MAX_NAME or not spec.name.isprintable():
        raise InvalidArgument(f"name: a key's name has 1 to {_MAX_NAME} characters, all printable")
    if not spec.scopes:
        raise InvalidArgument("scopes: a key needs one at least")
    _check_models(spec.models)


def _check_models(globs: Sequence[str]) -> None:
    for glob in globs:
        if re.fullmatch(GLOB, glob) is None:
            raise InvalidArgument(f"model {glob!r} is neither a model's name nor a glob of *, ? and [...]")
    if not globs or len(" ".join(globs)) > _MAX_MODELS:
        raise InvalidArgument(f"models: at least one, and at most {_MAX_MODELS} characters in all")


def _summary(row: KeyRow) -> KeySummary:
    return KeySummary(
        key_id=row.key_id,
        name=row.name,
        tenant=row.tenant,
        scopes=tuple(Scope(scope) for scope in row.scopes.split()),
        models=tuple(row.models.split()),
        tier=Tier(row.tier),
        limits=allowance(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        old_secret_until=row.old_secret_until,
        last_used_at=row.last_used_at,
    )
