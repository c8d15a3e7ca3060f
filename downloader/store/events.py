"""The history: one row of `run_events` for every transition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import sqlalchemy as sa

from downloader.store.rows import ForRows
from downloader.store.schema import UTCText, run_events, runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from downloader.rules.states import RunKey, State


Transition: TypeAlias = "tuple[RunKey, State, State, str, str | None]"
"""A run, the state it was in, the one it is in now, the reason and the detail."""


class Event(NamedTuple):
    """A transition, and why; `from_state` is None where the run was submitted."""

    at: datetime
    from_state: str | None
    to_state: str
    reason: str
    detail: str | None


_RECORD: Final = ForRows(sa.insert(run_events))


def record(
    connection: sa.Connection,
    now: datetime,
    transitions: Sequence[Transition],
) -> None:
    """Write transitions into the history."""
    if not transitions:
        return
    _RECORD.execute(
        connection,
        [
            {
                "run_type": key.run_type,
                "run_id": key.run_id,
                "at": now,
                "from_state": before,
                "to_state": after,
                "reason": reason,
                "detail": detail,
            }
            for key, before, after, reason, detail in transitions
        ],
    )


def record_selected(
    connection: sa.Connection,
    now: datetime,
    *,
    which: sa.ColumnElement[bool],
    to_state: State,
    reason: str,
) -> None:
    """Write a transition for each run that `which` matches; call it before they change."""
    connection.execute(
        sa.insert(run_events).from_select(
            ["run_type", "run_id", "at", "from_state", "to_state", "reason"],
            sa.select(
                runs.c.run_type,
                runs.c.run_id,
                sa.literal(now, UTCText),
                runs.c.state,
                sa.literal(str(to_state)),
                sa.literal(reason),
            )
            .where(which)
            .order_by(runs.c.run_type, runs.c.run_id),
        )
    )


def history(connection: sa.Connection, key: RunKey) -> list[Event]:
    """Return what a run went through, oldest first."""
    rows = connection.execute(
        sa.select(
            run_events.c.at,
            run_events.c.from_state,
            run_events.c.to_state,
            run_events.c.reason,
            run_events.c.detail,
        )
        .where(run_events.c.run_type == key.run_type, run_events.c.run_id == key.run_id)
        .order_by(run_events.c.event_id)
    )
    return [Event(*row) for row in rows]
