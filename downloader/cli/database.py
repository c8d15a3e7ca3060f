"""`downloader db`: the database as a file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from downloader.cli import streams
from downloader.cli.options import Command, database_option


class _Group(click.Group):
    """A group that hands the configuration on."""

    command_class = Command


@click.group(cls=_Group, epilog="Example: downloader db backup backup.sqlite3")
@click.pass_context
def db(ctx: click.Context) -> None:
    """Migrate, look at and back up the database; `run` and the others migrate by themselves."""
    ctx.obj = ctx.parent.obj if ctx.parent is not None else None


@db.command("upgrade", epilog="Example: downloader db upgrade")
@database_option
def upgrade(*, database: str | None) -> None:
    """Bring the database to this version's schema; a backup is made first where needed."""
    from downloader.store.migrate import current_revision, open_database  # noqa: PLC0415 - start-up time

    with closing(open_database(database)) as opened:
        click.echo(f"{opened.path}: revision {current_revision(opened)}")


@db.command("current", epilog="Example: downloader db current")
@database_option
def current(*, database: str | None) -> None:
    """Print the schema revision the database is at, and change nothing."""
    from downloader.store.database import Database, existing_url  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import current_revision  # noqa: PLC0415 - as above
    from downloader.store.schema import SCHEMA_REVISION  # noqa: PLC0415 - as above

    streams.show_only()
    with closing(Database(existing_url(database))) as opened:
        click.echo(
            f"{opened.path}: revision {current_revision(opened) or 'none'}, "
            f"this version's is {SCHEMA_REVISION}"
        )


@db.command("backup", epilog="Example: downloader db backup backup.sqlite3")
@click.argument("target", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@database_option
def backup(*, target: Path, database: str | None) -> None:
    """Copy the database, as it is at one moment, to FILE; nothing need be stopped for it."""
    from downloader.store.migrate import backup as copy  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    with closing(open_database(database, existing=True)) as opened:
        copy(opened, target.absolute())
        click.echo(f"{opened.path} is backed up in {target.absolute()}")
