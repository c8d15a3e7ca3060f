"""What a person decides about runs: put failed ones back, end unfinished ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from downloader.errors import InputError
from downloader.rules.states import UNFINISHED, RunKey, State
from downloader.store import events
from downloader.store.inspection import not_tracked
from downloader.store.schema import in_state, is_run, runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from downloader.store.database import Database


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
    """Put every failed run (of a type, if given) back to pending; return how many."""
    which = in_state(State.FAILED)
    if run_type is not None:
        which = sa.and_(which, runs.c.run_type == run_type)
    with database.write(durable=True) as connection:
        events.record_selected(connection, now, which=which, to_state=State.PENDING, reason="retry")
        return connection.execute(sa.update(runs).where(which).values(fresh_start(now))).rowcount


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
    result = Changed()
    with database.write(durable=True) as connection:
        for key in dict.fromkeys(keys):
            this = is_run(key)
            state = connection.scalar(sa.select(runs.c.state).where(this))
            if state is None:
                # Raised inside the transaction, which takes back what came before.
                raise InputError(not_tracked(connection, key, ": nothing was changed."))
            if state not in allowed:
                result.unchanged[key] = state
            else:
                connection.execute(sa.update(runs).where(this).values(values))
                events.record(connection, now, [(key, State(state), to_state, reason, None)])
                result.changed.append(key)
    return result
