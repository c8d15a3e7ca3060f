"""How everything stands: counts, what was saved of late, what is blocked, what failed last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from downloader.rules.states import UNFINISHED, State
from downloader.store import blocks
from downloader.store.inspection import count
from downloader.store.schema import UTCText, in_state, runs

if TYPE_CHECKING:
    from datetime import datetime

    from downloader.store.database import Database

_QUEUED: Final = (State.PENDING, State.READY, State.DOWNLOADING, State.FAILED)
"""The states that have an index of their own."""

_LAST_FAILURES: Final = 3
"""How many failures a status tells of."""

_OF_LATE: Final = timedelta(hours=1)
"""How far back a status looks for what was saved of late; the view `eta` does the same."""


class Failure(NamedTuple):
    """A run that failed, and why."""

    run_type: str
    run_id: int
    error_code: str
    error_message: str
    failed_at: datetime


class Trouble(NamedTuple):
    """An error that unfinished runs have met: how many of them, and what it says of the last."""

    error_code: str
    runs: int
    error_message: str


@dataclass(frozen=True, slots=True)
class Recent:
    """What was saved of late, from the first of these files until now.

    Until now, not until the last of them: where nothing comes any more the rate goes down.
    """

    seconds: float
    runs: int
    bytes: int

    @property
    def per_second(self) -> tuple[float, float] | None:
        """Return how many files and bytes a second; None where that would be a guess.

        The first file starts the measure, and is not counted: as in the view `eta`.
        """
        if self.runs < 2 or self.seconds <= 0:
            return None
        files = (self.runs - 1) / self.seconds
        return files, files * self.bytes / self.runs


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the whole at a moment.

    `runs` by state, every one of them; `bytes` saved; what was saved of late; when all will be
    saved by the view `eta`, where it can tell; the failures that came last, the newest first; what
    unfinished runs have met, the most frequent first.
    """

    at: datetime
    runs: dict[str, int]
    bytes: int
    blocked: list[blocks.Block]
    oldest_unfinished_at: datetime | None
    recent: Recent
    expected_at: datetime | None
    failures: list[Failure]
    troubles: list[Trouble]

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

# With max() alone, SQLite takes the other columns from the row of the maximum. By the indexes of
# the queues it would take a look at each row, one by one: the plus has it read the table through.
_TROUBLES: Final = sa.text(
    "SELECT error_code, count(*) AS runs, error_message, max(updated_at) FROM runs"
    " WHERE error_code IS NOT NULL AND +state IN ('pending', 'ready', 'downloading')"
    " GROUP BY error_code ORDER BY runs DESC, error_code LIMIT 3"
)
_SAVED_OF_LATE: Final = sa.select(
    sa.func.min(runs.c.done_at, type_=UTCText), sa.func.count(), sa.func.total(runs.c.bytes)
).where(
    in_state(State.DONE),
    runs.c.done_at >= sa.bindparam("since", type_=UTCText),
    runs.c.done_at < sa.bindparam("now", type_=UTCText),
)
_EXPECTED: Final = sa.text("SELECT expected_at FROM eta").columns(sa.column("expected_at", UTCText))


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
        expected_at, troubles = None, []
        if any(counted[state] for state in UNFINISHED):  # else a walk through all rows in vain
            expected_at = connection.execute(_EXPECTED).scalar_one()
            troubles = [
                Trouble(code, number, message)
                for code, number, message, _ in connection.execute(_TROUBLES)
            ]
    return Status(
        at=now,
        runs={state.value: counted[state] for state in State},
        bytes=int(saved_bytes),
        blocked=blocks.current_blocks(database),
        oldest_unfinished_at=oldest,
        recent=of_late,
        expected_at=expected_at,
        failures=failures,
        troubles=troubles,
    )


def _saved_of_late(connection: sa.Connection, now: datetime) -> Recent:
    """Return what was saved within the hour before now."""
    window = {"since": now - _OF_LATE, "now": now}
    first_done_at, number, size = connection.execute(_SAVED_OF_LATE, window).one()
    seconds = 0.0 if first_done_at is None else (now - first_done_at).total_seconds()
    return Recent(seconds, number, int(size))
