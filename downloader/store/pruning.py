"""Deleting the old history of runs that are finished: in small transactions, beside everything.

Of each run stays its last transition and what came after it (what its hook came to), and of runs
that are not finished everything.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from downloader.rules.states import FINISHED, UNFINISHED, RunKey
from downloader.store.schema import UTCText

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from downloader.store.database import Database

MOST_ROWS: Final = 1000
"""How many rows one transaction deletes at the most: some 20 ms that writers wait."""

MOST_RUNS: Final = 250
"""For so many runs at a time it is deleted: a run that went well has three such rows."""

WINDOW: Final = 50_000
"""So many events are looked through at a time: no reader keeps the write-ahead log for long."""


def _written(states: frozenset[str]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


# CROSS JOIN keeps the order: from the events to their runs, and from the runs to their events.
_LOOK: Final = sa.text(
    f"""
    SELECT event.run_type, event.run_id
    FROM run_events AS event
    CROSS JOIN runs ON runs.run_type = event.run_type AND runs.run_id = event.run_id
    WHERE event.event_id > :after AND event.event_id <= :upto AND event.at < :before
      AND event.to_state IN ({_written(UNFINISHED)})
      AND runs.state IN ({_written(FINISHED)})
    """  # noqa: S608 - words of the program
).bindparams(sa.bindparam("before", type_=UTCText))
_DELETE: Final = sa.text(
    f"""
    DELETE FROM run_events WHERE event_id IN (
        SELECT event.event_id
        FROM json_each(:keys) AS given
        CROSS JOIN runs ON runs.run_type = json_extract(given.value, '$[0]')
            AND runs.run_id = json_extract(given.value, '$[1]')
        CROSS JOIN run_events AS event
            ON event.run_type = runs.run_type AND event.run_id = runs.run_id
        WHERE runs.state IN ({_written(FINISHED)})
          AND event.at < :before
          AND EXISTS (
              SELECT 1 FROM run_events AS later
              WHERE later.run_type = event.run_type AND later.run_id = event.run_id
                AND later.event_id > event.event_id AND later.from_state IS NOT later.to_state
          )
        LIMIT {MOST_ROWS}
    )
    """  # noqa: S608 - as above
).bindparams(sa.bindparam("before", type_=UTCText))
_NEWEST: Final = sa.text("SELECT max(event_id) FROM run_events")


def newest_event(database: Database) -> int:
    """Return the number of the last event, 0 where there is none."""
    with database.read() as connection:
        return connection.scalar(_NEWEST) or 0


def runs_with_old_history(database: Database, after: int, before: datetime) -> list[RunKey]:
    """Return finished runs that something is to be deleted of, from the `WINDOW` after an event.

    What has been deleted leaves nothing to be found: of a run that has ended the last row leads
    to an end, and only rows that do not are looked for.
    """
    values = {"after": after, "upto": after + WINDOW, "before": before}
    with database.read() as connection:
        return list(dict.fromkeys(RunKey(*row) for row in connection.execute(_LOOK, values)))


def prune(database: Database, keys: Sequence[RunKey], before: datetime) -> int:
    """Delete old rows of these runs, `MOST_ROWS` at the most; return how many it were."""
    values = {"keys": json.dumps(keys), "before": before}
    with database.write() as connection:
        return connection.execute(_DELETE, values).rowcount
