"""Tenants, limits, allowed models, expiry, rotation, last use, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _limits() -> list[sa.Column[float] | sa.Column[int]]:
    return [
        sa.Column("requests_per_s", sa.Double(), nullable=True),
        sa.Column("images_per_s", sa.Double(), nullable=True),
        sa.Column("images_per_day", sa.Integer(), nullable=True),
        sa.Column("max_in_flight", sa.Integer(), nullable=True),
    ]


def upgrade() -> None:
    """Make the new tables, and widen the one of keys; a key from before may name every model."""
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        *_limits(),
    )
    with op.batch_alter_table("api_keys") as keys:
        keys.add_column(sa.Column("tenant", sa.String(63), nullable=True))
        keys.create_foreign_key("fk_api_keys_tenant", "tenants", ["tenant"], ["name"])
        keys.add_column(sa.Column("old_secret_hash", sa.LargeBinary(32), nullable=True))
        keys.add_column(sa.Column("old_secret_until", sa.DateTime(timezone=True), nullable=True))
        keys.add_column(sa.Column("models", sa.String(1000), nullable=False, server_default="*"))
        keys.add_column(sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
        keys.add_column(sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
        for column in _limits():
            keys.add_column(column)
    op.create_table(
        "audit_log",
        sa.Column("entry_id", sa.Integer(), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(50), nullable=False),
        sa.Column("target", sa.String(300), nullable=False),
        sa.Column("result", sa.String(50), nullable=False),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])


def downgrade() -> None:
    """Go back to keys alone."""
    op.drop_table("audit_log")
    with op.batch_alter_table("api_keys") as keys:
        keys.drop_constraint("fk_api_keys_tenant", type_="foreignkey")
        for name in ("tenant", "old_secret_hash", "old_secret_until", "models", "expires_at", "last_used_at"):
            keys.drop_column(name)
        for column in _limits():
            keys.drop_column(column.name)
    op.drop_table("tenants")
