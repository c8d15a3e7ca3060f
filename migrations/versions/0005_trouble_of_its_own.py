"""What a run is to be blamed for, and what of others: counted apart; blocks have a subject.

`stuck` says of each trouble what it is, `progress` rounds down, and hooks are owed by the history.

Revision: 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = "____-__-__ __:__:__.______"
INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column(name: str, kind: str, check: str, rule: str) -> str:
    return f"{name} {kind} CONSTRAINT ck_runs_{name}_{check} CHECK ({rule.format(name)})"


def _time(name: str) -> str:
    return _column(name, "TEXT", "format", f"{{0}} IS NULL OR {{0}} LIKE '{TIME}'")


def _counter(name: str) -> str:
    return _column(name, "INTEGER DEFAULT '0' NOT NULL", "positive", "{0} >= 0")


# Added one by one: a batch migration would copy a million rows, and these need no look at any.
COLUMNS = {
    "answers": _counter("answers"),
    "poll_errors": _counter("poll_errors"),
    "unknown_answers": _counter("unknown_answers"),
    "unknown_since": _time("unknown_since"),
    "failing_since": _time("failing_since"),
    "last_modified": "last_modified TEXT",
    "digest": "digest TEXT",
}

# Those never asked for are found at once, and of the others those whose pause is short: see
# "How polls are timed" in docs/architecture.md.
PAUSES = "(julianday(next_attempt_at) - julianday(updated_at)) * 86400.0"
PAUSE_CLASS = (
    "CASE WHEN next_attempt_at <= updated_at THEN 0"
    f" WHEN {PAUSES} < 4 THEN 1"
    f" WHEN {PAUSES} < 16 THEN 2"
    f" WHEN {PAUSES} < 64 THEN 3"
    " ELSE 4 END"
)

CONTRACT = "SELECT 1 AS major, {minor} AS minor"

PROGRESS = """
SELECT run_type,
       count(*) AS runs,
       sum(state = 'pending') AS pending,
       sum(state = 'ready') AS ready,
       sum(state = 'downloading') AS downloading,
       sum(state = 'done') AS done,
       sum(state = 'failed') AS failed,
       sum(state = 'cancelled') AS cancelled,
       coalesce(sum(CASE WHEN state = 'done' THEN bytes END), 0) AS bytes,
       {percent} AS percent_finished,
       min(CASE WHEN state IN ('pending', 'ready', 'downloading') THEN submitted_at END)
           AS oldest_unfinished_at
FROM runs
GROUP BY run_type
"""
FINISHED = "sum(state IN ('done', 'failed', 'cancelled'))"
ROUNDED = f"round(100.0 * {FINISHED} / count(*), 2)"
# 100 where all are finished and 0 where none is, and nowhere else.
ROUNDED_DOWN = f"max(10000 * {FINISHED} / count(*), min({FINISHED}, 1)) / 100.0"

SHOWN = """run_type, run_id, state, remote_status, polls, attempts, refreshes,
       next_attempt_at, lease_owner, lease_expires_at, url_expires_at,
       error_code, error_message, submitted_at, ready_at, updated_at"""
ADDED = "answers, poll_errors, unknown_answers, unknown_since, failing_since"

# What is in the way now comes before what the run itself has met, that before whose turn it is.
# An error is the API's where its code says so, or where no URL has ever come; any other, of
# whatever code, is of a transfer.
DUE = "next_attempt_at <= datetime('now')"
API_ERRORS = """
    'api_timeout', 'conflict', 'too_early', 'throttled', 'unavailable', 'server_error',
    'unreadable_answer', 'bad_request', 'not_found', 'invalid_request', 'refused'
"""
BLOCKED = """
    CASE (SELECT reason FROM blocks WHERE scope = '{scope}' ORDER BY since LIMIT 1)
        {reasons}
        ELSE '{otherwise}: see blocks'
    END"""
API_BLOCKED = BLOCKED.format(
    scope="api",
    reasons="""WHEN 'key_refused' THEN 'the API refuses the key: see blocks'
        WHEN 'payment_required' THEN 'the service asks for payment: see blocks'""",
    otherwise="the API is not asked",
)
DISK_BLOCKED = BLOCKED.format(
    scope="disk",
    reasons="""WHEN 'disk_full' THEN 'the disk is full: see blocks'
        WHEN 'output_unusable' THEN 'the output folder cannot be used: see blocks'""",
    otherwise="nothing can be saved",
)
WORKING = """EXISTS (
        SELECT 1 FROM runs WHERE state = '{state}' AND lease_expires_at > datetime('now')
    )"""
ASKING, SAVING = WORKING.format(state="pending"), WORKING.format(state="downloading")
WHY = f"""CASE
    WHEN state = 'downloading' THEN 'its worker is gone: the lease has run out'
    WHEN state = 'pending' AND {DUE} AND EXISTS (SELECT 1 FROM blocks WHERE scope = 'api')
        THEN {API_BLOCKED}
    WHEN state = 'ready' AND {DUE} AND EXISTS (SELECT 1 FROM blocks WHERE scope = 'disk')
        THEN {DISK_BLOCKED}
    WHEN error_code = 'unknown_run' OR (error_code = 'url_refused' AND unknown_answers > 0)
        THEN 'the API does not know it (404), and answers for others'
    WHEN error_code IN ('url_expired', 'url_refused')
        THEN 'its URLs are refused or expire before use'
    WHEN error_code = 'api_unreachable' THEN 'the API cannot be reached'
    WHEN error_code = 'api_not_found' THEN 'nothing is found at the URL of the API (404)'
    WHEN error_code IN ({API_ERRORS}) THEN 'the API does not answer for it'
    WHEN error_code IS NOT NULL AND state = 'pending' AND (ready_at IS NULL OR poll_errors > 0)
        THEN 'the API does not answer for it'
    WHEN error_code = 'storage_unreachable' THEN 'its storage cannot be reached'
    WHEN error_code IS NOT NULL AND attempts > 0 THEN 'transfers end in errors'
    WHEN error_code IS NOT NULL
        THEN 'it waits for its storage, which is in trouble: nothing is spent'
    WHEN state = 'ready' AND NOT {DUE} THEN 'it waits for its time'
    WHEN state = 'ready' AND {SAVING} THEN 'it waits for its turn: others are being saved'
    WHEN state = 'ready' THEN 'no worker takes it: is the daemon running?'
    WHEN polls = 0 AND NOT {DUE} THEN 'not asked for yet: its time is still to come'
    WHEN polls = 0 AND {ASKING} THEN 'not asked for yet: it waits for its turn'
    WHEN polls = 0 THEN 'never asked for: is the daemon running?'
    WHEN remote_status = 'UNUSABLE_URL' THEN 'the URL that the API gives cannot be used'
    WHEN remote_status = 'HTTP 404' THEN 'the API does not know it (404)'
    WHEN remote_status = 'UNREADABLE_ANSWER' THEN 'what the API says of it cannot be read'
    WHEN ready_at IS NOT NULL THEN 'it needs a new URL, and the API gives none yet'
    WHEN next_attempt_at > datetime('now', '-5 minutes') OR {ASKING}
        THEN 'not finished at the provider'
    ELSE 'not finished at the provider when last asked for: is the daemon running?'
END"""  # noqa: S608 - constants
WHY_BEFORE = """CASE
           WHEN state = 'downloading' THEN 'its worker is gone: the lease has run out'
           WHEN attempts > 0 THEN 'transfers end in errors'
           WHEN refreshes > 0 THEN 'its URLs are refused or expire before use'
           WHEN state = 'ready' THEN 'no worker takes it: is the daemon running?'
           WHEN error_code IS NOT NULL THEN 'the API does not answer for it'
           WHEN polls = 0 THEN 'never asked for: is the daemon running?'
           ELSE 'not finished at the provider'
       END"""
STUCK = """
SELECT run_type, run_id, state,
       {why} AS why,
       error_code, error_message, remote_status, polls, attempts, refreshes,
       next_attempt_at, submitted_at, updated_at{added}
FROM unfinished
WHERE (state = 'downloading' AND lease_expires_at < datetime('now'))
   OR (state IN ('pending', 'ready')
       AND (attempts > 0 OR refreshes > 2 OR submitted_at < datetime('now', '-1 hour'){younger}))
"""


def upgrade() -> None:
    """Add the columns; what was counted as polls so far is taken for answers."""
    _drop_views()
    for definition in COLUMNS.values():
        op.execute(f"ALTER TABLE runs ADD COLUMN {definition}")
    op.execute("UPDATE runs SET answers = polls WHERE state = 'pending' AND polls > 0")
    _index_pending(f"run_type, {PAUSE_CLASS}, next_attempt_at")
    _make_blocks(sa.Column("subject", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "hook_cursors",
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("event_id", INT64, nullable=False),
        sa.PrimaryKeyConstraint("state", name="pk_hook_cursors"),
        sa.CheckConstraint("state IN ('done', 'failed')", name=op.f("ck_hook_cursors_state_known")),
        sa.CheckConstraint("event_id >= 0", name=op.f("ck_hook_cursors_event_id_positive")),
        sqlite_strict=True,
    )
    _make_views(
        minor=4,
        shown=f"{SHOWN},\n       {ADDED}",
        percent=ROUNDED_DOWN,
        stuck=STUCK.format(
            why=WHY, added=", unknown_answers, unknown_since", younger=" OR unknown_answers > 0"
        ),
    )


def downgrade() -> None:
    """Bring back what 0004 had; which hooks are owed is forgotten."""
    _drop_views()
    _index_pending("run_type, next_attempt_at")
    op.drop_table("hook_cursors")
    for name in reversed(COLUMNS):
        op.execute(f"ALTER TABLE runs DROP COLUMN {name}")
    _make_blocks()
    _make_views(
        minor=3,
        shown=SHOWN,
        percent=ROUNDED,
        stuck=STUCK.format(why=WHY_BEFORE, added="", younger=""),
    )


def _index_pending(columns: str) -> None:
    op.execute("DROP INDEX ix_runs_pending")
    op.execute(f"CREATE INDEX ix_runs_pending ON runs ({columns}) WHERE state = 'pending'")


def _drop_views() -> None:
    for name in ("stuck", "unfinished", "progress", "contract"):
        op.execute(f"DROP VIEW {name}")


def _make_views(*, minor: int, shown: str, percent: str, stuck: str) -> None:
    # One branch a state: only a literal lets SQLite use that state's index.
    unfinished = "\nUNION ALL\n".join(
        f"SELECT {shown}\nFROM runs\nWHERE state = '{state}'"
        for state in ("pending", "ready", "downloading")
    )
    op.execute("CREATE VIEW contract AS " + CONTRACT.format(minor=minor))
    op.execute("CREATE VIEW progress AS " + PROGRESS.format(percent=percent))
    op.execute(f"CREATE VIEW unfinished AS {unfinished}")
    op.execute(f"CREATE VIEW stuck AS {stuck}")


def _make_blocks(*subject: sa.Column[str]) -> None:
    """Make `blocks` anew: rows of before do not say whose they are, and are met again."""
    op.drop_table("blocks")
    op.create_table(
        "blocks",
        sa.Column("scope", sa.Text, nullable=False),
        *subject,
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("until", sa.Text, nullable=False),
        sa.Column("probes", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("scope", *(one.name for one in subject), name="pk_blocks"),
        sa.CheckConstraint("scope IN ('api', 'disk')", name=op.f("ck_blocks_scope_known")),
        sa.CheckConstraint(f"since LIKE '{TIME}'", name=op.f("ck_blocks_since_format")),
        sa.CheckConstraint(f"until LIKE '{TIME}'", name=op.f("ck_blocks_until_format")),
        sqlite_strict=True,
    )
