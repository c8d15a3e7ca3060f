"""The pending queue: claiming the runs to ask for, and recording what the API said of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from downloader.rules.answer_body import NOT_FOUND
from downloader.rules.batching import ASKED_ALONE, MAX_BATCH, Batch, claim_size, plan
from downloader.rules.decisions import REFUSED, UNKNOWN, Asked
from downloader.rules.error_codes import API_ERRORS, TRANSFER_ERRORS
from downloader.rules.pace import lateness
from downloader.rules.states import MAX_INTEGER, RunKey, State
from downloader.rules.steps import PollFailed, PollLater, UrlReceived
from downloader.store.rows import ForRows
from downloader.store.schema import (
    BY_KEY,
    PAUSE_CLASS,
    PAUSE_CLASSES,
    UTCText,
    in_state,
    one_more,
    runs,
)
from downloader.store.transfers import RUN, ClaimedRun, ready_run
from downloader.store.transitions import (
    KEY,
    NO_LEASE,
    carry_out,
    held,
    parameters,
    statement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from downloader.rules.pace import Lead
    from downloader.rules.steps import PollStep
    from downloader.store.database import Database
    from downloader.store.events import Transition
    from downloader.store.leases import Owner


@dataclass(frozen=True, slots=True)
class DueRun:
    """A run to ask for, with what the decision about its answer needs.

    `touched_at` is when it was last asked for, or submitted, or given back unasked.
    """

    key: RunKey
    polls: int
    submitted_at: datetime
    next_attempt_at: datetime
    touched_at: datetime
    answers: int = 0
    poll_errors: int = 0
    unknown_since: datetime | None = None
    unknown_answers: int = 0

    @property
    def is_doubted(self) -> bool:
        """Whether it is asked for by itself: a batch that it is in may be refused for it.

        Again and again it had no answer while others had, or is unknown to the service.
        """
        return self.poll_errors >= ASKED_ALONE or self.unknown_answers > 0

    def asked(self, now: datetime) -> Asked:
        """Return what the decisions about its answer go by."""
        early = self.next_attempt_at > now
        return Asked(self.submitted_at, self.answers, self.poll_errors, early)

    def lateness(self, now: datetime) -> float:
        """Return what it is waited for by, against others: see `pace.lateness`."""
        due = self.next_attempt_at
        return lateness((due - self.touched_at).total_seconds(), (now - due).total_seconds())


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
    runs.c.updated_at,
    runs.c.answers,
    runs.c.poll_errors,
    runs.c.unknown_since,
    runs.c.unknown_answers,
)
PENDING = in_state(State.PENDING)
OF_TYPE = runs.c.run_type == sa.bindparam("of_type")
NEVER_ASKED: Final = PAUSE_CLASSES[:1]

WINDOW: Final = 256
"""Rows that are looked at for runs worth asking for before their time. What waits after an error,
or for a new URL after a refused one, is not among these: it waits for its time."""


def in_order_of_time(
    columns: Sequence[sa.ColumnElement[Any]],
    *where: sa.ColumnElement[bool],
    most: sa.BindParameter[int] | int,
    pauses: Iterable[int] = PAUSE_CLASSES,
) -> list[sa.Subquery]:
    """Select the pending runs of a type that fall due first: up to `most` of each class of pauses.

    The index has the runs of each class in this order: no more than these are read.
    """
    return [
        sa.select(*columns)
        .where(PENDING, OF_TYPE, sa.literal_column(str(number)) == PAUSE_CLASS, *where)
        .order_by(runs.c.next_attempt_at)
        .limit(most)
        .subquery(f"class_{number}")
        for number in pauses
    ]


def all_of(found: Sequence[sa.Subquery]) -> sa.CompoundSelect[Any]:
    """Select what was found in each class."""
    return sa.union_all(*(sa.select(one) for one in found))


# A claim moves `next_attempt_at` to its own end, so one whose holder died falls due by itself.
_IS_DUE = runs.c.next_attempt_at <= sa.bindparam("cutoff")
_DUE = all_of(in_order_of_time(COLUMNS, _IS_DUE, most=sa.bindparam("most")))
_DUE_NEW = all_of(in_order_of_time(COLUMNS, _IS_DUE, most=sa.bindparam("most"), pauses=NEVER_ASKED))
_DUE_NEWEST = (
    sa.select(*COLUMNS)
    .where(PENDING, OF_TYPE, sa.literal_column(str(*NEVER_ASKED)) == PAUSE_CLASS, _IS_DUE)
    .order_by(runs.c.next_attempt_at.desc(), sa.literal_column("rowid").desc())
    .limit(sa.bindparam("most"))
)
_ONE = sa.literal(1).label("one")
_ANY_DUE = all_of(in_order_of_time([_ONE], _IS_DUE, most=1))
_ANY_NEW = all_of(in_order_of_time([_ONE], _IS_DUE, most=1, pauses=NEVER_ASKED))
_SOON = sa.union_all(
    *(
        sa.select(
            sa.select(*(next_.c[column.name] for column in COLUMNS))
            .where(
                next_.c.lease_owner.is_(None),
                next_.c.error_code.is_(None),
                # Not one that was left alone because it is too young, or others speak for it.
                sa.or_(next_.c.polls > 0, next_.c.next_attempt_at <= next_.c.submitted_at),
            )
            .limit(sa.bindparam("most"))
            .subquery(f"soon_{number}")
        )
        for number, next_ in enumerate(
            in_order_of_time(
                (*COLUMNS, runs.c.lease_owner, runs.c.error_code),
                runs.c.next_attempt_at > sa.bindparam("cutoff"),
                runs.c.next_attempt_at <= sa.bindparam("horizon"),
                most=WINDOW,
            )
        )
    )
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

_NEXT_DUE = all_of(in_order_of_time([runs.c.next_attempt_at], most=1)).subquery("first")
_EARLIEST = sa.select(sa.func.min(_NEXT_DUE.c.next_attempt_at, type_=UTCText))


def next_due_at(database: Database, run_types: Iterable[str]) -> datetime | None:
    """Return when the next pending run falls due, None if none is pending."""
    with database.read() as connection:
        found = [connection.scalar(_EARLIEST, {"of_type": name}) for name in run_types]
    return min((moment for moment in found if moment is not None), default=None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which due runs to claim: up to `most`, those never asked for first.

    Up to `longest` of them are those that have been due the longest of the others. With `only_new`
    none is asked for again; with `newest` too those come first that were submitted last.
    """

    most: int
    longest: int = 0
    only_new: bool = False
    newest: bool = False

    def choose(self, due: Sequence[DueRun], now: datetime) -> list[DueRun]:
        """Return these runs, in the order in which they are to be asked for."""
        if self.newest:
            return list(due[: self.most])
        if len(due) > self.most:
            again = [run for run in due if run.lateness(now) < inf]
            by_time = sorted(again, key=attrgetter("next_attempt_at"))[: self.longest]
            taken = {run.key for run in by_time}
            others = sorted(
                (run for run in due if run.key not in taken),
                key=lambda run: (-run.lateness(now), run.next_attempt_at),
            )
            due = [*by_time, *others[: self.most - len(by_time)]]
        return sorted(due, key=lambda run: (run.lateness(now) < inf, run.next_attempt_at))


@dataclass(frozen=True, slots=True)
class Room:
    """How many runs there is use for, and how many requests for them, beside each claim's own."""

    runs: int = MAX_INTEGER
    requests: int = MAX_INTEGER

    def less(self, batches: Sequence[ClaimedBatch]) -> Room:
        """Return what is left when these are claimed."""
        used = sum(len(one.runs) for one in batches)
        return Room(self.runs - used, self.requests - len(batches))


@dataclass(frozen=True, slots=True)
class Due:
    """A claim of runs that are `wanted` of those due at `cutoff`, packed into batches.

    A batch that comes out short is filled up with runs due within `soon_seconds`, so a few
    more may be claimed. Nobody else asks for them until `lease_until`. Runs that
    `too_young` names are left alone until the moment that it gives.
    """

    owner: Owner
    run_types: Sequence[str]
    wanted: Wanted
    now: datetime
    cutoff: datetime
    soon_seconds: float
    lease_until: datetime
    too_young: Callable[[Sequence[DueRun], datetime], Mapping[RunKey, datetime]] | None = None

    def waits(self, connection: sa.Connection) -> bool:
        """Return whether a run is due."""
        look = _ANY_NEW if self.wanted.only_new else _ANY_DUE
        return self.wanted.most > 0 and any(
            connection.execute(look, {"cutoff": self.cutoff, "of_type": name}).first()
            for name in self.run_types
        )

    def claim(self, connection: sa.Connection, room: Room) -> list[ClaimedBatch]:
        """Claim what there is room for."""
        most = claim_size(room.runs, min(self.wanted.most, room.requests * MAX_BATCH))
        due = self._found(connection, replace(self.wanted, most=most)) if most > 0 else []
        alone = [[run] for run in due if run.is_doubted]
        due = [run for run in due if not run.is_doubted]
        soon = self._soon(connection, due)
        by_key = {run.key: run for run in (*due, *soon)}
        together = [
            [by_key[RunKey(batch.run_type, run_id)] for run_id in batch.run_ids]
            for batch in plan([run.key for run in due], [run.key for run in soon])
        ]
        return claim_batches(
            connection,
            self.owner,
            [*together, *alone],
            now=self.now,
            lease_until=self.lease_until,
        )

    def _found(self, connection: sa.Connection, wanted: Wanted) -> list[DueRun]:
        """Return the due runs to claim, and leave those alone that are too young."""
        due: list[DueRun] = []
        which = _DUE_NEWEST if wanted.newest else _DUE_NEW if wanted.only_new else _DUE
        for name in self.run_types:
            values = {"cutoff": self.cutoff, "most": wanted.most, "of_type": name}
            due += map(due_run, connection.execute(which, values).all())
        due = wanted.choose(due, self.now)
        young = self.too_young(due, self.now) if self.too_young is not None else {}
        if young:
            left = [
                {"key_type": key.run_type, "key_id": key.run_id, "until": until}
                for key, until in young.items()
            ]
            _LEAVE.execute(connection, left)
        return [run for run in due if run.key not in young]

    def _soon(self, connection: sa.Connection, due: Sequence[DueRun]) -> list[DueRun]:
        """Return runs that fall due soon, for the batches that are not full."""
        soon: list[DueRun] = []
        for name, runs_due in Counter(run.key.run_type for run in due).items():
            if runs_due % MAX_BATCH:
                values = {
                    "of_type": name,
                    "cutoff": self.cutoff,
                    "horizon": self.cutoff + timedelta(seconds=self.soon_seconds),
                    "most": MAX_BATCH - 1,
                }
                found = map(due_run, connection.execute(_SOON, values))
                soon += sorted(found, key=attrgetter("next_attempt_at"))[: MAX_BATCH - 1]
        return soon


def claim_due(
    database: Database,
    owner: Owner,
    run_types: Iterable[str],
    *,
    wanted: Wanted,
    now: datetime,
    cutoff: datetime,
    soon_seconds: float,
    lease_until: datetime,
    too_young: Callable[[Sequence[DueRun], datetime], Mapping[RunKey, datetime]] | None = None,
) -> list[ClaimedBatch]:
    """Claim runs that are due, and do nothing else."""
    from downloader.store.turn import claim_polls  # noqa: PLC0415 - it is made of what is here

    names = tuple(run_types)
    due = Due(owner, names, wanted, now, cutoff, soon_seconds, lease_until, too_young)
    return claim_polls(database, due)


def claim_batches(
    connection: sa.Connection,
    owner: Owner,
    batches: Sequence[Sequence[DueRun]],
    *,
    now: datetime,
    lease_until: datetime,
    lead: Lead | None = None,
) -> list[ClaimedBatch]:
    """Claim the runs of batches; those of each are of one type."""
    claimed = [
        ClaimedBatch(
            Batch(found[0].key.run_type, tuple(run.key.run_id for run in found)),
            owner.new_lease(),
            tuple(found),
            lead,
        )
        for found in batches
    ]
    values = [
        {
            "key_type": run.key.run_type,
            "key_id": run.key.run_id,
            "lease": one.lease,
            "until": lease_until,
            "now": now,
        }
        for one in claimed
        for run in one.runs
    ]
    _CLAIM.execute(connection, values)
    return claimed


def due_run(row: Sequence[Any]) -> DueRun:
    """Read a row of `COLUMNS`."""
    run_type, run_id, *rest = row
    return DueRun(RunKey(run_type, run_id), *rest)


_HELD = held(State.PENDING)
_WORD: Final[sa.ColumnElement[str]] = sa.func.coalesce(
    sa.bindparam("new_remote_status"), runs.c.remote_status
)
_ASKED: Final = {"polls": one_more(runs.c.polls), "remote_status": _WORD}
_ANSWERED: Final = {"answers": one_more(runs.c.answers), "poll_errors": 0}
_KNOWN_WORD: Final[sa.ColumnElement[str]] = sa.func.coalesce(
    sa.bindparam("new_remote_status"), sa.func.nullif(runs.c.remote_status, NOT_FOUND)
)
_UNKNOWN_AS_TOLD: Final = {
    "remote_status": _KNOWN_WORD,
    "unknown_since": sa.bindparam("new_unknown_since", type_=UTCText),
    "unknown_answers": sa.bindparam("new_unknown_answers"),
}
# Without an answer the run is as unknown as before; any other answer knows it.
_UNKNOWN_AS_BEFORE: Final = {
    "remote_status": _WORD,
    "unknown_since": runs.c.unknown_since,
    "unknown_answers": runs.c.unknown_answers,
}
_ERROR_OF_THE_API: Final = sa.or_(
    runs.c.error_code.in_(sorted((API_ERRORS | {UNKNOWN}) - TRANSFER_ERRORS)),
    sa.and_(runs.c.attempts == 0, runs.c.refreshes == 0),  # some codes are of both
)
_URL_REFUSED: Final = runs.c.error_code == REFUSED
_KEPT: Final = {
    # That the last URL was refused is remembered until there is another one.
    "error_code": sa.case((_URL_REFUSED, REFUSED), else_=sa.bindparam("new_error_code")),
    "error_message": sa.case(
        (_URL_REFUSED, runs.c.error_message), else_=sa.bindparam("new_error_message")
    ),
}
_BEGUN: Final = "a URL that a transfer takes at once"
_NOT_ASKED: Final = "not asked"
"""The kind of a step that only gives a claim back."""
_NO_ANSWER: Final = "no answer"
"""The kind of a step after a poll that had none, for no fault of the run."""
_NO_ANSWER_ALONE: Final = "no answer, where others had one"
_FAILED_UNANSWERED: Final = "failed, without an answer"
_FAILED: Final = {"state": State.FAILED.value, "next_attempt_at": None}

_HAS_URL: Final = {
    "state": State.READY.value,
    "polls": one_more(runs.c.polls),
    **_ANSWERED,
    "next_attempt_at": sa.func.coalesce(
        sa.bindparam("new_next_attempt_at", type_=UTCText), sa.bindparam("now", type_=UTCText)
    ),
    "ready_at": sa.bindparam("now"),
    # The API has answered; what the storage has against the run is still to be seen.
    "error_code": sa.case((_ERROR_OF_THE_API, None), else_=runs.c.error_code),
    "error_message": sa.case((_ERROR_OF_THE_API, None), else_=runs.c.error_message),
    "unknown_since": None,
    "unknown_answers": 0,
}
_STATEMENTS: Final[Mapping[type[PollStep] | str, ForRows]] = {
    UrlReceived: statement(UrlReceived, _HELD, _HAS_URL),
    _BEGUN: statement(
        UrlReceived,
        _HELD,
        {
            **_HAS_URL,
            "state": State.DOWNLOADING.value,
            "next_attempt_at": None,
            "lease_owner": sa.bindparam("new_lease"),
            "lease_expires_at": sa.bindparam("until"),
        },
        RUN,
    ),
    PollLater: statement(PollLater, _HELD, {**_ASKED, **_ANSWERED, **_KEPT, **_UNKNOWN_AS_TOLD}),
    _NO_ANSWER: statement(PollLater, _HELD, {**_ASKED, **_KEPT, **_UNKNOWN_AS_BEFORE}),
    _NO_ANSWER_ALONE: statement(
        PollLater,
        _HELD,
        {
            **_ASKED,
            "poll_errors": one_more(runs.c.poll_errors),
            **_KEPT,
            **_UNKNOWN_AS_BEFORE,
        },
    ),
    PollFailed: statement(
        PollFailed,
        _HELD,
        {
            **_ASKED,
            **_ANSWERED,
            **_FAILED,
            "unknown_answers": runs.c.unknown_answers
            + (sa.bindparam("new_error_code") == UNKNOWN).cast(sa.Integer),
        },
    ),
    _FAILED_UNANSWERED: statement(PollFailed, _HELD, {**_ASKED, **_FAILED}),
    _NOT_ASKED: ForRows(
        sa.update(runs)
        .where(*_HELD)
        .values(
            {
                **NO_LEASE,
                "next_attempt_at": sa.bindparam("new_next_attempt_at"),
                "updated_at": sa.bindparam("now"),
            }
        ),
        *KEY,
    ),
}


@dataclass(frozen=True, slots=True)
class Begun:
    """Which runs a transfer takes as soon as they have their URL: the new lease of each.

    Not one whose URL is valid only later.
    """

    leases: Mapping[RunKey, str]
    until: datetime

    def lease_of(self, key: RunKey, step: PollStep) -> str | None:
        """Return the lease that a transfer begins with by this step, None where none does."""
        begins = isinstance(step, UrlReceived) and step.next_attempt_at is None
        return self.leases.get(key) if begins else None


def record(
    connection: sa.Connection,
    judged: Sequence[tuple[RunKey, str, PollStep]],
    begun: Begun | None,
    now: datetime,
) -> tuple[list[bool], list[ClaimedRun], list[Transition]]:
    """Record what is known of runs (run, lease, step).

    Returns of each whether it holds, the runs that a transfer takes, and what to tell. A run whose
    claim was lost keeps what its new holder wrote.
    """
    steps = []
    begins = [None if begun is None else begun.lease_of(key, step) for key, _, step in judged]
    for (key, lease, step), new in zip(judged, begins, strict=True):
        kind, values = _kind_of(step), parameters(key, lease, step, now)
        if begun is not None and new is not None:
            kind = _BEGUN
            values |= {"new_lease": new, "until": begun.until}
        steps.append((_STATEMENTS[kind], key, values))
    found = carry_out(connection, steps)
    taken: list[ClaimedRun] = []
    told: list[Transition] = []
    for (key, _, step), new, row in zip(judged, begins, found, strict=True):
        if row is None:
            continue
        if new is not None:
            taken.append(ClaimedRun(ready_run(row), new))
        told += _told(key, step, State.READY if new is None else State.DOWNLOADING)
    return [row is not None for row in found], taken, told


def record_polls(
    database: Database, judged: Sequence[tuple[RunKey, str, PollStep]], now: datetime
) -> list[bool]:
    """Record what is known of runs, and do nothing else; say of each whether it holds."""
    from downloader.store.turn import Turn, take_turn  # noqa: PLC0415 - it is made of what is here

    return take_turn(database, Turn(judged=judged), now).judged


def _kind_of(step: PollStep) -> type[PollStep] | str:
    if isinstance(step, PollLater):
        if not step.asked:
            return _NOT_ASKED
        if step.error_code is not None and not step.unknown_answers:
            return _NO_ANSWER_ALONE if step.blamed else _NO_ANSWER
    if isinstance(step, PollFailed) and not step.answered:
        return _FAILED_UNANSWERED
    return type(step)


def _told(key: RunKey, step: PollStep, with_url: State) -> list[Transition]:
    """Return the transition that a step is, none where the state stays."""
    match step:
        case UrlReceived():
            return [(key, State.PENDING, with_url, "url_received", step.remote_status)]
        case PollFailed():
            return [(key, State.PENDING, State.FAILED, step.error_code, step.error_message)]
        case PollLater():
            return []
