"""`transfers_by_run` counts transitions alone: the history now has rows of hooks as well.

Revision: 0003, after 0002.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# In a hook's row both states are the one that the run is in.
TRANSFERS_BY_RUN = """
SELECT run_type, run_id,
       sum(reason = 'claimed') AS transfers,
       sum({saved}) AS saved,
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
"""
CONTRACT = "SELECT 1 AS major, {minor} AS minor"


def upgrade() -> None:
    """Make both views anew; no row changes."""
    _make(saved="to_state = 'done' AND from_state <> 'done'", minor=2)


def downgrade() -> None:
    """Bring back what 0002 had; no row changes."""
    _make(saved="to_state = 'done'", minor=1)


def _make(*, saved: str, minor: int) -> None:
    for name in ("contract", "transfers_by_run"):
        op.execute(f"DROP VIEW {name}")
    op.execute("CREATE VIEW contract AS " + CONTRACT.format(minor=minor))
    op.execute("CREATE VIEW transfers_by_run AS " + TRANSFERS_BY_RUN.format(saved=saved))
