"""The ready queue and what is being transferred: claims, leases, outcomes, rescue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

import sqlalchemy as sa

from downloader.failpoints import At, reach
from downloader.rules.states import RunKey, State
from downloader.rules.steps import NewUrl, Published, PutBack, TransferFailed, TryAgain
from downloader.store import events
from downloader.store.schema import in_state, one_more, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from downloader.rules.steps import ExpiryStep, TransferStep
    from downloader.store.database import Database
    from downloader.store.leases import Owner


@dataclass(frozen=True, slots=True)
class ReadyRun:
    """A run with a URL, and what the decisions about its transfer need.

    `etag` and `total_bytes` describe the object that a part on the disk belongs to.
    """

    key: RunKey
    url: str = field(repr=False)
    url_expires_at: datetime | None
    ready_at: datetime | None
    attempts: int
    refreshes: int
    etag: str | None
    total_bytes: int | None
    error_code: str | None


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is ours to transfer while its lease lasts."""

    run: ReadyRun
    lease: str


@dataclass(frozen=True, slots=True)
class Ready:
    """What a claim found: the runs now claimed, and how many had let their URL expire."""

    claimed: tuple[ClaimedRun, ...]
    expired: int
    failed: int


_READY = in_state(State.READY)
_DOWNLOADING = in_state(State.DOWNLOADING)
_BY_KEY = (runs.c.run_type == sa.bindparam("key_type"), runs.c.run_id == sa.bindparam("key_id"))
_HELD = (*_BY_KEY, _DOWNLOADING, runs.c.lease_owner == sa.bindparam("lease"))
_DUE = (
    sa.select(
        runs.c.run_type,
        runs.c.run_id,
        runs.c.url,
        runs.c.url_expires_at,
        runs.c.ready_at,
        runs.c.attempts,
        runs.c.refreshes,
        runs.c.etag,
        runs.c.bytes,
        runs.c.error_code,
    )
    .where(_READY)
    # The earliest to expire first; of unknown expiry last, the oldest first.
    .order_by(runs.c.url_expires_at.is_(None), runs.c.url_expires_at, runs.c.ready_at)
    .limit(sa.bindparam("most"))
)
_NOW = runs.c.next_attempt_at <= sa.bindparam("now")
_ONCE = sa.or_(
    runs.c.next_attempt_at <= sa.bindparam("cutoff"),
    # made ready since, and not tried yet
    sa.and_(_NOW, runs.c.next_attempt_at == runs.c.ready_at),
)
_CLAIM = (
    sa.update(runs)
    .where(*_BY_KEY, _READY)
    .values(
        state=State.DOWNLOADING.value,
        next_attempt_at=None,
        lease_owner=sa.bindparam("lease"),
        lease_expires_at=sa.bindparam("until"),
        updated_at=sa.bindparam("now"),
    )
)


def _may_be_taken(
    now: datetime, cutoff: datetime | None
) -> tuple[sa.ColumnElement[bool], dict[str, object]]:
    """Return which ready runs may be taken up, and the values of that condition."""
    if cutoff is None:
        return _NOW, {"now": now}
    return _ONCE, {"now": now, "cutoff": cutoff}


def count_ready(database: Database, now: datetime, cutoff: datetime | None = None) -> int:
    """Return how many runs wait with a URL for a worker: those that `claim_ready` would find."""
    condition, values = _may_be_taken(now, cutoff)
    waiting = sa.select(sa.func.count()).select_from(runs).where(_READY, condition)
    with database.read() as connection:
        return connection.scalar(waiting, values) or 0


def claim_ready(
    database: Database,
    owner: Owner,
    *,
    most: int,
    now: datetime,
    cutoff: datetime | None,
    lease_until: datetime,
    judge_expiry: Callable[[ReadyRun], ExpiryStep | None],
) -> Ready:
    """Claim up to `most` ready runs, the earliest to expire first.

    `judge_expiry` says what becomes of a run whose URL is too old to be used, None where it
    can be used; such runs leave the queue in the same transaction. With a `cutoff` only
    runs due by then, or made ready since and not tried yet, are looked at.
    """
    claimed: list[ClaimedRun] = []
    history: list[tuple[RunKey, State, State, str, str | None]] = []
    expired = failed = 0
    condition, values = _may_be_taken(now, cutoff)
    query = _DUE.where(condition)
    with database.read() as connection:  # an idle worker looks often, and takes no lock for it
        if connection.execute(query, values | {"most": 1}).first() is None:
            return Ready((), 0, 0)
    with database.write() as connection:
        for row in connection.execute(query, values | {"most": most}).all():
            run = _ready_run(row)
            names = {"key_type": run.key.run_type, "key_id": run.key.run_id}
            step = judge_expiry(run)
            if step is None:
                one = ClaimedRun(run, owner.new_lease())
                taken = connection.execute(
                    _CLAIM, names | {"lease": one.lease, "until": lease_until, "now": now}
                )
                if taken.rowcount == 0:  # its type is no text: nothing names this row
                    continue
                claimed.append(one)
                history.append((run.key, State.READY, State.DOWNLOADING, "claimed", one.lease))
                continue
            connection.execute(
                sa.update(runs).where(*_BY_KEY, _READY).values(_values(step, now)), names
            )
            history.append((run.key, State.READY, *_told(step)))
            expired += isinstance(step, NewUrl)
            failed += isinstance(step, TransferFailed)
        events.record(connection, now, history)
    return Ready(tuple(claimed), expired, failed)


def _ready_run(row: Sequence[Any]) -> ReadyRun:
    run_type, run_id, *rest = row
    return ReadyRun(RunKey(run_type, run_id), *rest)


def record_transfers(
    database: Database, outcomes: Sequence[tuple[RunKey, str, TransferStep]], now: datetime
) -> list[bool]:
    """Record outcomes (run, lease, step) in one transaction; say of each whether it holds.

    False: the lease was lost (rescued, cancelled), nothing was written, and the file is not
    this worker's to publish or to remove.
    """
    held: list[bool] = []
    history: list[tuple[RunKey, State, State, str, str | None]] = []
    with database.write() as connection:
        for key, lease, step in outcomes:
            statement = sa.update(runs).where(*_HELD).values(_values(step, now))
            found = connection.execute(
                statement, {"key_type": key.run_type, "key_id": key.run_id, "lease": lease}
            )
            held.append(found.rowcount == 1)
            if found.rowcount == 1:
                history.append((key, State.DOWNLOADING, *_told(step)))
        events.record(connection, now, history)
        reach(At.RECORD_WRITTEN)
    return held


def note_object(
    database: Database,
    claim: ClaimedRun,
    *,
    etag: str | None,
    total_bytes: int | None,
    now: datetime,
) -> bool:
    """Record which object a part on the disk belongs to, so that it can be resumed.

    Returns False where the lease was lost.
    """
    statement = sa.update(runs).where(*_HELD).values(etag=etag, bytes=total_bytes, updated_at=now)
    key = claim.run.key
    with database.write() as connection:
        found = connection.execute(
            statement, {"key_type": key.run_type, "key_id": key.run_id, "lease": claim.lease}
        )
    return found.rowcount == 1


_NO_URL = {"url": None, "url_expires_at": None}
_NO_LEASE = {"lease_owner": None, "lease_expires_at": None}


def _values(step: TransferStep, now: datetime) -> dict[str, object]:
    """Return the columns that one step of a transfer sets."""
    match step:
        case Published():
            values: dict[str, object] = _NO_URL | {
                "state": State.DONE.value,
                "location": step.location,
                "bytes": step.bytes,
                "sha256": step.sha256,
                "audio_format": step.audio_format,
                "etag": step.etag,
                "attempts": one_more(runs.c.attempts),
                "error_code": None,
                "error_message": None,
                "done_at": now,
            }
        case TryAgain():
            values = {
                "state": State.READY.value,
                "attempts": one_more(runs.c.attempts),
                "next_attempt_at": step.next_attempt_at,
                "error_code": step.error_code,
                "error_message": step.error_message,
            }
        case NewUrl():
            values = _NO_URL | {
                "state": State.PENDING.value,
                "attempts": step.attempts,
                "refreshes": step.refreshes,
                "next_attempt_at": step.next_attempt_at,
                "error_code": step.error_code,
                "error_message": step.error_message,
            }
        case PutBack():
            values = {"state": State.READY.value, "next_attempt_at": step.next_attempt_at}
        case TransferFailed():
            values = _NO_URL | {
                "state": State.FAILED.value,
                "next_attempt_at": None,
                "attempts": step.attempts,
                "refreshes": step.refreshes,
                "error_code": step.error_code,
                "error_message": step.error_message,
            }
        case _:
            assert_never(step)
    return values | _NO_LEASE | {"updated_at": now}


def _told(step: TransferStep) -> tuple[State, str, str | None]:
    """Return the state a step leads to, its reason and its detail, for the history."""
    match step:
        case Published():
            return State.DONE, "adopted" if step.adopted else "published", step.location
        case TryAgain():
            return State.READY, step.error_code, step.error_message
        case NewUrl():
            return State.PENDING, step.error_code, step.error_message
        case PutBack():
            return State.READY, step.reason, None
        case TransferFailed():
            return State.FAILED, step.error_code, step.error_message
        case _:
            assert_never(step)
