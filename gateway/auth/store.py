"""What the gateway asks of the database while it serves: a key by its id, and when keys were used."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import or_, select, update

from gateway.auth.database import Database
from gateway.auth.keys import ApiKey
from gateway.auth.schema import Allowed, KeyRow, TenantRow
from gateway.call import Allowance, Identity, Limit, Resource, Scope, Tier

LAST_USE_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What the database knows of a key.

    Attributes:
        identity: Who shows the key, with the limits of the key and of its tenant.
        blocked: The tenant is disabled.
    """

    identity: Identity
    secret_hash: bytes
    old_secret_hash: bytes | None
    old_secret_until: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    blocked: bool

    def opened_by(self, shown: ApiKey) -> bool:
        """Whether the secret is the key's, or the one before it in its time."""
        if shown.matches(self.secret_hash):
            return True
        if self.old_secret_hash is None or self.old_secret_until is None:
            return False
        return shown.matches(self.old_secret_hash) and datetime.now(UTC) < self.old_secret_until


class KeyStore:
    """Reads keys, and writes when they were used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, key_id: str) -> StoredKey | None:
        """One key by its id.

        Raises:
            Unavailable: The database did not answer.
        """
        joined = select(KeyRow, TenantRow).outerjoin(TenantRow).where(KeyRow.key_id == key_id)
        async with self._database.transaction() as session:
            found = (await session.execute(joined)).one_or_none()
        return _stored(found[0], found[1]) if found is not None else None

    async def used(self, moments: Mapping[str, datetime]) -> None:
        """Note when keys were used, by key id; a key's note that is less than a minute old stays.

        Raises:
            Unavailable: The database did not answer.
        """
        async with self._database.transaction() as session:
            for key_id, moment in sorted(moments.items()):
                old = or_(KeyRow.last_used_at.is_(None), KeyRow.last_used_at <= moment - LAST_USE_EVERY)
                await session.execute(update(KeyRow).where(KeyRow.key_id == key_id, old).values(last_used_at=moment))


def allowance(row: Allowed) -> Allowance:
    """The limits that stand in a row."""
    return Allowance(row.requests_per_s, row.images_per_s, row.images_per_day, row.max_in_flight)


def _stored(key: KeyRow, tenant: TenantRow | None) -> StoredKey:
    limits = _limits(f"key:{key.key_id}", allowance(key))
    if tenant is not None:
        limits += _limits(f"tenant:{tenant.name}", allowance(tenant))
    scopes = frozenset(Scope(scope) for scope in key.scopes.split())
    return StoredKey(
        identity=Identity(
            subject=f"key:{key.key_id}",
            scopes=scopes,
            models=tuple(key.models.split()),
            limits=limits,
            tenant=None if tenant is None else tenant.name,
            tier=Tier(key.tier),
        ),
        secret_hash=key.secret_hash,
        old_secret_hash=key.old_secret_hash,
        old_secret_until=key.old_secret_until,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        blocked=tenant is not None and tenant.disabled_at is not None,
    )


def _limits(account: str, allowed: Allowance) -> tuple[Limit, ...]:
    amounts = {
        Resource.REQUESTS: allowed.requests_per_s,
        Resource.IMAGES: allowed.images_per_s,
        Resource.IMAGES_TODAY: allowed.images_per_day,
        Resource.IN_FLIGHT: allowed.max_in_flight,
    }
    return tuple(Limit(account, resource, amount) for resource, amount in amounts.items() if amount is not None)
