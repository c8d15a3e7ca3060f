"""What a hook is told of a run, and what came of it, in the history.

A hook's row is no transition: its two states are the one that the run is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from downloader.store.listing import SHOWN
from downloader.store.schema import BY_KEY, UTCText, run_events, runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from downloader.rules.states import RunKey
    from downloader.store.backlog import EndedRun
    from downloader.store.database import Database


class HookEvent(NamedTuple):
    """How a hook ended."""

    key: RunKey
    at: datetime
    reason: str
    detail: str


_ROW: Final = sa.select(*SHOWN).where(*BY_KEY)
_RECORD: Final = sa.insert(run_events).from_select(
    ["run_type", "run_id", "at", "from_state", "to_state", "reason", "detail"],
    sa.select(
        runs.c.run_type,
        runs.c.run_id,
        sa.bindparam("moment", type_=UTCText),
        runs.c.state,
        runs.c.state,
        sa.bindparam("why", type_=sa.Text),
        sa.bindparam("told", type_=sa.Text),
    ).where(*BY_KEY),
)


def row_as_it_ended(database: Database, run: EndedRun) -> dict[str, Any] | None:
    """Return a run (every column but `url`), None where it is not any more as it ended."""
    key = run.key
    with database.read() as connection:
        row = (
            connection.execute(_ROW, {"key_type": key.run_type, "key_id": key.run_id})
            .mappings()
            .first()
        )
    if row is None or (row["state"], row["updated_at"]) != (run.state.value, run.at):
        return None
    return dict(row)


def record(database: Database, events: Sequence[HookEvent]) -> None:
    """Write how hooks ended into the histories of their runs, in one transaction."""
    with database.write() as connection:
        for one in events:
            connection.execute(
                _RECORD,
                {
                    "key_type": one.key.run_type,
                    "key_id": one.key.run_id,
                    "moment": one.at,
                    "why": one.reason,
                    "told": one.detail,
                },
            )
