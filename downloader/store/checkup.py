"""Looking a database over: can it be written to, is it sound, what is going on in it.

Nothing here writes.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from downloader.errors import StoreError
from downloader.rules.redaction import clean_text
from downloader.rules.states import UNFINISHED, State
from downloader.store.schema import UTCText, in_state, runs

if TYPE_CHECKING:
    from datetime import datetime

    from downloader.store.database import Database

SQLITE_VERSION: Final = sqlite3.sqlite_version

_RESET_BUG_ENDS: Final = (3, 51, 3)
_ALSO_WITHOUT: Final = {(3, 44): 6, (3, 50): 7}
"""The older versions that the correction was brought to, each from that patch on."""

_USES_JSON: Final = "SELECT count(*) FROM json_each('[1]')"

_CHECK_BYTES: Final = 512 * 1024 * 1024
_CHECK_SECONDS: Final = 5.0
_CHECK_STEPS: Final = 20_000
"""After how many steps of SQLite's machine the clock is looked at."""


class Claims(NamedTuple):
    """Until when the claims on runs that are transferred hold: the first and the last of them.

    And since when the first of the other unfinished runs has been due.
    """

    first: datetime | None
    last: datetime | None
    due: datetime | None


def has_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Return whether an SQLite has the WAL-reset bug, which `store.database` tells of.

    Source: https://sqlite.org/wal.html, "The WAL-Reset Bug".
    """
    patch = _ALSO_WITHOUT.get((version[0], version[1]))
    return version < _RESET_BUG_ENDS and (patch is None or version[2] < patch)


def take_write_lock(database: Database) -> None:
    """Become the one that may write, for a moment, and write nothing.

    Raises:
        BusyDatabaseError: another program writes all the time.
        StoreError: the file may not be written to.

    """
    with database.connection("BEGIN IMMEDIATE") as connection:
        connection.begin().rollback()


def lacks_json(database: Database) -> bool:
    """Return whether this SQLite was built without the functions that statements here need."""
    with database.read() as connection:
        try:
            connection.exec_driver_sql(_USES_JSON)
        except OperationalError as error:
            if "no such" not in str(error.orig):
                raise
            return True
    return False


def damage(database: Database) -> str | None:
    """Return what SQLite's own quick check finds first, None where it finds nothing.

    Raises:
        TimeoutError: the database is too large to be checked now.
        StoreError: it cannot be read.

    """
    if database.path.stat().st_size > _CHECK_BYTES:
        raise TimeoutError
    ends_at = time.monotonic() + _CHECK_SECONDS
    try:
        with database.read() as connection:
            raw: Any = connection.connection.dbapi_connection  # an sqlite3.Connection
            raw.set_progress_handler(lambda: time.monotonic() > ends_at, _CHECK_STEPS)
            try:
                found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
            finally:
                raw.set_progress_handler(None, 0)
    except StoreError as error:
        if "interrupted" in str(error):
            raise TimeoutError from None
        raise
    return None if found == "ok" else clean_text(found)


def claims(database: Database) -> Claims:
    """Return until when the claims on runs that are transferred hold, and what waits for one."""
    ends, due = runs.c.lease_expires_at, sa.func.min(runs.c.next_attempt_at, type_=UTCText)
    downloading = in_state(State.DOWNLOADING)
    with database.read() as connection:
        return Claims(
            connection.scalar(sa.select(sa.func.min(ends)).where(downloading)),
            connection.scalar(sa.select(sa.func.max(ends)).where(downloading)),
            min(
                (
                    since
                    for state in (State.PENDING, State.READY)
                    if (since := connection.scalar(sa.select(due).where(in_state(state))))
                ),
                default=None,
            ),
        )


def any_url(database: Database) -> str | None:
    """Return the URL of a run that has one: a secret. None where none has."""
    with database.read() as connection:
        for state in (State.READY, State.DOWNLOADING):
            url: str | None = connection.scalar(
                sa.select(runs.c.url).where(in_state(state)).limit(1)
            )
            if url is not None:
                return url
    return None


def any_unfinished_with(database: Database, error_code: str) -> bool:
    """Return whether an unfinished run has met this error the last time."""
    with database.read() as connection:
        return any(
            connection.scalar(
                sa.select(sa.literal(1))
                .select_from(runs)
                .where(in_state(state), runs.c.error_code == error_code)
                .limit(1)
            )
            for state in sorted(UNFINISHED)
        )
