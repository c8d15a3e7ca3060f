"""Runs one by one: those that a filter lets through, what is saved, one with its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from downloader.rules.states import RunKey, State
from downloader.store import events
from downloader.store.schema import in_state, is_run, runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from downloader.store.database import Database

# Every column but `url`: a presigned URL is a secret while it lives.
SHOWN = tuple(column for column in runs.c if column.name != "url")


class Filter(NamedTuple):
    """Which runs to list; None, or nothing in it, where all are."""

    states: tuple[State, ...] = ()
    run_type: str | None = None
    error_codes: tuple[str, ...] = ()
    submitted_before: datetime | None = None
    submitted_after: datetime | None = None
    done_after: datetime | None = None

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """Return what a row has to fulfil."""
        found: list[sa.ColumnElement[bool]] = []
        if self.states:
            found.append(sa.or_(*(in_state(state) for state in self.states)))
        if self.run_type is not None:
            found.append(runs.c.run_type == self.run_type)
        if self.error_codes:
            found.append(runs.c.error_code.in_(self.error_codes))
        if self.submitted_before is not None:
            found.append(runs.c.submitted_at <= self.submitted_before)
        if self.submitted_after is not None:
            found.append(runs.c.submitted_at >= self.submitted_after)
        if self.done_after is not None:
            found.append(runs.c.done_at >= self.done_after)
        return found


def list_runs(
    database: Database, which: Filter, *, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield runs, the last changed first, as dictionaries of every column but `url`."""
    query = sa.select(*SHOWN).order_by(
        runs.c.updated_at.desc(), runs.c.run_type, runs.c.run_id.desc()
    )
    yield from _rows(database, query.where(*which.clauses()).limit(limit))


MANIFEST: Final = (
    runs.c.run_type,
    runs.c.run_id,
    runs.c.location,
    runs.c.bytes,
    runs.c.sha256,
    runs.c.audio_format,
    runs.c.submitted_at,
    runs.c.done_at,
)
"""What a manifest tells of each saved file."""


def saved_files(database: Database, which: Filter) -> Iterator[dict[str, Any]]:
    """Yield what is saved, by type and run id, as dictionaries of the columns of a manifest."""
    query = sa.select(*MANIFEST).where(in_state(State.DONE), *which.clauses())
    yield from _rows(database, query.order_by(runs.c.run_type, runs.c.run_id))


def saved_page(
    database: Database, which: Filter, *, after: RunKey | None, most: int
) -> list[dict[str, Any]]:
    """Return the next so many that `saved_files` yields, those behind the run `after`.

    So that whoever takes long over them keeps no transaction open, and the log short.
    """
    query = sa.select(*MANIFEST).where(in_state(State.DONE), *which.clauses())
    return _page(database, query, after, most)


FAILURE: Final = (
    runs.c.run_type,
    runs.c.run_id,
    runs.c.error_code,
    runs.c.error_message,
    runs.c.updated_at.label("failed_at"),
)
"""What is told of a run that failed."""


STANDING: Final = (
    runs.c.run_type,
    runs.c.run_id,
    runs.c.state,
    runs.c.location,
    runs.c.error_code,
    runs.c.error_message,
    runs.c.submitted_at,
    runs.c.updated_at,
)
"""What is told of where a run stands."""


def standing_page(
    database: Database, which: Filter, *, after: RunKey | None, most: int
) -> list[dict[str, Any]]:
    """Return the next so many runs, by type and run id, those behind `after`."""
    return _page(database, sa.select(*STANDING).where(*which.clauses()), after, most)


def standing(database: Database, key: RunKey) -> dict[str, Any] | None:
    """Return where a run stands, None where it is not tracked."""
    query = sa.select(*STANDING).where(is_run(key))
    with database.read() as connection:
        row = connection.execute(query).mappings().first()
        return None if row is None else dict(row)


def failed_page(
    database: Database, which: Filter, *, after: RunKey | None, most: int
) -> list[dict[str, Any]]:
    """Return the next so many runs that failed, by type and run id, those behind `after`."""
    query = sa.select(*FAILURE).where(in_state(State.FAILED), *which.clauses())
    return _page(database, query, after, most)


def _page(
    database: Database, query: sa.Select[Any], after: RunKey | None, most: int
) -> list[dict[str, Any]]:
    if after is not None:
        key = sa.tuple_(runs.c.run_type, runs.c.run_id)
        query = query.where(key > sa.tuple_(sa.literal(after.run_type), sa.literal(after.run_id)))
    query = query.order_by(runs.c.run_type, runs.c.run_id).limit(most)
    with database.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _rows(database: Database, query: sa.Select[Any]) -> Iterator[dict[str, Any]]:
    """Yield rows as they come: there may be a million."""
    with database.read() as connection:
        for row in connection.execute(query.execution_options(yield_per=1000)).mappings():
            yield dict(row)


def show_run(database: Database, key: RunKey) -> tuple[dict[str, Any], list[events.Event]] | None:
    """Return one run (every column but `url`) and its history, None where it is not tracked."""
    with database.read() as connection:
        row = connection.execute(sa.select(*SHOWN).where(is_run(key))).mappings().first()
        return None if row is None else (dict(row), events.history(connection, key))
