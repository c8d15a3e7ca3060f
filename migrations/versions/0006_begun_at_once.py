"""`transfers_by_run` counts those that begin with their URL: `url_received`, to `downloading`.

Revision: 0006, after 0005.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# In a hook's row both states are the one that the run is in.
TRANSFERS_BY_RUN = """
SELECT run_type, run_id,
       sum({begun}) AS transfers,
       sum(to_state = 'done' AND from_state <> 'done') AS saved,
       sum(from_state = 'downloading' AND to_state IN ('ready', 'pending', 'failed')
           AND reason NOT IN ('interrupted', 'disk_full', 'output_unusable', 'lease_ran_out'))
           AS errors,
       sum(from_state = 'downloading'
           AND reason IN ('interrupted', 'disk_full', 'output_unusable', 'lease_ran_out'))
           AS broken_off,
       min(CASE WHEN {begun} THEN at END) AS first_at,
       max(CASE WHEN {begun} THEN at END) AS last_at
FROM run_events
GROUP BY run_type, run_id
HAVING sum({begun}) > 0
"""
CONTRACT = "SELECT 1 AS major, {minor} AS minor"


def upgrade() -> None:
    """Make both views anew; no row changes."""
    _make(begun="to_state = 'downloading' AND from_state <> 'downloading'", minor=5)


def downgrade() -> None:
    """Bring back what 0005 had; no row changes."""
    _make(begun="reason = 'claimed'", minor=4)


def _make(*, begun: str, minor: int) -> None:
    for name in ("contract", "transfers_by_run"):
        op.execute(f"DROP VIEW {name}")
    op.execute("CREATE VIEW contract AS " + CONTRACT.format(minor=minor))
    op.execute("CREATE VIEW transfers_by_run AS " + TRANSFERS_BY_RUN.format(begun=begun))
