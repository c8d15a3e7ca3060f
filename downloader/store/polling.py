"""The pending queue: claiming the runs to ask for, and recording what the API said of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from downloader.rules.answer_body import NOT_FOUND
from downloader.rules.batching import MAX_BATCH, Batch, plan
from downloader.rules.decisions import REFUSED, UNKNOWN
from downloader.rules.error_codes import API_ERRORS, TRANSFER_ERRORS
from downloader.rules.states import RunKey, State
from downloader.rules.steps import PollFailed, PollLater, UrlReceived
from downloader.store import events
from downloader.store.rows import ForRows
from downloader.store.schema import BY_KEY, UTCText, in_state, one_more, runs
from downloader.store.transitions import (
    NO_LEASE,
    carry_out,
    held,
    parameters,
    record_in_group,
    statement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from downloader.rules.pace import Lead
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
    poll_errors: int = 0
    unknown_since: datetime | None = None
    unknown_answers: int = 0


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch that nobody else will ask for while its lease lasts."""

    batch: Batch
    lease: str
    runs: tuple[DueRun, ...]
    lead: Lead | None = None
    """Whose neighbours these are; None for runs that were due."""


COLUMNS = (
    runs.c.run_type,
    runs.c.run_id,
    runs.c.polls,
    runs.c.submitted_at,
    runs.c.next_attempt_at,
    runs.c.unknown_since,
    runs.c.unknown_answers,
)
PENDING = in_state(State.PENDING)
OF_TYPE = runs.c.run_type == sa.bindparam("of_type")

WINDOW: Final = 256
"""Rows that are looked at for runs worth asking for before their time. What waits after an error,
or for a new URL after a refused one, is not among these: it waits for its time."""

# A claim moves `next_attempt_at` to its own end, so one whose holder died falls due by itself.
_DUE = (
    sa.select(*COLUMNS)
    .where(PENDING, OF_TYPE, runs.c.next_attempt_at <= sa.bindparam("cutoff"))
    .order_by(runs.c.next_attempt_at)
    .limit(sa.bindparam("most"))
)
_NEXT = (
    sa.select(*COLUMNS, runs.c.lease_owner, runs.c.error_code)
    .where(
        PENDING,
        OF_TYPE,
        runs.c.next_attempt_at > sa.bindparam("cutoff"),
        runs.c.next_attempt_at <= sa.bindparam("horizon"),
    )
    .order_by(runs.c.next_attempt_at)
    .limit(WINDOW)
    .subquery("next")
)
_SOON = (
    sa.select(*(_NEXT.c[column.name] for column in COLUMNS))
    .where(
        _NEXT.c.lease_owner.is_(None),
        _NEXT.c.error_code.is_(None),
        # Not one that was left alone because it is too young, or because others speak for it.
        sa.or_(_NEXT.c.polls > 0, _NEXT.c.next_attempt_at <= _NEXT.c.submitted_at),
    )
    .limit(sa.bindparam("most"))
)
_CLAIM = ForRows(
    sa.update(runs)
    .where(*BY_KEY, PENDING)
    .values(
        lease_owner=sa.bindparam("lease"),
        lease_expires_at=sa.bindparam("until"),
        next_attempt_at=sa.bindparam("until"),
        updated_at=sa.bindparam("now"),
    )
)

_LEAVE = ForRows(
    sa.update(runs).where(*BY_KEY, PENDING).values(next_attempt_at=sa.bindparam("until"))
)

_EARLIEST = (
    sa.select(runs.c.next_attempt_at)
    .where(PENDING, OF_TYPE)
    .order_by(runs.c.next_attempt_at)
    .limit(1)
)


def next_due_at(database: Database, run_types: Iterable[str]) -> datetime | None:
    """Return when the next pending run falls due, None if none is pending."""
    with database.read() as connection:
        found = [connection.scalar(_EARLIEST, {"of_type": name}) for name in run_types]
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
    too_young: Callable[[Sequence[DueRun], datetime], Mapping[RunKey, datetime]] | None = None,
) -> list[ClaimedBatch]:
    """Claim up to `most` runs due at `cutoff`, the most overdue first, packed into batches.

    A batch that comes out short is filled up with runs due within `soon_seconds`, so a few
    more than `most` may be claimed. Nobody else asks for them until `lease_until`. Runs that
    `too_young` names are left alone until the moment that it gives.
    """
    with database.write() as connection:
        due: list[DueRun] = []
        for name in run_types:
            found = connection.execute(_DUE, {"of_type": name, "cutoff": cutoff, "most": most})
            due += [due_run(row) for row in found]
        due = sorted(due, key=attrgetter("next_attempt_at"))[:most]
        if too_young is not None and (young := too_young(due, now)):
            _LEAVE.execute(
                connection,
                [
                    {"key_type": key.run_type, "key_id": key.run_id, "until": until}
                    for key, until in young.items()
                ],
            )
            due = [run for run in due if run.key not in young]
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
            soon += [due_run(row) for row in found]
        by_key = {run.key: run for run in (*due, *soon)}
        return [
            claim_batch(
                connection,
                owner,
                [by_key[RunKey(batch.run_type, run_id)] for run_id in batch.run_ids],
                now=now,
                lease_until=lease_until,
            )
            for batch in plan([run.key for run in due], [run.key for run in soon])
        ]


def claim_batch(
    connection: sa.Connection,
    owner: Owner,
    found: Sequence[DueRun],
    *,
    now: datetime,
    lease_until: datetime,
    lead: Lead | None = None,
) -> ClaimedBatch:
    """Claim the runs of one batch, all of one type."""
    batch = Batch(found[0].key.run_type, tuple(run.key.run_id for run in found))
    claimed = ClaimedBatch(batch, owner.new_lease(), tuple(found), lead)
    _CLAIM.execute(
        connection,
        [
            {
                "key_type": run.key.run_type,
                "key_id": run.key.run_id,
                "lease": claimed.lease,
                "until": lease_until,
                "now": now,
            }
            for run in found
        ],
    )
    return claimed


def due_run(row: Sequence[Any]) -> DueRun:
    """Read a row of `COLUMNS`."""
    run_type, run_id, polls, submitted_at, next_attempt_at, unknown_since, unknown_answers = row
    return DueRun(
        RunKey(run_type, run_id),
        polls,
        submitted_at,
        next_attempt_at,
        unknown_since=unknown_since,
        unknown_answers=unknown_answers,
    )


_HELD = held(State.PENDING)
_WORD: Final[sa.ColumnElement[str]] = sa.func.coalesce(
    sa.bindparam("new_remote_status"), runs.c.remote_status
)
_ASKED: Final = {"polls": one_more(runs.c.polls), "remote_status": _WORD}
_NO_ANSWER: Final = sa.and_(
    sa.bindparam("new_error_code").is_not(None), sa.bindparam("new_unknown_answers") == 0
)
_KNOWN_WORD: Final[sa.ColumnElement[str]] = sa.func.coalesce(
    sa.bindparam("new_remote_status"), sa.func.nullif(runs.c.remote_status, NOT_FOUND)
)
_ERROR_OF_THE_API: Final = sa.or_(
    runs.c.error_code.in_(sorted((API_ERRORS | {UNKNOWN}) - TRANSFER_ERRORS)),
    sa.and_(runs.c.attempts == 0, runs.c.refreshes == 0),  # some codes are of both
)
_URL_REFUSED: Final = runs.c.error_code == REFUSED
_NOT_ASKED: Final = "not asked"
"""The kind of a step that only gives a claim back."""

_STATEMENTS: Final[Mapping[type[PollStep] | str, ForRows]] = {
    UrlReceived: statement(
        UrlReceived,
        _HELD,
        {
            "state": State.READY.value,
            "polls": one_more(runs.c.polls),
            "next_attempt_at": sa.func.coalesce(
                sa.bindparam("new_next_attempt_at", type_=runs.c.next_attempt_at.type),
                sa.bindparam("now", type_=runs.c.next_attempt_at.type),
            ),
            "ready_at": sa.bindparam("now"),
            # The API has answered; what the storage has against the run is still to be seen.
            "error_code": sa.case((_ERROR_OF_THE_API, None), else_=runs.c.error_code),
            "error_message": sa.case((_ERROR_OF_THE_API, None), else_=runs.c.error_message),
            "unknown_since": None,
            "unknown_answers": 0,
        },
    ),
    PollLater: statement(
        PollLater,
        _HELD,
        {
            **_ASKED,
            # Without an answer the run is as unknown as before; any other answer knows it.
            "remote_status": sa.case((_NO_ANSWER, _WORD), else_=_KNOWN_WORD),
            "unknown_since": sa.case(
                (_NO_ANSWER, runs.c.unknown_since),
                else_=sa.bindparam("new_unknown_since", type_=UTCText),
            ),
            "unknown_answers": sa.case(
                (_NO_ANSWER, runs.c.unknown_answers), else_=sa.bindparam("new_unknown_answers")
            ),
            # That the last URL was refused is remembered until there is another one.
            "error_code": sa.case((_URL_REFUSED, REFUSED), else_=sa.bindparam("new_error_code")),
            "error_message": sa.case(
                (_URL_REFUSED, runs.c.error_message), else_=sa.bindparam("new_error_message")
            ),
        },
    ),
    PollFailed: statement(
        PollFailed,
        _HELD,
        {
            **_ASKED,
            "state": State.FAILED.value,
            "next_attempt_at": None,
            "unknown_answers": runs.c.unknown_answers
            + (sa.bindparam("new_error_code") == UNKNOWN).cast(sa.Integer),
        },
    ),
    _NOT_ASKED: ForRows(
        sa.update(runs)
        .where(*_HELD)
        .values(
            {
                **NO_LEASE,
                "next_attempt_at": sa.bindparam("new_next_attempt_at"),
                "updated_at": sa.bindparam("now"),
            }
        )
    ),
}


def record_polls(
    database: Database, judged: Sequence[tuple[RunKey, str, PollStep]], now: datetime
) -> list[bool]:
    """Record what is known of runs (run, lease, step) in one transaction; say of each if it holds.

    A run whose claim was lost keeps what its new holder wrote.
    """

    def together(connection: sa.Connection, some: Sequence[tuple[RunKey, str, PollStep]]) -> None:
        carry_out(
            connection,
            _STATEMENTS,
            [(_kind_of(step), parameters(key, lease, step, now)) for key, lease, step in some],
        )
        told = [event for key, _, step in some if (event := _event_of(key, step)) is not None]
        events.record(connection, now, told)

    held, _ = record_in_group(database, judged, together, lambda _: None)
    return held


def _kind_of(step: PollStep) -> type[PollStep] | str:
    unasked = isinstance(step, PollLater) and not step.asked
    return _NOT_ASKED if unasked else type(step)


def _event_of(key: RunKey, step: PollStep) -> tuple[RunKey, State, State, str, str | None] | None:
    """Return the transition that a step is, None where the state stays."""
    match step:
        case UrlReceived():
            return key, State.PENDING, State.READY, "url_received", step.remote_status
        case PollFailed():
            return key, State.PENDING, State.FAILED, step.error_code, step.error_message
        case PollLater():
            return None
