"""What `verify` asks of the database, and its two changes: a run put back, a run adopted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from downloader.rules.states import MAX_RUN_ID, RunKey, State
from downloader.store import events
from downloader.store.control import fresh_start
from downloader.store.schema import BY_KEY, in_state, one_more, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from downloader.rules.steps import Published
    from downloader.store.database import Database

_PAGE_ROWS: Final = 500

ADOPTABLE: Final = (State.PENDING, State.READY, State.FAILED)
"""What a run may be whose file was published without its commit. A cancelled one stays so."""


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run that is done, and the file it says is there."""

    key: RunKey
    location: str
    bytes: int
    sha256: str
    done_at: datetime


@dataclass(frozen=True, slots=True)
class Tracked:
    """Where a run stands."""

    state: State
    location: str | None
    lease_expires_at: datetime | None
    updated_at: datetime
    error_code: str | None


@dataclass(frozen=True, slots=True)
class SavedFolder:
    """A folder that saved files are recorded in, how many, and their bytes."""

    prefix: str
    files: int
    bytes: int

    @property
    def path(self) -> str:
        """The folder's path, as `os.path.dirname` has it."""
        return self.prefix.rstrip("/") or "/"


_DONE = in_state(State.DONE)
_SAME = (
    *BY_KEY,
    _DONE,
    runs.c.location == sa.bindparam("was_at"),
    runs.c.sha256 == sa.bindparam("was_sha256"),
    runs.c.done_at == sa.bindparam("was_done_at"),
)
_IS_SAME = sa.select(sa.literal(1)).where(*_SAME)
# What is left of a path when every character but the slash is taken from its end.
_FOLDER = sa.func.rtrim(runs.c.location, sa.func.replace(runs.c.location, "/", ""))
_PAGE = (
    sa.select(
        runs.c.run_type,
        runs.c.run_id,
        runs.c.location,
        runs.c.bytes,
        runs.c.sha256,
        runs.c.done_at,
    )
    .where(
        _DONE,
        sa.tuple_(runs.c.run_type, runs.c.run_id)
        > sa.tuple_(sa.bindparam("after_type"), sa.bindparam("after_id")),
    )
    .order_by(runs.c.run_type, runs.c.run_id)
    .limit(_PAGE_ROWS)
)


def saved_folders(database: Database) -> list[SavedFolder]:
    """Return the folders that the files of done runs are recorded in."""
    query = sa.select(_FOLDER, sa.func.count(), sa.func.sum(runs.c.bytes)).where(_DONE)
    with database.read() as connection:
        return [SavedFolder(*row) for row in connection.execute(query.group_by(_FOLDER))]


def saved_runs(database: Database, folder: SavedFolder | None = None) -> Iterator[SavedRun]:
    """Yield the runs that are done (with their file in `folder`, if given) in the keys' order.

    They are read in pages, each as it is at that moment: no transaction lasts, and no more
    than a page is in memory.
    """
    query = _PAGE
    if folder is not None:
        query = query.where(sa.literal(folder.prefix) == _FOLDER)
    after = RunKey("", 0)
    while True:
        with database.read() as connection:
            page = connection.execute(
                query, {"after_type": after.run_type, "after_id": after.run_id}
            ).all()
        for run_type, run_id, *rest in page:
            yield SavedRun(RunKey(run_type, run_id), *rest)
        if len(page) < _PAGE_ROWS:
            return
        after = RunKey(page[-1][0], page[-1][1])


def unchanged(database: Database, found: Iterable[SavedRun]) -> set[RunKey]:
    """Return which of these runs are still done with the same file."""
    with database.read() as connection:
        return {run.key for run in found if connection.scalar(_IS_SAME, _identity(run))}


def put_back(
    database: Database,
    lost: Sequence[tuple[SavedRun, str]],
    now: datetime,
    make_way: Callable[[SavedRun], str | None],
) -> None:
    """Put done runs, each with the reason in a word, back to pending as if submitted anew.

    One transaction, durable. `make_way` is called in it for each run that is still done with
    the same file: while it lasts no process can record that run, so what stands under the
    file's name is what was recorded. It returns the words for the history, None to leave the
    run as it is. What it has done stays where the commit fails: then the run is done without
    its file, and is found missing the next time.
    """
    # A saved file has no part to go on with.
    no_part = dict.fromkeys(("etag", "bytes", "last_modified", "digest"))
    statement = sa.update(runs).where(*_SAME).values(fresh_start(now) | no_part)
    history: list[tuple[RunKey, State, State, str, str | None]] = []
    with database.write(durable=True) as connection:
        for run, reason in lost:
            identity = _identity(run)
            if connection.scalar(_IS_SAME, identity) is None:
                continue
            detail = make_way(run)
            if detail is not None:
                connection.execute(statement, identity)
                history.append((run.key, State.DONE, State.PENDING, reason, detail))
        events.record(connection, now, history)


def adopt(database: Database, key: RunKey, file: Published, now: datetime) -> bool:
    """Record a published file whose commit was lost; False where the run allows that no more.

    Durable: the part, which proves that the file is this run's, goes after it.
    """
    which = sa.and_(*BY_KEY, _may_be_adopted(now))
    names = {"key_type": key.run_type, "key_id": key.run_id}
    with database.write(durable=True) as connection:
        before = connection.scalar(sa.select(runs.c.state).where(which), names)
        if before is None:
            return False
        connection.execute(
            sa.update(runs)
            .where(which)
            .values(
                state=State.DONE.value,
                url=None,
                url_expires_at=None,
                next_attempt_at=None,
                lease_owner=None,
                lease_expires_at=None,
                location=file.location,
                bytes=file.bytes,
                sha256=file.sha256,
                audio_format=file.audio_format,
                etag=file.etag,
                attempts=one_more(runs.c.attempts),
                last_modified=file.last_modified,
                digest=file.digest,
                failing_since=None,
                error_code=None,
                error_message=None,
                done_at=now,
                updated_at=now,
            ),
            names,
        )
        told = (key, State(before), State.DONE, "adopted", file.location)
        events.record(connection, now, [told])
    return True


def _may_be_adopted(now: datetime) -> sa.ColumnElement[bool]:
    """Match the runs that nobody is saving at this moment, and nobody has given up."""
    abandoned = sa.and_(in_state(State.DOWNLOADING), runs.c.lease_expires_at < now)
    return sa.or_(runs.c.state.in_([state.value for state in ADOPTABLE]), abandoned)


def tracked(database: Database, keys: Iterable[RunKey]) -> dict[RunKey, Tracked]:
    """Return where each of these runs stands; those that are not tracked are left out."""
    wanted: dict[str, list[int]] = {}
    for key in keys:
        if key.run_id <= MAX_RUN_ID:  # the database takes no more
            wanted.setdefault(key.run_type, []).append(key.run_id)
    found = {}
    with database.read() as connection:
        for run_type, run_ids in wanted.items():
            query = sa.select(
                runs.c.run_id,
                runs.c.state,
                runs.c.location,
                runs.c.lease_expires_at,
                runs.c.updated_at,
                runs.c.error_code,
            ).where(runs.c.run_type == run_type, runs.c.run_id.in_(run_ids))
            for run_id, state, *rest in connection.execute(query):
                found[RunKey(run_type, run_id)] = Tracked(State(state), *rest)
    return found


def _identity(run: SavedRun) -> dict[str, object]:
    return {
        "key_type": run.key.run_type,
        "key_id": run.key.run_id,
        "was_at": run.location,
        "was_sha256": run.sha256,
        "was_done_at": run.done_at,
    }
