"""The ready queue and what is being transferred: claims, leases, outcomes, rescue."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, assert_never

import sqlalchemy as sa

from downloader.rules.resume import Journal
from downloader.rules.states import RunKey, State
from downloader.rules.steps import (
    HeldUp,
    NewUrl,
    Published,
    PutBack,
    ReadyStep,
    TransferFailed,
    TransferStep,
    TryAgain,
)
from downloader.store.rows import ForRows
from downloader.store.schema import BY_KEY, in_state, one_more, runs
from downloader.store.transitions import KEY, NO_URL, carry_out, held, parameters, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from sqlalchemy.sql.base import ReadOnlyColumnCollection

    from downloader.store.database import Database
    from downloader.store.events import Transition
    from downloader.store.leases import Owner


@dataclass(frozen=True, slots=True)
class ReadyRun:
    """A run with a URL, and what the decisions about its transfer need.

    `journal` describes the object that a part on the disk belongs to. `untried` says that nobody
    is known to have begun a transfer of it, `failing_since` since when tries bring nothing.
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
    submitted_at: datetime
    last_modified: str | None = None
    digest: str | None = None
    failing_since: datetime | None = None
    untried: bool = False

    @property
    def journal(self) -> Journal:
        """What is recorded of that object."""
        return Journal(self.etag, self.total_bytes, self.last_modified, self.digest)


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is ours to transfer while its lease lasts."""

    run: ReadyRun
    lease: str


@dataclass(frozen=True, slots=True)
class Ready:
    """What a claim found: the runs now claimed, and how many had let their URL expire.

    `waiting` others could have been claimed as well. The runs that `failed` are given up, and
    `held_up` were put off.
    """

    claimed: tuple[ClaimedRun, ...]
    expired: int
    failed: int
    waiting: int = 0
    held_up: int = 0

    @property
    def found(self) -> int:
        """How many runs were there."""
        return len(self.claimed) + self.expired + self.failed + self.held_up


NONE_READY: Final = Ready((), 0, 0)


_READY = in_state(State.READY)
_HELD = held(State.DOWNLOADING)
_FAILED: Final = {"state": State.FAILED.value, "next_attempt_at": None, **NO_URL}
_FAILING: Final[sa.ColumnElement[Any]] = sa.func.coalesce(
    runs.c.failing_since, sa.bindparam("now", type_=runs.c.failing_since.type)
)
_SPENDS_NONE: Final = sa.bindparam("new_attempts") == runs.c.attempts
_RECORD: Final[dict[type[TransferStep], ForRows]] = {
    Published: statement(
        Published,
        _HELD,
        {
            "state": State.DONE.value,
            "attempts": one_more(runs.c.attempts),
            "error_code": None,
            "error_message": None,
            "failing_since": None,
            "done_at": sa.bindparam("now"),
            **NO_URL,
        },
    ),
    TryAgain: statement(
        TryAgain,
        _HELD,
        {
            "state": State.READY.value,
            # A try that spends nothing has brought bytes.
            "failing_since": sa.case((_SPENDS_NONE, None), else_=_FAILING),
        },
    ),
    HeldUp: statement(HeldUp, _HELD, {"state": State.READY.value}),
    NewUrl: statement(
        NewUrl,
        _HELD,
        {
            "state": State.PENDING.value,
            # An expired URL says nothing of the run.
            "failing_since": sa.case((_SPENDS_NONE, runs.c.failing_since), else_=_FAILING),
            **NO_URL,
        },
    ),
    PutBack: statement(PutBack, _HELD, {"state": State.READY.value}),
    TransferFailed: statement(TransferFailed, _HELD, _FAILED),
}
_LEAVE: Final[dict[type[ReadyStep], ForRows]] = {
    HeldUp: statement(HeldUp, (*BY_KEY, _READY), {}),
    NewUrl: statement(NewUrl, (*BY_KEY, _READY), {"state": State.PENDING.value, **NO_URL}),
    TransferFailed: statement(TransferFailed, (*BY_KEY, _READY), _FAILED),
}
_NOTE = (
    sa.update(runs)
    .where(*_HELD)
    .values(
        etag=sa.bindparam("new_etag"),
        bytes=sa.bindparam("new_bytes"),
        last_modified=sa.bindparam("new_last_modified"),
        digest=sa.bindparam("new_digest"),
        updated_at=sa.bindparam("now"),
    )
)
_NOT_TRIED_SINCE = runs.c.next_attempt_at == runs.c.ready_at
RUN: Final = (
    *KEY,
    runs.c.url,
    runs.c.url_expires_at,
    runs.c.ready_at,
    runs.c.attempts,
    runs.c.refreshes,
    runs.c.etag,
    runs.c.bytes,
    runs.c.error_code,
    runs.c.submitted_at,
    runs.c.last_modified,
    runs.c.digest,
    runs.c.failing_since,
)
_RUN: Final = (*RUN, _NOT_TRIED_SINCE)

_WINDOW: Final = 5_000
"""Among so many that wait, those that have waited the longest, the earliest to expire is looked
for; and so many with an expired URL are put back together."""

_HELD_UP_TOGETHER: Final = 2_000

_COUNTED: Final = 10_000
"""More runs than so many are not counted: nobody wants to know how many more wait."""

_NOW = runs.c.next_attempt_at <= sa.bindparam("now")
_ONCE = sa.or_(
    runs.c.next_attempt_at <= sa.bindparam("cutoff"),
    # made ready since, and not tried yet
    sa.and_(_NOW, _NOT_TRIED_SINCE),
)
_CLAIM = ForRows(
    sa.update(runs)
    .where(*BY_KEY, _READY)
    .values(
        state=State.DOWNLOADING.value,
        next_attempt_at=None,
        lease_owner=sa.bindparam("lease"),
        lease_expires_at=sa.bindparam("until"),
        updated_at=sa.bindparam("now"),
    ),
    *KEY,
)


class _Looking(NamedTuple):
    """The statements that look into the ready queue under one condition."""

    any: sa.Select[Any]
    first: sa.Select[Any]
    expired: sa.Select[Any]
    waiting: sa.Select[Any]


_ROW: Final[sa.ColumnElement[int]] = sa.literal_column("runs.rowid")


def _in_order(columns: ReadOnlyColumnCollection[str, Any]) -> list[sa.ColumnElement[Any]]:
    """Return how the runs that wait are sorted.

    Those that have met no trouble come first, the earliest to expire of them (of unknown expiry
    last, the oldest first). Of the others chance picks: so it is no bad one over and over that
    tries a storage in trouble.
    """
    met, expires = columns.error_code.is_not(None), columns.url_expires_at
    by_chance = sa.case((met, sa.func.random()))
    return [met, by_chance, expires.is_(None), expires, columns.next_attempt_at]


def _looking(condition: sa.ColumnElement[bool]) -> _Looking:
    due = (_READY, condition)
    some = (
        sa.select(
            _ROW.label("row"), runs.c.error_code, runs.c.url_expires_at, runs.c.next_attempt_at
        )
        .where(*due)
        .order_by(runs.c.next_attempt_at)
        .limit(_WINDOW)
        .subquery("some")
    )
    first = sa.select(some.c.row).order_by(*_in_order(some.c)).limit(sa.bindparam("most"))
    expired = (
        sa.select(_ROW).where(*due, runs.c.url_expires_at <= sa.bindparam("now")).limit(_WINDOW)
    )
    one = sa.select(sa.literal(1)).select_from(runs).where(*due)
    counted = one.limit(_COUNTED).subquery("counted")
    return _Looking(
        one.limit(1),
        sa.select(*_RUN).where(_ROW.in_(first)).order_by(*_in_order(runs.c)),
        sa.select(*_RUN).where(_ROW.in_(expired)),
        sa.select(sa.func.count()).select_from(counted),
    )


_LOOK_NOW = _looking(_NOW)
_LOOK_ONCE = _looking(_ONCE)


def _may_be_taken(now: datetime, cutoff: datetime | None) -> tuple[_Looking, dict[str, object]]:
    """Return how to find the ready runs that may be taken up, and the values for it."""
    if cutoff is None:
        return _LOOK_NOW, {"now": now}
    return _LOOK_ONCE, {"now": now, "cutoff": cutoff}


def count_ready(database: Database, now: datetime, cutoff: datetime | None = None) -> int:
    """Return how many runs wait with a URL for a worker: those that `claim_ready` would find."""
    looking, values = _may_be_taken(now, cutoff)
    with database.read() as connection:
        return connection.scalar(looking.waiting, values) or 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose claim it is, of how many runs, and until when it holds.

    `judge` says what becomes of a run that cannot be transferred now, since its URL is too old or
    its storage cannot be reached, None where it can be; such runs are dealt with in the same
    transaction. With a `cutoff` only runs due by
    then, or made ready since and not tried yet, are looked at. Unless a run is `expected` to
    wait, a look comes first: an idle worker looks often, and takes no lock for it.
    """

    owner: Owner
    most: int
    now: datetime
    cutoff: datetime | None
    lease_until: datetime
    judge: Callable[[ReadyRun], ReadyStep | None]
    expected: bool = False

    def waits(self, connection: sa.Connection) -> bool:
        """Return whether a run is ready."""
        looking, values = _may_be_taken(self.now, self.cutoff)
        return connection.execute(looking.any, values).first() is not None


def record(
    connection: sa.Connection, outcomes: Sequence[tuple[RunKey, str, TransferStep]], now: datetime
) -> tuple[list[bool], list[Transition]]:
    """Record outcomes (run, lease, step); return of each whether it holds, and what to tell.

    False: the lease was lost (rescued, cancelled), nothing was written, and the file is not this
    worker's to publish or to remove.
    """
    found = carry_out(
        connection,
        [
            (_RECORD[type(step)], key, parameters(key, lease, step, now))
            for key, lease, step in outcomes
        ],
    )
    held = [row is not None for row in found]
    told = [
        (key, State.DOWNLOADING, *_told(step))
        for (key, _, step), holds in zip(outcomes, held, strict=True)
        if holds
    ]
    return held, told


def claim_ready(database: Database, wanted: Claim) -> Ready:
    """Claim ready runs, and do nothing else."""
    return take_turn(database, [], wanted, wanted.now)[1]


def take_turn(
    database: Database,
    outcomes: Sequence[tuple[RunKey, str, TransferStep]],
    wanted: Claim | None,
    now: datetime,
) -> tuple[list[bool], Ready]:
    """Record outcomes and claim ready runs, and do nothing else."""
    from downloader.store.turn import Turn, take_turn  # noqa: PLC0415 - it is made of what is here

    done = take_turn(database, Turn(outcomes, ready=wanted), now)
    return done.outcomes, done.ready


def record_transfers(
    database: Database, outcomes: Sequence[tuple[RunKey, str, TransferStep]], now: datetime
) -> list[bool]:
    """Record outcomes, and do nothing else; say of each whether it holds."""
    return take_turn(database, outcomes, None, now)[0]


_HELD_UP = sa.and_(_READY, runs.c.error_code.in_(sa.bindparam("codes", expanding=True)))
_COUNT_HELD_UP = sa.select(sa.func.count()).select_from(
    sa.select(sa.literal(1))
    .select_from(runs)
    .where(_HELD_UP, runs.c.next_attempt_at > sa.bindparam("now"))
    .limit(_COUNTED)
    .subquery("held_up")
)
_GO_ON = (
    sa.update(runs)
    .where(_HELD_UP, runs.c.next_attempt_at > sa.bindparam("now"))
    .values(next_attempt_at=sa.bindparam("now"))
)


def count_held_up(database: Database, now: datetime, codes: Collection[str]) -> int:
    """Return how many runs with a URL wait since their storage is in trouble, told by its codes.

    More than 10,000 are not counted.
    """
    with database.read() as connection:
        return connection.scalar(_COUNT_HELD_UP, {"now": now, "codes": list(codes)}) or 0


def end_hold_up(database: Database, now: datetime, codes: Collection[str]) -> int:
    """Have those runs looked at now, as a storage is back; return how many they are."""
    with database.write() as connection:
        return connection.execute(_GO_ON, {"now": now, "codes": list(codes)}).rowcount


def claim(connection: sa.Connection, wanted: Claim) -> tuple[Ready, list[Transition]]:
    """Claim up to `most` ready runs: first those without trouble, the earliest to expire first.

    Returns what was found, and what to tell.
    """
    now = wanted.now
    looking, values = _may_be_taken(now, wanted.cutoff)
    rows = connection.execute(looking.first, values | {"most": wanted.most}).all()
    claimed: dict[RunKey, ClaimedRun] = {}
    left: dict[RunKey, ReadyStep] = {}
    for run in map(ready_run, rows):
        step = wanted.judge(run)
        if step is None:
            claimed[run.key] = ClaimedRun(run, wanted.owner.new_lease())
        else:
            left[run.key] = step
    left |= _left_with_them(connection, wanted, left, claimed.keys())
    steps = [
        (_LEAVE[type(step)], key, parameters(key, None, step, now)) for key, step in left.items()
    ]
    steps += [
        (
            _CLAIM,
            key,
            {
                "key_type": key.run_type,
                "key_id": key.run_id,
                "lease": one.lease,
                "until": wanted.lease_until,
                "now": now,
            },
        )
        for key, one in claimed.items()
        if key not in left
    ]
    # Edited by hand: a type that is no text, or none that can be read, names no row.
    held = {
        key for (_, key, _), row in zip(steps, carry_out(connection, steps), strict=True) if row
    }
    told: list[Transition] = [
        (key, State.READY, *_told(step))
        for key, step in left.items()
        if key in held and not isinstance(step, HeldUp)
    ]
    taken = [one for key, one in claimed.items() if key in held and key not in left]
    told += [(one.run.key, State.READY, State.DOWNLOADING, "claimed", one.lease) for one in taken]
    waiting = 0
    if len(rows) == wanted.most:  # there may be more
        waiting = connection.scalar(looking.waiting, values) or 0
    kinds = Counter(map(type, left.values()))
    found = Ready(tuple(taken), kinds[NewUrl], kinds[TransferFailed], waiting, kinds[HeldUp])
    return found, told


def _left_with_them(
    connection: sa.Connection,
    claim: Claim,
    left: dict[RunKey, ReadyStep],
    claimed: Collection[RunKey],
) -> dict[RunKey, ReadyStep]:
    """Return what becomes of others that wait, where some that were looked at are left.

    Where one has expired, or its storage is in trouble, many may be so: looked at a few at a time
    they would hold up the others.
    """
    found: dict[RunKey, ReadyStep] = {}
    looking, values = _may_be_taken(claim.now, claim.cutoff)
    kinds = {type(step) for step in left.values()}
    if NewUrl in kinds:
        for run in map(ready_run, connection.execute(looking.expired, values)):
            step = None if run.key in left else claim.judge(run)
            if isinstance(step, NewUrl | TransferFailed):
                found[run.key] = step
    if HeldUp in kinds:
        known = left.keys() | found.keys() | set(claimed)
        more = connection.execute(looking.first, values | {"most": _HELD_UP_TOGETHER})
        for run in map(ready_run, more):
            step = None if run.key in known else claim.judge(run)
            if isinstance(step, HeldUp):
                found[run.key] = step
    return found


def ready_run(row: Sequence[Any]) -> ReadyRun:
    """Read a row of `RUN`, and behind it whether nobody has tried this URL where that may be."""
    run_type, run_id, *rest = row[: len(RUN)]
    run = ReadyRun(RunKey(run_type, run_id), *rest)
    # Not in SQL: in a RETURNING some versions say that nothing IS NULL (3.40).
    never = not (run.attempts or run.refreshes) and run.etag is run.last_modified is None
    return replace(run, untried=True) if never and all(row[len(RUN) :]) else run


def note_object(
    database: Database,
    claim: ClaimedRun,
    journal: Journal,
    now: datetime,
) -> bool:
    """Record which object a part on the disk belongs to, so that it can be resumed.

    Returns False where the lease was lost.
    """
    key = claim.run.key
    with database.write() as connection:
        found = connection.execute(
            _NOTE,
            {
                "key_type": key.run_type,
                "key_id": key.run_id,
                "lease": claim.lease,
                "new_etag": journal.etag,
                "new_bytes": journal.total_bytes,
                "new_last_modified": journal.last_modified,
                "new_digest": journal.digests,
                "now": now,
            },
        )
    return found.rowcount == 1


def _told(step: TransferStep) -> tuple[State, str, str | None]:
    """Return the state a step leads to, its reason and its detail, for the history."""
    match step:
        case Published():
            return State.DONE, "adopted" if step.adopted else "published", step.location
        case TryAgain() | HeldUp():
            return State.READY, step.error_code, step.error_message
        case NewUrl():
            return State.PENDING, step.error_code, step.error_message
        case PutBack():
            return State.READY, step.reason, None
        case TransferFailed():
            return State.FAILED, step.error_code, step.error_message
        case _:
            assert_never(step)
