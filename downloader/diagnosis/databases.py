"""Checks of the database: can it be used, is it sound, and what does it tell of the service."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from downloader.clock import utc_now
from downloader.diagnosis.disks import cannot_be_made
from downloader.diagnosis.findings import Check, ok, problem, warning
from downloader.diagnosis.processes import holders_of
from downloader.errors import BusyDatabaseError, NewerDatabaseError, StoreError
from downloader.store import blocks, checkup
from downloader.store.database import Database, database_url
from downloader.store.migrate import current_revision, refuse_newer
from downloader.store.schema import SCHEMA_REVISION, to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from downloader.diagnosis.processes import Holder

_OTHER: Final = "name another database with --database"

_OVERDUE: Final = timedelta(minutes=2)
FORGOTTEN: Final = timedelta(minutes=15)
"""After how long a run that is due and not taken up makes one ask; cron calls come more often."""
"""Each `downloader run` takes claims back that ran out, within seconds."""


def check_database(path: Path, *, quick: bool) -> Iterator[Check]:
    """Look a database over; where there is none, none is made."""
    if not os.path.lexists(path):
        yield _check_absent(path)
        return
    try:
        with closing(Database(database_url(path), only_looked_at=True)) as database:
            yield from _check_opened(database, quick=quick)
    except StoreError as error:
        yield _unusable("database", error)


def _unusable(name: str, error: StoreError) -> Check:
    # These messages say what to do in their last sentence.
    said, _, advice = str(error).rpartition(". ")
    return problem(name, said or advice.rstrip("."), advice if said else _OTHER)


def _check_absent(path: Path) -> Check:
    why = cannot_be_made(path)
    if why is None:
        return ok("database", f"{path} is not there yet: `downloader submit` will create it")
    return problem(
        "database",
        f"{path} is not there and cannot be created: {why}",
        "create its folder, or name another place with --database",
    )


def _check_opened(database: Database, *, quick: bool) -> Iterator[Check]:
    revision = current_revision(database)
    if checkup.lacks_json(database):
        yield problem(
            "database",
            f"SQLite {checkup.SQLITE_VERSION} was built without its JSON functions (json_each), "
            "which this program's statements need",
            "use a Python whose SQLite has them, as that of python.org does",
        )
        return
    yield _tried("database", lambda: _check_writable(database))
    yield _tried("schema", lambda: _check_schema(database, revision))
    yield _check_access(database.path)
    holders = holders_of(database.path)
    if not quick:
        yield _tried("integrity", lambda: _check_integrity(database))
        yield _check_sqlite(holders)
    if revision == SCHEMA_REVISION:
        yield _tried("blocks", lambda: _check_blocks(blocks.current_blocks(database)))
        yield _tried(
            "service",
            lambda: _check_service(checkup.claims(database), holders, utc_now(), quick=quick),
        )


def _tried(name: str, check: Callable[[], Check]) -> Check:
    """Return what a check finds, or that the database cannot be used for it."""
    try:
        return check()
    except StoreError as error:
        return _unusable(name, error)


def _check_writable(database: Database) -> Check:
    try:
        checkup.take_write_lock(database)
    except BusyDatabaseError as error:
        said, _, advice = str(error).rpartition(". ")
        return warning("database", said, advice)
    wal = "in WAL mode" if database.in_wal_mode() else "not yet in WAL mode, which `run` sets"
    return ok("database", f"{database.path} can be read and written; {wal}")


def _check_schema(database: Database, revision: str | None) -> Check:
    if revision == SCHEMA_REVISION:
        return ok("schema", f"revision {revision}, which is this version's")
    if revision is None:
        return ok("schema", "none yet: the next command makes it")
    try:
        refuse_newer(database)
    except NewerDatabaseError:
        return problem(
            "schema",
            f"revision {revision}, which a newer version of this program made; this version "
            f"knows {SCHEMA_REVISION}",
            "install that version, or name another database with --database",
        )
    return ok(
        "schema",
        f"revision {revision}: the next command brings it to {SCHEMA_REVISION}, after a backup",
    )


def _check_access(path: Path) -> Check:
    """See that nobody else may read what has URLs in it, and that its owner is the one at work."""
    open_to = []
    for one in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        try:
            found = one.stat()
        except OSError:
            continue
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            open_to.append(one.name)
    if open_to:
        return warning(
            "database_access",
            f"other users of this machine may open {', '.join(open_to)}, in which URLs are that "
            "need no key",
            f"chmod 600, in {path.parent}; where that changes nothing, as on exFAT, move the "
            "database to a disk that keeps permissions, and name it with --database",
        )
    owner = path.stat().st_uid
    if owner != os.geteuid():
        return warning(
            "database_access",
            f"{path} belongs to another user (uid {owner}) than this one (uid {os.geteuid()})",
            "run every command as that user: files that another one makes may lock it out",
        )
    return ok("database_access", "its owner alone may open it")


def _check_integrity(database: Database) -> Check:
    by_hand = f'sqlite3 "{database.path}" "PRAGMA integrity_check"'
    try:
        found = checkup.damage(database)
    except TimeoutError:
        return ok("integrity", f"not checked, as it would take long; by hand: {by_hand}")
    if found is None:
        return ok("integrity", "SQLite's quick check finds nothing wrong")
    return problem(
        "integrity",
        f"the database is damaged: {found}",
        f"stop everything, and restore a backup (`downloader db backup` makes them), or look with "
        f"{by_hand}",
    )


def _check_sqlite(holders: list[Holder] | None) -> Check:
    version = f"SQLite {checkup.SQLITE_VERSION}"
    if not checkup.has_reset_bug():
        return ok("sqlite", f"{version}, without the WAL-reset bug")
    others = [one for one in holders or [] if not one.is_ours]
    if not others:
        return ok(
            "sqlite",
            f"{version} has the WAL-reset bug (sqlite.org/wal.html), which this program avoids",
        )
    return warning(
        "sqlite",
        f"{version} has the WAL-reset bug (sqlite.org/wal.html), and "
        f"{_named(others)} has the database open: this program avoids the bug, but another one "
        "that writes may, rarely, damage the database",
        "open it read-only (mode=ro), or with SQLite 3.51.3 or newer",
    )


def _named(holders: list[Holder]) -> str:
    return ", ".join(f"{one.name} (pid {one.pid})" for one in holders)


def _check_blocks(found: list[blocks.Block]) -> Check:
    if not found:
        return ok("blocks", "nothing is blocked")
    said = "; ".join(
        f"blocked ({one.reason}) since {_minute(one.since)}, next try {_minute(one.until)} UTC: "
        f"{one.message.rstrip('.')}"
        for one in found
    )
    return warning(
        "blocks",
        said,
        "put that right; a `downloader run` then goes on by itself at its next try, or at once "
        "when it is started anew",
    )


def _minute(moment: datetime) -> str:
    return to_text(moment)[:16]


def _check_service(
    claims: checkup.Claims, holders: list[Holder] | None, now: datetime, *, quick: bool
) -> Check:
    """Tell whether a `downloader run` is at work, as far as that can be known."""
    if claims.last is not None and claims.last > now:
        return ok("service", "at work: transfers are claimed, and the claims hold")
    if claims.first is not None and now - claims.first > _OVERDUE:
        # A health check asks whether a service lives; elsewhere none need run now.
        return (problem if quick else warning)(
            "service",
            f"not at work: the claim on a transfer ran out at {_minute(claims.first)} UTC, and "
            "nobody has taken it back, which a `downloader run` does within seconds",
            "start `downloader run`, or end the one that hangs and start it anew",
        )
    running = [one for one in holders or [] if one.runs]
    if running:
        return ok(
            "service",
            f"{_named(running)} has the database open; whether it goes on cannot be told while "
            "no transfer is claimed",
        )
    if holders is not None and claims.due is not None and now - claims.due > FORGOTTEN:
        return warning(
            "service",
            f"nobody is at work: runs have been due since {_minute(claims.due)} UTC, and no "
            "`downloader run` is seen on this machine",
            "start `downloader run`, or see why the timer or cron does not",
        )
    seen = "" if holders is None else ", and no `downloader run` is seen on this machine"
    return ok("service", f"not known: no transfer is claimed{seen}")
