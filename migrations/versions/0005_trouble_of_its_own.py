"""What a run is to be blamed for, and what of others: counted apart; blocks have a subject.

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

CONTRACT = "SELECT 1 AS major, {minor} AS minor"


def upgrade() -> None:
    """Add the columns; what was counted as polls so far is taken for answers."""
    for definition in COLUMNS.values():
        op.execute(f"ALTER TABLE runs ADD COLUMN {definition}")
    op.execute("UPDATE runs SET answers = polls WHERE state = 'pending' AND polls > 0")
    _make_blocks(sa.Column("subject", sa.Text, nullable=False, server_default=""), minor=4)


def downgrade() -> None:
    """Bring back what 0004 had."""
    for name in reversed(COLUMNS):
        op.execute(f"ALTER TABLE runs DROP COLUMN {name}")
    _make_blocks(minor=3)


def _make_blocks(*subject: sa.Column[str], minor: int) -> None:
    """Make `blocks` anew: rows of before do not say whose they are, and are met again."""
    op.execute("DROP VIEW contract")
    op.execute("CREATE VIEW contract AS " + CONTRACT.format(minor=minor))
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
