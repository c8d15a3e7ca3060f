"""Runs asked for before their time, and runs put off unasked: what answers tell of others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from downloader.rules.batching import MAX_BATCH
from downloader.rules.pace import MOST_UNASKED, SAMPLE
from downloader.rules.states import State
from downloader.store.polling import (
    COLUMNS,
    OF_TYPE,
    PENDING,
    WINDOW,
    all_of,
    claim_batches,
    due_run,
    in_order_of_time,
)
from downloader.store.schema import UTCText, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from downloader.rules.pace import Lead, PutOff, Recall
    from downloader.store.database import Database
    from downloader.store.leases import Owner
    from downloader.store.polling import ClaimedBatch, Room

_UNASKED = (
    runs.c.run_id,
    runs.c.next_attempt_at,
    runs.c.submitted_at,
    runs.c.updated_at,
    runs.c.polls,
    runs.c.lease_owner,
    runs.c.error_code,
)


def _alike(*when: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Select runs of about one age, not asked for just now, that wait for nothing but their time.

    `place` numbers them by their ids.
    """
    some = all_of(in_order_of_time(_UNASKED, *when, most=sa.bindparam("most"))).subquery("some")
    return sa.select(
        some.c.run_id,
        sa.func.row_number().over(order_by=some.c.run_id).label("place"),
        sa.func.count().over().label("places"),
    ).where(
        some.c.submitted_at > sa.bindparam("submitted_from"),
        some.c.submitted_at <= sa.bindparam("submitted_until"),
        some.c.updated_at >= sa.bindparam("asked_since"),
        sa.or_(some.c.polls == 0, some.c.updated_at <= sa.bindparam("asked_before")),
        some.c.lease_owner.is_(None),
        some.c.error_code.is_(None),
    )


_DUE = _alike(runs.c.next_attempt_at <= sa.bindparam("due_before")).subquery("due")
_SPARED = sa.select(_DUE.c.run_id).where(
    _DUE.c.place % sa.bindparam("stride") != sa.bindparam("place_kept"),
    # Runs that finish in order, or the last first, begin at an end.
    _DUE.c.place.not_in([1, _DUE.c.places]),
)
_ANY_SPARED = _SPARED.limit(1)
_LATEST: Final[sa.ColumnElement[datetime]] = sa.type_coerce(
    sa.func.strftime("%Y-%m-%d %H:%M:%f000", runs.c.updated_at, sa.bindparam("longest")), UTCText
)
_PUT_OFF = (
    sa.update(runs)
    .where(OF_TYPE, PENDING, runs.c.run_id.in_(_SPARED.limit(sa.bindparam("most"))))
    # `updated_at` stays: it says when the run was last asked for, and bounds all of this.
    .values(next_attempt_at=sa.func.min(sa.bindparam("until", type_=UTCText), _LATEST))
)
_WAITING = _alike(runs.c.next_attempt_at > sa.bindparam("now")).subquery("waiting")
_RECALL = (
    sa.update(runs)
    .where(
        OF_TYPE,
        PENDING,
        runs.c.run_id.in_(sa.select(_WAITING.c.run_id).limit(sa.bindparam("most"))),
    )
    .values(next_attempt_at=sa.bindparam("now"))
)


def put_off(database: Database, decided: PutOff, *, max_poll_seconds: float, jitter: float) -> int:
    """Put due runs off unasked, all but a few that are spread over them; return how many.

    None is put off beyond `max_poll_seconds` after the last time it was asked for (or submitted),
    and one that had an error stays due. Where there is none nothing is written.
    """
    stride = max(2, decided.most // SAMPLE)
    longest = timedelta(seconds=max_poll_seconds)
    values = {
        "of_type": decided.run_type,
        "due_before": decided.due_before,
        "asked_before": decided.asked_before,
        "most": decided.most,
        "submitted_from": decided.submitted_from,
        "submitted_until": decided.submitted_until,
        # Whatever is put off is not due again at once.
        "asked_since": decided.due_before - longest,
        "stride": stride,
        "place_kept": int(jitter * stride),
        "until": decided.until,
        "longest": f"{max_poll_seconds:+.3f} seconds",
    }
    with database.read() as connection:
        if connection.execute(_ANY_SPARED, values).first() is None:
            return 0
    with database.write() as connection:
        return connection.execute(_PUT_OFF, values).rowcount


def recall(database: Database, decided: Recall) -> int:
    """Have runs that were put off asked for now; return how many."""
    with database.write() as connection:
        return connection.execute(
            _RECALL,
            {
                "of_type": decided.run_type,
                "now": decided.now,
                "asked_before": decided.asked_before,
                "most": MOST_UNASKED,
                "submitted_from": decided.submitted_from,
                "submitted_until": decided.submitted_until,
                "asked_since": decided.submitted_from,
            },
        ).rowcount


def _near(*, upwards: bool) -> sa.Select[Any]:
    """Select runs beside one run in the order of ids: few rows are read, whatever they are."""
    beyond = (
        runs.c.run_id > sa.bindparam("near") if upwards else runs.c.run_id < sa.bindparam("near")
    )
    order = runs.c.run_id.asc() if upwards else runs.c.run_id.desc()
    near = (
        sa.select(*COLUMNS, runs.c.state, runs.c.lease_owner, runs.c.error_code, runs.c.updated_at)
        .where(OF_TYPE, beyond)
        .order_by(order)
        .limit(WINDOW)
        .subquery("near")
    )
    return (
        sa.select(*(near.c[column.name] for column in COLUMNS))
        .where(
            near.c.state == sa.literal_column(f"'{State.PENDING.value}'"),
            near.c.lease_owner.is_(None),
            near.c.error_code.is_(None),
            near.c.updated_at <= sa.bindparam("quiet_since"),
            near.c.submitted_at <= sa.bindparam("submitted_until"),
        )
        .limit(MAX_BATCH)
    )


_NEAR = {upwards: _near(upwards=upwards) for upwards in (False, True)}


@dataclass(frozen=True, slots=True)
class Near:
    """A claim of a batch each of the pending runs nearest to finished ones, due or not.

    Only on one side of each, and none that was asked for within its lead's `quiet_seconds`.
    """

    owner: Owner
    leads: Sequence[Lead]
    now: datetime
    lease_until: datetime

    def waits(self, connection: sa.Connection) -> bool:
        """Return whether there is such a run."""
        return any(self._near(connection, lead).first() for lead in self.leads)

    def claim(self, connection: sa.Connection, room: Room) -> list[ClaimedBatch]:
        """Claim what there is room for."""
        batches: list[ClaimedBatch] = []
        for lead in self.leads:
            if min(room.runs, room.requests) <= 0:
                break
            if found := [due_run(row) for row in self._near(connection, lead)]:
                claimed = claim_batches(
                    connection,
                    self.owner,
                    [found],
                    now=self.now,
                    lease_until=self.lease_until,
                    lead=lead,
                )
                room = room.less(claimed)
                batches += claimed
        return batches

    def _near(self, connection: sa.Connection, lead: Lead) -> sa.CursorResult[Any]:
        values = {
            "of_type": lead.key.run_type,
            "near": lead.key.run_id,
            "quiet_since": self.now - timedelta(seconds=lead.quiet_seconds),
            "submitted_until": lead.submitted_until,
        }
        return connection.execute(_NEAR[lead.upwards], values)


def claim_near(
    database: Database,
    owner: Owner,
    leads: Sequence[Lead],
    *,
    now: datetime,
    lease_until: datetime,
) -> list[ClaimedBatch]:
    """Claim runs near finished ones, and do nothing else."""
    from downloader.store.turn import claim_polls  # noqa: PLC0415 - it is made of what is here

    return claim_polls(database, Near(owner, leads, now, lease_until))
