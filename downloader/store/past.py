"""How long runs have taken before, from the history."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from downloader.rules.pace import Past
from downloader.store.schema import run_events, runs

if TYPE_CHECKING:
    from downloader.store.database import Database

_BLOCK: Final = 256
_STRIDE: Final = 1.5
_EVENTS = (
    sa.select(
        run_events.c.event_id,
        run_events.c.run_type,
        run_events.c.run_id,
        run_events.c.at,
        run_events.c.reason,
    )
    .where(
        run_events.c.event_id <= sa.bindparam("newest"),
        # What is pruned leaves gaps: without an end a block would reach into the one before it.
        run_events.c.event_id > sa.bindparam("newest", type_=sa.Integer) - _BLOCK,
    )
    .order_by(run_events.c.event_id.desc())
    .limit(_BLOCK)
    .subquery("events")
)
_NEWEST = sa.select(sa.func.max(run_events.c.event_id))
_FINISHED = (
    sa.select(_EVENTS.c.run_type, _EVENTS.c.at, runs.c.submitted_at, runs.c.polls)
    .join_from(
        _EVENTS,
        runs,
        sa.and_(
            runs.c.run_type == _EVENTS.c.run_type,
            runs.c.run_id == _EVENTS.c.run_id,
        ),
    )
    # Of a run that was given a URL more than once, one event tells how long it took: which?
    .where(_EVENTS.c.reason == "url_received", runs.c.refreshes == 0, runs.c.attempts <= 1)
)


def past_durations(database: Database) -> dict[str, Past]:
    """Return how long runs took to finish, by type, from the history.

    Blocks of events are read at growing distances from the newest, and the oldest, so that this
    takes as long for a million runs as for some thousand, and neither a large submission nor one
    odd hour hides what was before it.
    """
    durations: dict[str, list[float]] = defaultdict(list)
    with database.read() as connection:
        newest = connection.scalar(_NEWEST) or 0
        for event_id in _block_starts(newest):
            for run_type, at, submitted_at, polls in connection.execute(
                _FINISHED, {"newest": event_id}
            ):
                seconds = (at - submitted_at).total_seconds()
                if seconds >= 0:
                    # Finished when first asked for: it may have been so for long.
                    durations[run_type].append(seconds if polls > 1 else 0.0)
    return {name: Past(tuple(sorted(found))) for name, found in durations.items()}


def _block_starts(newest: int) -> list[int]:
    """Return the newest event of each block to be read; no two blocks overlap."""
    starts: list[int] = []
    distance = 0
    while distance < newest:
        starts.append(newest - distance)
        distance = max(distance + _BLOCK, int(distance * _STRIDE))
    left = starts[-1] - _BLOCK if starts else 0
    return [*starts, min(left, _BLOCK)] if left > 0 else starts
