"""The contract's version, views for what operators ask, and an index of what is done by its time.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# To the millisecond, as far as SQLite knows it; `datetime('now')` knows whole seconds.
NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
HOUR_AGO = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour')"

SHOWN = """run_type, run_id, state, remote_status, polls, attempts, refreshes,
       next_attempt_at, lease_owner, lease_expires_at, url_expires_at,
       error_code, error_message, submitted_at, ready_at, updated_at"""

WHY = """CASE
           WHEN state = 'downloading' THEN 'its worker is gone: the lease has run out'
           WHEN attempts > 0 THEN 'transfers end in errors'
           WHEN refreshes > 0 THEN 'its URLs are refused or expire before use'
           WHEN state = 'ready' THEN 'no worker takes it: is the daemon running?'
           WHEN error_code IS NOT NULL THEN 'the API does not answer for it'
           WHEN polls = 0 THEN 'never asked for: is the daemon running?'
           ELSE 'not finished at the provider'
       END"""

STUCK = f"""
SELECT run_type, run_id, state,
       {WHY} AS why,
       error_code, error_message, remote_status, polls, attempts, refreshes,
       next_attempt_at, submitted_at, updated_at
FROM {{source}}
WHERE (state = 'downloading' AND lease_expires_at < datetime('now'))
   OR (state IN ('pending', 'ready')
       AND (attempts > 0 OR refreshes > 2 OR submitted_at < datetime('now', '-1 hour')))
"""  # noqa: S608 - constants

# No view shows `url`: a presigned URL is a secret while it lives.
NEW_VIEWS = {
    # Rows are added to this version's views; what is removed or changes its meaning is a new major.
    "contract": "SELECT 1 AS major, 1 AS minor",
    # One branch a state: only a literal lets SQLite use that state's index.
    "unfinished": "\nUNION ALL\n".join(
        f"SELECT {SHOWN}\nFROM runs\nWHERE state = '{state}'"
        for state in ("pending", "ready", "downloading")
    ),
    # The first run of the hour starts the measure and is not counted. What stands still counts.
    "eta": f"""
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
           (count(*) - 1) / ((julianday('now') - julianday(min(at))) * 24.0) AS runs_per_hour
    FROM ended
), work AS (
    SELECT (SELECT count(*) FROM runs WHERE state = 'pending')
           + (SELECT count(*) FROM runs WHERE state = 'ready')
           + (SELECT count(*) FROM runs WHERE state = 'downloading') AS unfinished
), estimate AS (
    SELECT unfinished, finished, bytes, runs_per_hour,
           CASE WHEN unfinished > 0 AND runs_per_hour > 0
                THEN CAST(round(unfinished * 3600.0 / runs_per_hour) AS INTEGER)
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
""",  # noqa: S608 - constants
    "transfers_by_run": """
SELECT run_type, run_id,
       sum(reason = 'claimed') AS transfers,
       sum(to_state = 'done') AS saved,
       sum(from_state = 'downloading' AND to_state IN ('ready', 'pending', 'failed')
           AND reason NOT IN ('interrupted', 'disk_full', 'output_unusable', 'lease_ran_out'))
           AS errors,
       sum(from_state = 'downloading'
           AND reason IN ('interrupted', 'disk_full', 'output_unusable', 'lease_ran_out'))
           AS broken_off,
       min(CASE WHEN reason = 'claimed' THEN at END) AS first_at,
       max(CASE WHEN reason = 'claimed' THEN at END) AS last_at
FROM run_events
GROUP BY run_type, run_id
HAVING sum(reason = 'claimed') > 0
""",
}


def upgrade() -> None:
    """Add the index and the views; `stuck` says the same as before, by the indexes."""
    done = sa.text("state = 'done'")
    op.create_index("ix_runs_done", "runs", ["done_at"], sqlite_where=done)
    for name, query in NEW_VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")
    op.execute("DROP VIEW stuck")
    op.execute("CREATE VIEW stuck AS " + STUCK.format(source="unfinished"))


def downgrade() -> None:
    """Bring back what 0001 had; no row changes."""
    op.execute("DROP VIEW stuck")
    for name in NEW_VIEWS:
        op.execute(f"DROP VIEW {name}")
    op.execute("CREATE VIEW stuck AS " + STUCK.format(source="runs"))
    op.drop_index("ix_runs_done", "runs")
