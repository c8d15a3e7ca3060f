"""What a person decides about runs: put failed ones back, end unfinished ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from downloader.errors import InputError
from downloader.rules.states import UNFINISHED, RunKey, State
from downloader.store import events
from downloader.store.inspection import not_tracked
from downloader.store.schema import in_state, runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from downloader.store.database import Database

_ROW: Final[sa.ColumnElement[int]] = sa.literal_column("runs.rowid", sa.Integer)

PART: Final = 20_000
"""Runs that one transaction changes: others wait for it a third of a second."""


@dataclass(slots=True)
class Changed:
    """Which runs changed, and which were in a state that does not allow it."""

    changed: list[RunKey] = field(default_factory=list)
    unchanged: dict[RunKey, str] = field(default_factory=dict)


_RETRYABLE = (State.FAILED, State.CANCELLED)
_CLEARED: dict[str, object] = {
    "url": None,
    "url_expires_at": None,
    "lease_owner": None,
    "lease_expires_at": None,
}


def fresh_start(now: datetime) -> dict[str, object]:
    """Return the columns of a run put back to pending, as if it had been submitted now.

    What is known of the object that a part is of stays: the part is gone on with.
    """
    return _CLEARED | {
        "state": State.PENDING.value,
        "remote_status": None,
        "polls": 0,
        "answers": 0,
        "poll_errors": 0,
        "attempts": 0,
        "refreshes": 0,
        "next_attempt_at": now,
        "location": None,
        "sha256": None,
        "audio_format": None,
        "error_code": None,
        "error_message": None,
        "submitted_at": now,
        "ready_at": None,
        "failing_since": None,
        "done_at": None,
        "updated_at": now,
        "unknown_answers": 0,
        "unknown_since": None,
    }


def retry(database: Database, keys: Sequence[RunKey], now: datetime) -> Changed:
    """Put failed and cancelled runs back to pending, as if submitted anew.

    Raises:
        InputError: one of them is not tracked; then none is changed.

    """
    return _change(
        database,
        keys,
        now,
        allowed=_RETRYABLE,
        to_state=State.PENDING,
        reason="retry",
        values=fresh_start(now),
    )


def retry_failed(database: Database, run_type: str | None, now: datetime) -> int:
    """Put every failed run (of a type, if given) back to pending; return how many.

    In parts, the oldest first, so that nobody waits long for the lock. What fails meanwhile stays.
    """
    failed = in_state(State.FAILED)
    which = failed if run_type is None else sa.and_(failed, runs.c.run_type == run_type)
    with database.read() as connection:
        newest = connection.scalar(
            sa.select(runs.c.updated_at).where(failed).order_by(runs.c.updated_at.desc()).limit(1)
        )
    if newest is None:
        return 0
    some = (
        sa.select(_ROW)
        .where(which, runs.c.updated_at <= newest)
        .order_by(runs.c.updated_at)
        .limit(PART)
    )
    changed = 0
    while True:
        with database.write(durable=True) as connection:
            rows = connection.scalars(some).all()
            _change_rows(
                connection,
                rows,
                now,
                to_state=State.PENDING,
                reason="retry",
                values=fresh_start(now),
            )
        changed += len(rows)
        if len(rows) < PART:
            return changed


def cancel(database: Database, keys: Sequence[RunKey], now: datetime) -> Changed:
    """End unfinished runs; whoever is transferring one finds its lease gone and stops.

    Raises:
        InputError: one of them is not tracked; then none is changed.

    """
    return _change(
        database,
        keys,
        now,
        allowed=tuple(UNFINISHED),
        to_state=State.CANCELLED,
        reason="cancel",
        values=_CLEARED
        | {"state": State.CANCELLED.value, "next_attempt_at": None, "updated_at": now},
    )


_GIVEN: Final = sa.func.json_each(sa.bindparam("keys", type_=sa.Text)).table_valued("key", "value")
_STATES: Final = (
    sa.select(
        runs.c.state,
        _ROW,
    )
    .select_from(
        _GIVEN.outerjoin(
            runs,
            sa.and_(
                runs.c.run_type == sa.func.json_extract(_GIVEN.c.value, "$[0]"),
                runs.c.run_id == sa.func.json_extract(_GIVEN.c.value, "$[1]"),
            ),
        )
    )
    .order_by(_GIVEN.c.key)
)


def _states(
    connection: sa.Connection, keys: Sequence[RunKey]
) -> Iterator[tuple[RunKey, str | None, int]]:
    """Yield the state and the row of each of these runs; the state is None where there is none."""
    given = json.dumps([(key.run_type, key.run_id) for key in keys])
    for key, (state, row) in zip(keys, connection.execute(_STATES, {"keys": given}), strict=True):
        yield key, state, row


def _change_rows(
    connection: sa.Connection,
    rows: Sequence[int],
    now: datetime,
    *,
    to_state: State,
    reason: str,
    values: dict[str, object],
) -> None:
    """Change runs, known by their rows, and write their history: two statements for all."""
    given = sa.func.json_each(json.dumps(list(rows))).table_valued("value")
    these = _ROW.in_(sa.select(given.c.value))
    events.record_selected(connection, now, which=these, to_state=to_state, reason=reason)
    connection.execute(sa.update(runs).where(these).values(values))


def _change(
    database: Database,
    keys: Sequence[RunKey],
    now: datetime,
    *,
    allowed: Sequence[State],
    to_state: State,
    reason: str,
    values: dict[str, object],
) -> Changed:
    """Change runs, in parts: whoever else writes waits for one of them, not for all.

    A run is never forgotten, so that where all are tracked before the first part they stay so.
    """
    each = list(dict.fromkeys(keys))
    parts = [each[first : first + PART] for first in range(0, len(each), PART)]
    with database.read() as connection:
        for part in parts:
            for key, state, _ in _states(connection, part):
                if state is None:
                    raise InputError(not_tracked(connection, key, ": nothing was changed."))
    result = Changed()
    for part in parts:
        with database.write(durable=True) as connection:
            found = list(_states(connection, part))
            rows = [row for _, state, row in found if state in allowed]
            _change_rows(connection, rows, now, to_state=to_state, reason=reason, values=values)
        result.changed += [key for key, state, _ in found if state in allowed]
        result.unchanged |= {key: str(state) for key, state, _ in found if state not in allowed}
    return result
