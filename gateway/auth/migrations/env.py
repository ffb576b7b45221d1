"""Run by Alembic, over the connection that `upgrade` hands it."""

from alembic import context

from gateway.auth.schema import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata)
with context.begin_transaction():
    context.run_migrations()
