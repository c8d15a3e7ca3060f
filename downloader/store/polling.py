"""The pending queue: claiming the runs to ask for, and recording what the API said of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, assert_never

import sqlalchemy as sa

from downloader.rules.batching import MAX_BATCH, Batch, plan
from downloader.rules.decisions import REFUSED
from downloader.rules.states import RunKey, State
from downloader.rules.steps import PollFailed, PollLater, UrlReceived
from downloader.store import events
from downloader.store.schema import in_state, one_more, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from downloader.rules.steps import PollStep
    from downloader.store.database import Database
    from downloader.store.leases import Owner


@dataclass(frozen=True, slots=True)
class DueRun:
    """A run to ask for, with what the decision about its answer needs."""

    key: RunKey
    polls: int
    submitted_at: datetime
    next_attempt_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch that nobody else will ask for while its lease lasts."""

    batch: Batch
    lease: str
    runs: tuple[DueRun, ...]


_COLUMNS = (
    runs.c.run_type,
    runs.c.run_id,
    runs.c.polls,
    runs.c.submitted_at,
    runs.c.next_attempt_at,
)
_PENDING = in_state(State.PENDING)
_OF_TYPE = runs.c.run_type == sa.bindparam("of_type")

# A claim moves `next_attempt_at` to its own end, so one whose holder died falls due by itself.
_DUE = (
    sa.select(*_COLUMNS)
    .where(_PENDING, _OF_TYPE, runs.c.next_attempt_at <= sa.bindparam("cutoff"))
    .order_by(runs.c.next_attempt_at)
    .limit(sa.bindparam("most"))
)
_SOON = (
    sa.select(*_COLUMNS)
    .where(
        _PENDING,
        _OF_TYPE,
        runs.c.next_attempt_at > sa.bindparam("cutoff"),
        runs.c.next_attempt_at <= sa.bindparam("horizon"),
        runs.c.lease_owner.is_(None),
    )
    .order_by(runs.c.next_attempt_at)
    .limit(sa.bindparam("most"))
)
_BY_KEY = (runs.c.run_type == sa.bindparam("key_type"), runs.c.run_id == sa.bindparam("key_id"))
_CLAIM = (
    sa.update(runs)
    .where(*_BY_KEY, _PENDING)
    .values(
        lease_owner=sa.bindparam("lease"),
        lease_expires_at=sa.bindparam("until"),
        next_attempt_at=sa.bindparam("until"),
        updated_at=sa.bindparam("now"),
    )
)


def next_due_at(database: Database, run_types: Iterable[str]) -> datetime | None:
    """Return when the next pending run falls due, None if none is pending."""
    earliest = (
        sa.select(runs.c.next_attempt_at)
        .where(_PENDING, _OF_TYPE)
        .order_by(runs.c.next_attempt_at)
        .limit(1)
    )
    with database.read() as connection:
        found = [connection.scalar(earliest, {"of_type": name}) for name in run_types]
    return min((moment for moment in found if moment is not None), default=None)


def claim_due(
    database: Database,
    owner: Owner,
    run_types: Iterable[str],
    *,
    most: int,
    now: datetime,
    cutoff: datetime,
    soon_seconds: float,
    lease_until: datetime,
) -> list[ClaimedBatch]:
    """Claim up to `most` runs due at `cutoff`, the most overdue first, packed into batches.

    A batch that comes out short is filled up with runs due within `soon_seconds`, so a few
    more than `most` may be claimed. Nobody else asks for them until `lease_until`.
    """
    with database.write() as connection:
        due: list[DueRun] = []
        for name in run_types:
            found = connection.execute(_DUE, {"of_type": name, "cutoff": cutoff, "most": most})
            due += [_due_run(row) for row in found]
        due = sorted(due, key=attrgetter("next_attempt_at"))[:most]
        soon: list[DueRun] = []
        for name in {run.key.run_type for run in due}:
            found = connection.execute(
                _SOON,
                {
                    "of_type": name,
                    "cutoff": cutoff,
                    "horizon": cutoff + timedelta(seconds=soon_seconds),
                    "most": MAX_BATCH - 1,
                },
            )
            soon += [_due_run(row) for row in found]
        by_key = {run.key: run for run in (*due, *soon)}
        claimed = [
            ClaimedBatch(
                batch,
                owner.new_lease(),
                tuple(by_key[RunKey(batch.run_type, run_id)] for run_id in batch.run_ids),
            )
            for batch in plan([run.key for run in due], [run.key for run in soon])
        ]
        for one in claimed:
            connection.execute(
                _CLAIM,
                [
                    {
                        "key_type": run.key.run_type,
                        "key_id": run.key.run_id,
                        "lease": one.lease,
                        "until": lease_until,
                        "now": now,
                    }
                    for run in one.runs
                ],
            )
    return claimed


def _due_run(row: Sequence[Any]) -> DueRun:
    run_type, run_id, polls, submitted_at, next_attempt_at = row
    return DueRun(RunKey(run_type, run_id), polls, submitted_at, next_attempt_at)


_HELD = (*_BY_KEY, _PENDING, runs.c.lease_owner == sa.bindparam("lease"))
_NO_LEASE = {"lease_owner": None, "lease_expires_at": None}


def record_polls(
    database: Database, lease: str, steps: Sequence[tuple[RunKey, PollStep]], now: datetime
) -> set[RunKey]:
    """Record what is known of runs claimed under `lease`; return which were still held.

    A run whose claim was lost keeps what its new holder wrote.
    """
    history: list[tuple[RunKey, State, State, str, str | None]] = []
    held: set[RunKey] = set()
    with database.write() as connection:
        for key, step in steps:
            statement = sa.update(runs).where(*_HELD).values(_values(step, now) | _NO_LEASE)
            found = connection.execute(
                statement, {"key_type": key.run_type, "key_id": key.run_id, "lease": lease}
            )
            if found.rowcount == 0:
                continue
            held.add(key)
            match step:
                case UrlReceived():
                    history.append(
                        (key, State.PENDING, State.READY, "url_received", step.remote_status)
                    )
                case PollFailed():
                    history.append(
                        (key, State.PENDING, State.FAILED, step.error_code, step.error_message)
                    )
                case PollLater():
                    pass  # no change of state
        events.record(connection, now, history)
    return held


def _values(step: PollStep, now: datetime) -> dict[str, object]:
    """Return the columns that one step of a poll sets."""
    match step:
        case UrlReceived():
            return {
                "state": State.READY.value,
                "url": step.url,
                "url_expires_at": step.url_expires_at,
                "remote_status": step.remote_status,
                "polls": one_more(runs.c.polls),
                "next_attempt_at": now,
                "ready_at": now,
                "updated_at": now,
            }
        case PollLater(asked=True):
            return {
                "next_attempt_at": step.next_attempt_at,
                "remote_status": sa.func.coalesce(step.remote_status, runs.c.remote_status),
                "polls": one_more(runs.c.polls),
                # That the last URL was refused is remembered until there is another one.
                "error_code": sa.case(
                    (runs.c.error_code == REFUSED, REFUSED), else_=step.error_code
                ),
                "error_message": sa.case(
                    (runs.c.error_code == REFUSED, runs.c.error_message), else_=step.error_message
                ),
                "updated_at": now,
            }
        case PollLater():
            return {"next_attempt_at": step.next_attempt_at, "updated_at": now}
        case PollFailed():
            return {
                "state": State.FAILED.value,
                "next_attempt_at": None,
                "remote_status": sa.func.coalesce(step.remote_status, runs.c.remote_status),
                "polls": one_more(runs.c.polls),
                "error_code": step.error_code,
                "error_message": step.error_message,
                "updated_at": now,
            }
        case _:
            assert_never(step)
