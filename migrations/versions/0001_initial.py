"""The first schema: runs, their events, what blocks the service, and four views.

Revision: 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = "____-__-__ __:__:__.______"
INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

RUNS_CHECKS = {
    "run_id_positive": "run_id > 0",
    "run_type_named": "run_type <> ''",
    "state_known": ("state IN ('pending', 'ready', 'downloading', 'done', 'failed', 'cancelled')"),
    "counters_positive": "polls >= 0 AND attempts >= 0 AND refreshes >= 0",
    "url_while_usable": "(url IS NOT NULL) = (state IN ('ready', 'downloading'))",
    "url_expiry_of_url": "url_expires_at IS NULL OR url IS NOT NULL",
    "next_attempt_while_queued": "(next_attempt_at IS NOT NULL) = (state IN ('pending', 'ready'))",
    "lease_whole": "(lease_owner IS NULL) = (lease_expires_at IS NULL)",
    "lease_while_worked_on": "lease_owner IS NULL OR state IN ('pending', 'downloading')",
    "downloading_has_lease": "state <> 'downloading' OR lease_owner IS NOT NULL",
    "done_is_whole": (
        "state <> 'done' OR (location IS NOT NULL AND bytes IS NOT NULL"
        " AND sha256 IS NOT NULL AND audio_format IS NOT NULL)"
    ),
    "done_at_when_done": "(done_at IS NOT NULL) = (state = 'done')",
    "location_when_done": "location IS NULL OR state = 'done'",
    "sha256_when_done": "sha256 IS NULL OR (state = 'done' AND length(sha256) = 64)",
    "failed_says_why": (
        "state <> 'failed' OR (error_code IS NOT NULL AND error_message IS NOT NULL)"
    ),
    "bytes_positive": "bytes IS NULL OR bytes >= 0",
    "url_expires_at_format": f"url_expires_at IS NULL OR url_expires_at LIKE '{TIME}'",
    "next_attempt_at_format": f"next_attempt_at IS NULL OR next_attempt_at LIKE '{TIME}'",
    "lease_expires_at_format": f"lease_expires_at IS NULL OR lease_expires_at LIKE '{TIME}'",
    "submitted_at_format": f"submitted_at IS NULL OR submitted_at LIKE '{TIME}'",
    "ready_at_format": f"ready_at IS NULL OR ready_at LIKE '{TIME}'",
    "done_at_format": f"done_at IS NULL OR done_at LIKE '{TIME}'",
    "updated_at_format": f"updated_at IS NULL OR updated_at LIKE '{TIME}'",
}

QUEUES = {
    "ix_runs_pending": ("pending", ["run_type", "next_attempt_at"]),
    "ix_runs_ready": ("ready", ["next_attempt_at", "url_expires_at"]),
    "ix_runs_downloading": ("downloading", ["lease_expires_at"]),
    "ix_runs_failed": ("failed", ["updated_at"]),
}

# No view shows `url`: a presigned URL is a secret while it lives.
VIEWS = {
    "progress": """
        SELECT run_type,
               count(*) AS runs,
               sum(state = 'pending') AS pending,
               sum(state = 'ready') AS ready,
               sum(state = 'downloading') AS downloading,
               sum(state = 'done') AS done,
               sum(state = 'failed') AS failed,
               sum(state = 'cancelled') AS cancelled,
               coalesce(sum(CASE WHEN state = 'done' THEN bytes END), 0) AS bytes,
               round(100.0 * sum(state IN ('done', 'failed', 'cancelled')) / count(*), 2)
                   AS percent_finished,
               min(CASE WHEN state IN ('pending', 'ready', 'downloading') THEN submitted_at END)
                   AS oldest_unfinished_at
        FROM runs
        GROUP BY run_type
    """,
    "failures": """
        SELECT run_type, run_id, error_code, error_message, remote_status,
               polls, attempts, refreshes, submitted_at, updated_at AS failed_at
        FROM runs
        WHERE state = 'failed'
    """,
    "stuck": """
        SELECT run_type, run_id, state,
               CASE
                   WHEN state = 'downloading' THEN 'its worker is gone: the lease has run out'
                   WHEN attempts > 0 THEN 'transfers end in errors'
                   WHEN refreshes > 0 THEN 'its URLs are refused or expire before use'
                   WHEN state = 'ready' THEN 'no worker takes it: is the daemon running?'
                   WHEN error_code IS NOT NULL THEN 'the API does not answer for it'
                   WHEN polls = 0 THEN 'never asked for: is the daemon running?'
                   ELSE 'not finished at the provider'
               END AS why,
               error_code, error_message, remote_status, polls, attempts, refreshes,
               next_attempt_at, submitted_at, updated_at
        FROM runs
        WHERE (state = 'downloading' AND lease_expires_at < datetime('now'))
           OR (state IN ('pending', 'ready')
               AND (attempts > 0 OR refreshes > 2 OR submitted_at < datetime('now', '-1 hour')))
    """,
    "throughput_by_hour": """
        SELECT substr(done_at, 1, 13) || ':00:00' AS hour,
               count(*) AS runs,
               sum(bytes) AS bytes,
               round(avg((julianday(done_at) - julianday(submitted_at)) * 86400.0), 3)
                   AS mean_seconds_from_submit
        FROM runs
        WHERE state = 'done'
        GROUP BY 1
    """,
}


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "runs",
        sa.Column("run_type", sa.Text, nullable=False),
        sa.Column("run_id", INT64, nullable=False, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("remote_status", sa.Text),
        sa.Column("url", sa.Text),
        sa.Column("url_expires_at", sa.Text),
        sa.Column("polls", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("refreshes", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt_at", sa.Text),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_expires_at", sa.Text),
        sa.Column("location", sa.Text),
        sa.Column("bytes", INT64),
        sa.Column("sha256", sa.Text),
        sa.Column("audio_format", sa.Text),
        sa.Column("etag", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("submitted_at", sa.Text, nullable=False),
        sa.Column("ready_at", sa.Text),
        sa.Column("done_at", sa.Text),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_type", "run_id", name="pk_runs"),
        *(
            sa.CheckConstraint(rule, name=op.f(f"ck_runs_{name}"))
            for name, rule in RUNS_CHECKS.items()
        ),
        sqlite_strict=True,
    )
    for name, (state, columns) in QUEUES.items():
        only = sa.text(f"state = '{state}'")
        op.create_index(name, "runs", columns, sqlite_where=only)

    op.create_table(
        "run_events",
        sa.Column("event_id", INT64, autoincrement=True),
        sa.Column("run_type", sa.Text, nullable=False),
        sa.Column("run_id", INT64, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("from_state", sa.Text),
        sa.Column("to_state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text),
        sa.PrimaryKeyConstraint("event_id", name="pk_run_events"),
        sa.ForeignKeyConstraint(
            ["run_type", "run_id"],
            ["runs.run_type", "runs.run_id"],
            name="fk_run_events_run_type_run_id_runs",
        ),
        sa.CheckConstraint(f"at LIKE '{TIME}'", name=op.f("ck_run_events_at_format")),
        sqlite_strict=True,
    )
    op.create_index("ix_run_events_run", "run_events", ["run_type", "run_id"])

    op.create_table(
        "blocks",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("until", sa.Text, nullable=False),
        sa.Column("probes", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("scope", name="pk_blocks"),
        sa.CheckConstraint("scope IN ('api', 'disk')", name=op.f("ck_blocks_scope_known")),
        sa.CheckConstraint(f"since LIKE '{TIME}'", name=op.f("ck_blocks_since_format")),
        sa.CheckConstraint(f"until LIKE '{TIME}'", name=op.f("ck_blocks_until_format")),
        sqlite_strict=True,
    )

    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    """Remove everything; the files already saved stay."""
    for name in VIEWS:
        op.execute(f"DROP VIEW {name}")
    op.drop_table("blocks")
    op.drop_table("run_events")
    op.drop_table("runs")
