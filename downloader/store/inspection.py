"""Looking into the database: counts, lists, one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from downloader.rules.states import UNFINISHED, RunKey, State
from downloader.store import blocks, events
from downloader.store.schema import in_state, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from downloader.store.database import Database

# Every column but `url`: a presigned URL is a secret while it lives.
SHOWN = tuple(column for column in runs.c if column.name != "url")

_QUEUED: Final = (State.PENDING, State.READY, State.DOWNLOADING, State.FAILED)
"""The states that have an index of their own."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the whole: runs by state, bytes saved, what is blocked."""

    runs: dict[str, int]
    bytes: int
    blocked: list[blocks.Block]
    oldest_unfinished_at: datetime | None


def status(database: Database) -> Status:
    """Return counts by state (every state is there), bytes saved, and the oldest unfinished.

    Asked in pieces: counting by state in one statement has SQLite sort all the rows.
    """
    unfinished = sa.or_(*(in_state(state) for state in sorted(UNFINISHED)))
    done = in_state(State.DONE)
    with database.read() as connection:
        counted = {state: _count(connection, state) for state in _QUEUED}
        row = connection.execute(
            sa.select(
                sa.func.count().filter(done),
                sa.func.count().filter(in_state(State.CANCELLED)),
                sa.func.total(runs.c.bytes).filter(done),
                sa.func.min(runs.c.submitted_at).filter(unfinished),
            )
        ).one()
    counted[State.DONE], counted[State.CANCELLED], saved_bytes, oldest = row
    return Status(
        runs={state.value: counted[state] for state in State},
        bytes=int(saved_bytes),
        blocked=blocks.current_blocks(database),
        oldest_unfinished_at=oldest,
    )


def _count(connection: sa.Connection, state: State) -> int:
    """Return how many runs are in a state, from the index of its queue alone."""
    counted = sa.select(sa.func.count()).select_from(runs).where(in_state(state))
    return connection.scalar(counted) or 0


def count_unfinished(database: Database) -> int:
    """Return how many runs are pending, ready or downloading, from the queues' indexes alone."""
    with database.read() as connection:
        return sum(_count(connection, state) for state in sorted(UNFINISHED))


def any_unfinished(database: Database, run_types: Iterable[str] | None = None) -> bool:
    """Return whether any run (of these types, if given) is pending, ready or downloading."""
    of_these = sa.true() if run_types is None else runs.c.run_type.in_(list(run_types))
    with database.read() as connection:
        return any(
            connection.scalar(
                sa.select(sa.literal(1)).select_from(runs).where(in_state(state), of_these).limit(1)
            )
            for state in sorted(UNFINISHED)
        )


def any_of_other_types(database: Database, run_types: Iterable[str]) -> bool:
    """Return whether an unfinished run is of another type, which nobody takes up."""
    known = set(run_types)
    with database.read() as connection:
        for state in sorted(UNFINISHED):
            # From type to type: among a million runs of one, a look at each would take a while.
            name = connection.scalar(sa.select(sa.func.min(runs.c.run_type)).where(in_state(state)))
            while name is not None:
                if name not in known:
                    return True
                name = connection.scalar(
                    sa.select(sa.func.min(runs.c.run_type)).where(
                        in_state(state), runs.c.run_type > name
                    )
                )
    return False


def any_done(database: Database) -> RunKey | None:
    """Return a run that is done, None where none is."""
    with database.read() as connection:
        row = connection.execute(
            sa.select(runs.c.run_type, runs.c.run_id).where(in_state(State.DONE)).limit(1)
        ).first()
    return None if row is None else RunKey(*row)


def list_runs(
    database: Database, *, state: State | None, run_type: str | None, limit: int | None
) -> Iterator[dict[str, Any]]:
    """Yield runs, the last changed first, as dictionaries of every column but `url`."""
    query = sa.select(*SHOWN).order_by(
        runs.c.updated_at.desc(), runs.c.run_type, runs.c.run_id.desc()
    )
    if state is not None:
        query = query.where(in_state(state))
    if run_type is not None:
        query = query.where(runs.c.run_type == run_type)
    if limit is not None:
        query = query.limit(limit)
    with database.read() as connection:
        for row in connection.execute(query.execution_options(yield_per=1000)).mappings():
            yield dict(row)


def show_run(database: Database, key: RunKey) -> tuple[dict[str, Any], list[events.Event]] | None:
    """Return one run (every column but `url`) and its history, None where it is not tracked."""
    with database.read() as connection:
        row = (
            connection.execute(
                sa.select(*SHOWN).where(
                    runs.c.run_type == key.run_type, runs.c.run_id == key.run_id
                )
            )
            .mappings()
            .first()
        )
        return None if row is None else (dict(row), events.history(connection, key))


def states_of(database: Database, keys: list[RunKey]) -> dict[RunKey, str]:
    """Return the state of each tracked run among `keys`."""
    found = {}
    with database.read() as connection:
        for key in keys:
            state = connection.scalar(
                sa.select(runs.c.state).where(
                    runs.c.run_type == key.run_type, runs.c.run_id == key.run_id
                )
            )
            if state is not None:
                found[key] = state
    return found
