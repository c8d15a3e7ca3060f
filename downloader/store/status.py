"""How everything stands: counts, what was saved of late, what is blocked, what failed last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from downloader.rules.estimate import ENOUGH, WINDOWS, Recent, recent
from downloader.rules.states import UNFINISHED, State
from downloader.store import blocks
from downloader.store.inspection import count
from downloader.store.schema import UTCText, in_state, run_events, runs

if TYPE_CHECKING:
    from datetime import datetime

    from downloader.store.database import Database

_QUEUED: Final = (State.PENDING, State.READY, State.DOWNLOADING, State.FAILED)
"""The states that have an index of their own."""

_LAST_FAILURES: Final = 3
"""How many failures a status tells of."""

_LAST_EVENTS: Final = 20_000
"""How far back the history is read for what was saved of late."""


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

_LATEST = (
    sa.select(
        run_events.c.run_type,
        run_events.c.run_id,
        run_events.c.at,
        run_events.c.from_state,
        run_events.c.to_state,
    )
    .order_by(run_events.c.event_id.desc())
    .limit(_LAST_EVENTS)
    .subquery("latest")
)
_SAVED_SINCE: Final = (
    sa.select(
        sa.func.min(_LATEST.c.at, type_=UTCText),
        sa.func.count(),
        sa.func.total(runs.c.bytes),
    )
    .join_from(
        _LATEST,
        runs,
        sa.and_(runs.c.run_type == _LATEST.c.run_type, runs.c.run_id == _LATEST.c.run_id),
    )
    .where(
        _LATEST.c.to_state == State.DONE.value,
        _LATEST.c.from_state != State.DONE.value,  # a hook's row is no transition
        _LATEST.c.at >= sa.bindparam("since", type_=UTCText),
    )
)


def status(database: Database, now: datetime) -> Status:
    """Return how everything stands.

    Asked in pieces: counting by state in one statement has SQLite sort all the rows.
    """
    unfinished = sa.or_(*(in_state(state) for state in sorted(UNFINISHED)))
    done = in_state(State.DONE)
    with database.read() as connection:
        counted = {state: count(connection, state) for state in _QUEUED}
        row = connection.execute(
            sa.select(
                sa.func.count().filter(done),
                sa.func.count().filter(in_state(State.CANCELLED)),
                sa.func.total(runs.c.bytes).filter(done),
                sa.func.min(runs.c.submitted_at).filter(unfinished),
            )
        ).one()
        counted[State.DONE], counted[State.CANCELLED], saved_bytes, oldest = row
        of_late = _saved_of_late(connection, now)
        failures = [Failure(*row) for row in connection.execute(_FAILURES)]
    return Status(
        at=now,
        runs={state.value: counted[state] for state in State},
        bytes=int(saved_bytes),
        blocked=blocks.current_blocks(database),
        oldest_unfinished_at=oldest,
        recent=of_late,
        failures=failures,
    )


def _saved_of_late(connection: sa.Connection, now: datetime) -> Recent:
    """Return what was saved in the last minutes; in the last day, where that was too little.

    Read from the end of the history, and no further back than some thousand events: among a
    million runs that takes as long as among a thousand.
    """
    of_late = Recent(0.0, 0, 0)
    for seconds in WINDOWS:
        since = now - timedelta(seconds=seconds)
        first_done_at, number, size = connection.execute(_SAVED_SINCE, {"since": since}).one()
        of_late = recent(first_done_at, number, int(size), now)
        if number >= ENOUGH:
            break
    return of_late
