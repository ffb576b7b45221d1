"""Tiers of keys, and traffic policies."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """A key from before is of the standard tier; no model has a policy."""
    with op.batch_alter_table("api_keys") as keys:
        keys.add_column(sa.Column("tier", sa.String(16), nullable=False, server_default="standard"))
    op.create_table(
        "traffic_policies",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.String(200), nullable=False),
    )


def downgrade() -> None:
    """Go back to keys without tiers."""
    op.drop_table("traffic_policies")
    with op.batch_alter_table("api_keys") as keys:
        keys.drop_column("tier")
