"""Alembic's entry: migrate the catalogue that the settings name, one migrator at a time."""

from alembic import context
from sqlalchemy import text

from pipelines.catalogue.database import engine
from pipelines.catalogue.schema import metadata

with engine().connect().execution_options(inspectline_writes=True) as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table="inspectline_version",
        render_as_batch=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('inspectline:migrate'))"))
        context.run_migrations()
    if connection.in_transaction():
        connection.commit()
