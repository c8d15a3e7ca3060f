"""`eta` heeds for how long nothing has ended; what is done is counted by its index alone.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# To the millisecond, as far as SQLite knows it; `datetime('now')` knows whole seconds.
NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
HOUR_AGO = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour')"

# The first run of the hour starts the measure and is not counted. What stands still counts: for
# how long nothing has come, nothing may come yet.
ETA = f"""
WITH ended AS (
    SELECT done_at AS at, bytes
    FROM runs
    WHERE state = 'done' AND done_at >= {HOUR_AGO} AND done_at < {NOW}
    UNION ALL
    SELECT updated_at, 0
    FROM runs
    WHERE state = 'failed' AND updated_at >= {HOUR_AGO} AND updated_at < {NOW}
), hour AS (
    SELECT count(*) AS finished, total(bytes) AS bytes,
           (count(*) - 1) / ((julianday('now') - julianday(min(at))) * 24.0)
           AS runs_per_hour{{still}}
    FROM ended
), work AS (
    SELECT (SELECT count(*) FROM runs WHERE state = 'pending')
           + (SELECT count(*) FROM runs WHERE state = 'ready')
           + (SELECT count(*) FROM runs WHERE state = 'downloading') AS unfinished
), estimate AS (
    SELECT unfinished, finished, bytes, runs_per_hour,
           CASE WHEN unfinished > 0 AND runs_per_hour > 0
                THEN CAST(round({{left}}) AS INTEGER)
           END AS seconds_left
    FROM work CROSS JOIN hour
)
SELECT unfinished,
       finished AS finished_last_hour,
       CAST(bytes AS INTEGER) AS bytes_last_hour,
       round(nullif(runs_per_hour, 0), 1) AS runs_per_hour,
       seconds_left,
       strftime('%Y-%m-%d %H:%M:%f000', 'now', '+' || seconds_left || ' seconds') AS expected_at
FROM estimate
"""  # noqa: S608 - constants

REMAINING = "unfinished * 3600.0 / runs_per_hour"
NEW = ETA.format(
    still=", (julianday('now') - julianday(max(at))) * 86400.0 AS still_seconds",
    left=f"max({REMAINING}, still_seconds)",
)
BEFORE = ETA.format(still="", left=REMAINING)

CONTRACT = "SELECT 1 AS major, {minor} AS minor"
DONE = sa.text("state = 'done'")


def upgrade() -> None:
    """Make the view and the index anew; no row changes."""
    _make(NEW, "done_at", "bytes", minor=3)


def downgrade() -> None:
    """Bring back what 0003 had; no row changes."""
    _make(BEFORE, "done_at", minor=2)


def _make(eta: str, *indexed: str, minor: int) -> None:
    for name, query in {"contract": CONTRACT.format(minor=minor), "eta": eta}.items():
        op.execute(f"DROP VIEW {name}")
        op.execute(f"CREATE VIEW {name} AS {query}")
    op.drop_index("ix_runs_done", "runs")
    op.create_index("ix_runs_done", "runs", [*indexed], sqlite_where=DONE)
