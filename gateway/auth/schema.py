"""The tables. Alembic's migrations make them; a test holds the two against each other."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect, Double, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time. SQLite forgets the zone: what comes back without one is UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the zone back."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Table(DeclarativeBase):
    """The tables of the gateway."""


class Allowed:
    """The limits of a key or a tenant; null is none."""

    requests_per_s: Mapped[float | None] = mapped_column(Double)
    images_per_s: Mapped[float | None] = mapped_column(Double)
    images_per_day: Mapped[int | None]
    max_in_flight: Mapped[int | None]


class TenantRow(Allowed, Table):
    """One tenant, to whom keys belong."""

    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class KeyRow(Allowed, Table):
    """One API key.

    Attributes:
        scopes: Space-separated.
        models: Globs of the models it may name, space-separated.
        tier: Whose calls go first where not all can.
        old_secret_hash: Of the secret before the last rotation, which is good until `old_secret_until`.
        last_used_at: Within about a minute.
    """

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(String(12), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    tenant: Mapped[str | None] = mapped_column(ForeignKey("tenants.name", name="fk_api_keys_tenant"))
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    old_secret_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    old_secret_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    scopes: Mapped[str] = mapped_column(String(100))
    models: Mapped[str] = mapped_column(String(1000))
    tier: Mapped[str] = mapped_column(String(16), server_default="standard")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PolicyRow(Table):
    """How the calls of a model are given to its versions.

    Attributes:
        policy: JSON.
        revision: Grows with every change.
        changed_by: As `actor` in the audit log.
    """

    __tablename__ = "traffic_policies"

    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    policy: Mapped[str] = mapped_column(Text)
    revision: Mapped[int]
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_by: Mapped[str] = mapped_column(String(200))


class AuditRow(Table):
    """One act of an administrator.

    Attributes:
        actor: `key:<id>`, `token:<subject>` or `cli:<user>`.
        action: Such as `keys.revoke`.
        target: The key, tenant or model it was done to.
        result: `ok`, a kind of error, or `begun` where the end of it is not known.
    """

    __tablename__ = "audit_log"

    entry_id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(50))
    target: Mapped[str] = mapped_column(String(300))
    result: Mapped[str] = mapped_column(String(50))
