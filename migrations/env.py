"""What Alembic runs: on the program's own connection, or on one it opens for its command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from alembic import context

from downloader.failpoints import At, reach
from downloader.store.database import Database, database_url, default_database
from downloader.store.schema import metadata

if TYPE_CHECKING:
    import sqlalchemy as sa


def migrate(connection: sa.Connection) -> None:
    """Run the scripts, each in a transaction of its own."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        render_as_batch=True,
        on_version_apply=lambda **_: reach(At.MIGRATE_APPLIED),
        compare_type=False,  # TEXT stands for UTCText; names and constraints are what is compared
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Use the connection that the program hands over, or open the database named outside."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        migrate(connection)
        return
    if context.is_offline_mode():
        context.configure(url=str(database_url(None)), target_metadata=metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    database = Database(database_url(os.environ.get("DOWNLOADER_DATABASE") or default_database()))
    with database.migrating() as own:
        migrate(own)
    database.close()


main()
