"""Runs asked for before their time, and runs put off unasked: what answers tell of others."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from downloader.rules.batching import MAX_BATCH
from downloader.rules.pace import SAMPLE
from downloader.rules.states import State
from downloader.store.polling import COLUMNS, OF_TYPE, PENDING, WINDOW, claim_batch, due_run
from downloader.store.schema import runs

if TYPE_CHECKING:
    from datetime import datetime

    from downloader.rules.pace import Lead, PutOff
    from downloader.store.database import Database
    from downloader.store.leases import Owner
    from downloader.store.polling import ClaimedBatch

_DUE = (
    sa.select(
        runs.c.run_id,
        runs.c.next_attempt_at,
        runs.c.submitted_at,
        runs.c.updated_at,
        runs.c.polls,
        runs.c.lease_owner,
        runs.c.error_code,
    )
    .where(
        PENDING,
        OF_TYPE,
        runs.c.next_attempt_at <= sa.bindparam("due_before"),
    )
    .order_by(runs.c.next_attempt_at)
    .limit(sa.bindparam("most"))
    .subquery("due")
)
_ELIGIBLE = (
    sa.select(
        _DUE.c.run_id,
        sa.func.row_number().over(order_by=_DUE.c.next_attempt_at).label("place"),
    )
    .where(
        _DUE.c.submitted_at > sa.bindparam("submitted_from"),
        _DUE.c.submitted_at <= sa.bindparam("submitted_until"),
        _DUE.c.updated_at >= sa.bindparam("asked_since"),
        sa.or_(_DUE.c.polls == 0, _DUE.c.updated_at <= sa.bindparam("asked_before")),
        _DUE.c.lease_owner.is_(None),
        _DUE.c.error_code.is_(None),
    )
    .subquery("eligible")
)
_PUT_OFF = (
    sa.update(runs)
    .where(
        OF_TYPE,
        PENDING,
        runs.c.run_id.in_(
            sa.select(_ELIGIBLE.c.run_id).where(
                _ELIGIBLE.c.place % sa.bindparam("stride") != sa.bindparam("place_kept")
            )
        ),
    )
    # `updated_at` stays: it says when the run was last asked for, and bounds all of this.
    .values(next_attempt_at=sa.bindparam("until"))
)


def put_off(database: Database, decided: PutOff, *, max_poll_seconds: float, jitter: float) -> int:
    """Put due runs off unasked, all but a few that are spread over them; return how many.

    A run whose turn would then come more than `max_poll_seconds` after the last time it was
    asked for (or submitted) stays due, and so does one that had an error.
    """
    stride = max(2, decided.most // SAMPLE)
    with database.write() as connection:
        return connection.execute(
            _PUT_OFF,
            {
                "of_type": decided.run_type,
                "due_before": decided.due_before,
                "asked_before": decided.asked_before,
                "most": decided.most,
                "submitted_from": decided.submitted_from,
                "submitted_until": decided.submitted_until,
                "asked_since": decided.until - timedelta(seconds=max_poll_seconds),
                "stride": stride,
                "place_kept": int(jitter * stride),
                "until": decided.until,
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


def claim_near(
    database: Database, owner: Owner, lead: Lead, *, now: datetime, lease_until: datetime
) -> list[ClaimedBatch]:
    """Claim one batch of the pending runs nearest to a finished one, due or not, where there are.

    Only on one side of it, and none that was asked for within the lead's `quiet_seconds`.
    """
    with database.write() as connection:
        rows = connection.execute(
            _NEAR[lead.upwards],
            {
                "of_type": lead.key.run_type,
                "near": lead.key.run_id,
                "quiet_since": now - timedelta(seconds=lead.quiet_seconds),
                "submitted_until": lead.submitted_until,
            },
        )
        found = [due_run(row) for row in rows]
        return (
            [claim_batch(connection, owner, found, now=now, lease_until=lease_until, lead=lead)]
            if found
            else []
        )
