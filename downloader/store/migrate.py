"""Bringing a database to the schema of this version: at every start, by whoever comes first."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from downloader import descriptors
from downloader.clock import utc_now
from downloader.durable import give_name, sync
from downloader.errors import NewerDatabaseError, StoreError
from downloader.failpoints import At, reach
from downloader.logger import get_logger
from downloader.store.database import Database, database_url, existing_url
from downloader.store.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

_log = get_logger(__name__)

_BACKUP_PAGES: Final = 256
"""How many pages are copied at a time."""

_UPGRADING: Final = threading.Lock()
"""Alembic keeps what it works on in a global: two threads would take each other's database."""

_PACKAGE: Final = Path(__file__).resolve().parent.parent


def migrations_folder() -> Path:
    """Return where the migration scripts are: in the package, or beside it in a checkout."""
    shipped = _PACKAGE / "migrations"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "migrations"


def open_database(named: str | Path | None, *, existing: bool = False) -> Database:
    """Open the database at a path or URL, migrated to this version's schema.

    One that is not there is made, unless it has to be `existing`.

    Raises:
        ConfigurationError: the name is not one of a database this program can use.
        NewerDatabaseError: a newer version of this program made it.
        StoreError: it cannot be opened, is not this program's, or not there.

    """
    descriptors.fill()  # whoever embeds this may have closed one: it must become no file of ours
    database = Database(existing_url(named) if existing else database_url(named))
    try:
        if current_revision(database) != SCHEMA_REVISION or not database.in_wal_mode():
            upgrade(database)
    except BaseException:
        database.close()
        raise
    return database


def current_revision(database: Database) -> str | None:
    """Return the revision a database is at, None for an empty one.

    Raises:
        StoreError: the file is not a database, or not one of this program's.

    """
    with database.read() as connection:
        tables = set(
            connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'"))
        )
        if not tables:
            return None
        ours = {"runs", "run_events"} <= tables or len(tables) == 1
        if "alembic_version" not in tables or not ours:
            raise StoreError(
                lambda say: (
                    f"The database {database.path} belongs to another program "
                    f"(it has a table {min(tables)!r}): {say.name_another}."
                )
            )
        revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return None if revision is None else str(revision)


def must_be_current(database: Database) -> None:
    """Refuse a database of another schema than this version's, and change nothing.

    Raises:
        NewerDatabaseError: a newer version of this program made it.
        StoreError: it is empty or older, and has to be upgraded first; or not this program's.

    """
    found = current_revision(database)
    if found == SCHEMA_REVISION:
        return
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - slow to import and rarely needed

    _known_revision(database, ScriptDirectory.from_config(_config(migrations_folder())))
    how = "is empty" if found is None else f"has the older schema {found}"
    raise StoreError(
        f"The database {database.path} {how}, and this version's is {SCHEMA_REVISION}: "
        "`downloader db upgrade` brings it there."
    )


def upgrade(database: Database, scripts: Path | None = None) -> Path | None:
    """Run the migrations that are missing; return the backup made first, if one was needed.

    Several processes may call this at once: one migrates, the others find it done.

    Raises:
        NewerDatabaseError: the database is at a revision that the scripts do not know.
        StoreError: a migration failed; the database is as it was before that migration.

    """
    from alembic import command  # noqa: PLC0415 - slow to import and rarely needed
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

    config = _config(scripts or migrations_folder())
    directory = ScriptDirectory.from_config(config)
    _known_revision(database, directory)  # one to be refused is not touched, not even its mode
    with _UPGRADING, database.migrating() as connection:
        found = _known_revision(database, directory)
        if found == directory.get_current_head():
            return None
        saved = _backup_before(database, found) if found is not None else None
        if saved is not None:
            reach(At.MIGRATE_BACKED_UP)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except Exception as error:
            # Whatever a script fails with, the person needs to know of the backup.
            kept = f" A backup from before is {saved}." if saved else ""
            said = error.orig if isinstance(error, DatabaseError) else error
            raise StoreError(
                f"The database {database.path} could not be migrated: {said}.{kept}"
            ) from error
    _log.debug("database.migrated", database=str(database.path), revision=SCHEMA_REVISION)
    return saved


def refuse_newer(database: Database) -> None:
    """Refuse a database that a newer version made; change nothing.

    Raises:
        NewerDatabaseError: the database is at a revision that this version does not know.
        StoreError: the file is not a database, or not one of this program's.

    """
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - slow to import and rarely needed

    _known_revision(database, ScriptDirectory.from_config(_config(migrations_folder())))


def _known_revision(database: Database, directory: ScriptDirectory) -> str | None:
    """Return the revision a database is at, refused where the scripts do not know it."""
    found = current_revision(database)
    if found is not None and found not in {s.revision for s in directory.walk_revisions()}:
        raise NewerDatabaseError(
            lambda say: (
                f"The database {database.path} was made by a newer version of this program "
                f"(its schema is {found}, this version knows {directory.get_current_head()}): "
                "install that version again, or put back the backup that it made beside the "
                f"database, or {say.name_another}."
            )
        )
    return found


def _config(scripts: Path) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - slow to import and rarely needed

    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _backup_before(database: Database, revision: str) -> Path:
    stamp = utc_now().strftime("%Y%m%dT%H%M%S.%f")
    target = database.path.with_name(f"{database.path.name}.backup-{revision}-{stamp}")
    backup(database, target)
    _log.warning("database.backed_up", backup=str(target), revision=revision)
    return target


def backup(database: Database, target: Path) -> None:
    """Copy the database, as it is at one moment, to `target` by SQLite's backup API.

    The copy is readable by its owner alone, whole and synced when its name appears; a
    database in use is copied without being stopped.

    Raises:
        StoreError: there is such a file already, or the copy cannot be written.

    """
    partial = target.with_name(target.name + ".part")
    try:
        if os.path.lexists(target):
            raise StoreError(f"The backup {target} exists already: name another file.")
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with (
            contextlib.closing(sqlite3.connect(database.path)) as source,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            # One moment of the source for all of it: without this transaction each write of
            # another process would have the copy begin anew.
            source.isolation_level = None
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(copy, pages=_BACKUP_PAGES, progress=lambda *_: reach(At.BACKUP_COPYING))
        sync(partial)
        reach(At.BACKUP_COPIED)
        if give_name(str(partial), str(target)) is None:
            partial.unlink()
        sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        said = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"The backup {target} cannot be written: {said}.") from error
