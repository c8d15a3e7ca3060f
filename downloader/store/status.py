"""How everything stands: counts, what was saved of late, what is blocked, what failed last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from downloader.rules.estimate import ENOUGH, WINDOWS, Recent, recent
from downloader.rules.states import UNFINISHED, State
from downloader.store import blocks
from downloader.store.inspection import count
from downloader.store.schema import in_state, runs

if TYPE_CHECKING:
    from datetime import datetime

    from downloader.store.database import Database

_QUEUED: Final = (State.PENDING, State.READY, State.DOWNLOADING, State.FAILED)
"""The states that have an index of their own."""


_LAST_FAILURES: Final = 3
"""How many failures a status tells of."""


class Failure(NamedTuple):
    """A run that failed, and why."""

    run_type: str
    run_id: int
    error_code: str
    error_message: str
    failed_at: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the whole at a moment.

    `runs` by state, every one of them; `bytes` saved; what was saved of late; the failures that
    came last, the newest first.
    """

    at: datetime
    runs: dict[str, int]
    bytes: int
    blocked: list[blocks.Block]
    oldest_unfinished_at: datetime | None
    recent: Recent
    failures: list[Failure]

    @property
    def unfinished(self) -> int:
        """How many runs are neither saved nor given up."""
        return sum(self.runs[state.value] for state in UNFINISHED)


def status(database: Database, now: datetime) -> Status:
    """Return how everything stands.

    Asked in pieces: counting by state in one statement has SQLite sort all the rows.
    """
    unfinished = sa.or_(*(in_state(state) for state in sorted(UNFINISHED)))
    done = in_state(State.DONE)
    short, long = (now - timedelta(seconds=seconds) for seconds in WINDOWS)
    with database.read() as connection:
        counted = {state: count(connection, state) for state in _QUEUED}
        row = connection.execute(
            sa.select(
                sa.func.count().filter(done),
                sa.func.count().filter(in_state(State.CANCELLED)),
                sa.func.total(runs.c.bytes).filter(done),
                sa.func.min(runs.c.submitted_at).filter(unfinished),
                *_saved_since(short),
            )
        ).one()
        counted[State.DONE], counted[State.CANCELLED], saved_bytes, oldest = row[:4]
        of_late = row[4:]
        if of_late[1] < ENOUGH and counted[State.DONE]:
            of_late = connection.execute(sa.select(*_saved_since(long))).one()
        failures = [Failure(*row) for row in connection.execute(_FAILURES)]
    first_done_at, number, size = of_late
    return Status(
        at=now,
        runs={state.value: counted[state] for state in State},
        bytes=int(saved_bytes),
        blocked=blocks.current_blocks(database),
        oldest_unfinished_at=oldest,
        recent=recent(first_done_at, number, int(size), now),
        failures=failures,
    )


def _saved_since(moment: datetime) -> tuple[sa.ColumnElement[Any], ...]:
    """Return the columns: the first that was saved since then, how many were, and their bytes."""
    since = sa.and_(in_state(State.DONE), runs.c.done_at >= moment)
    return (
        sa.func.min(runs.c.done_at).filter(since),
        sa.func.count().filter(since),
        sa.func.total(runs.c.bytes).filter(since),
    )


_FAILURES: Final = (
    sa.select(
        runs.c.run_type,
        runs.c.run_id,
        runs.c.error_code,
        runs.c.error_message,
        runs.c.updated_at,
    )
    .where(in_state(State.FAILED))
    .order_by(runs.c.updated_at.desc(), runs.c.run_id.desc())
    .limit(_LAST_FAILURES)
)
