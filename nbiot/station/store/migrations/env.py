"""Alembic runs this: the connection is the caller's, and so is the transaction."""

from alembic import context

from nbiot.station.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
