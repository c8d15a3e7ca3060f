"""The tables. Their names and columns are a public contract: people query them.

The migrations build the database; this module is what the program's own statements are
written against. A test holds the two together.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

import sqlalchemy as sa

from downloader.logger import get_logger
from downloader.rules.redaction import clean_text
from downloader.rules.states import MAX_INTEGER, RunKey, State

if TYPE_CHECKING:
    from datetime import tzinfo

    from sqlalchemy.engine import Dialect

_log = get_logger(__name__)

SCHEMA_REVISION: Final = "0006"
"""The newest migration. Known here so that a start with a current database needs no Alembic."""


@functools.lru_cache(maxsize=64)  # one moment stands in many rows and columns
def to_text(moment: datetime) -> str:
    """Return `moment` as the store writes it: UTC, `YYYY-MM-DD HH:MM:SS.ffffff`.

    The space (not a `T`) and the fixed width make text order time order and let
    `datetime('now')` compare with it.
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


_LONGEST: Final = timedelta(days=73_000)


class _EditedTime(datetime):
    """A moment that no clock has shown: the far past or future, or what stands for no time at all.

    Only a person's hand writes such. No arithmetic with it fails: a sum ends at the first or the
    last moment there is, and it is at most 200 years from any other, so that what is made of such
    an age has a place in time too. It is written as it was read: its row is still found by it.
    """

    __slots__ = ("text",)
    text: str

    @classmethod
    def of(cls, moment: datetime, text: str) -> _EditedTime:
        """Return a moment as one that was read from this text."""
        edited = cls.combine(moment.date(), moment.timetz())
        edited.text = text
        return edited

    def __add__(self, length: timedelta) -> Any:  # noqa: ANN401 - no more an edited one
        return _within(self, length)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:  # noqa: ANN401 - as datetime has it
        if isinstance(other, timedelta):
            return _within(self, -other)
        return _bounded(_plain(self) - _plain(other))

    def __rsub__(self, other: datetime) -> timedelta:
        return _bounded(_plain(other) - _plain(self))

    def astimezone(self, zone: tzinfo | None = None) -> Any:  # noqa: ANN401 - as above
        """Return the moment in another zone, in UTC where it has no such day."""
        try:
            return _plain(self).astimezone(zone)
        except OverflowError:
            return _plain(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:  # noqa: ANN401 - as datetime has it
        return _plain(self).__reduce_ex__(protocol)


def _plain(moment: datetime) -> datetime:
    return datetime.combine(moment.date(), moment.timetz())


def _bounded(length: timedelta) -> timedelta:
    return max(-_LONGEST, min(_LONGEST, length))


def _within(moment: datetime, length: timedelta) -> datetime:
    try:
        return _plain(moment) + length
    except OverflowError:
        return UNREADABLE if length > timedelta() else datetime.min.replace(tzinfo=UTC)


UNREADABLE: Final = datetime.max.replace(tzinfo=UTC)
"""What stands for a time that cannot be read: no deadline and no expiry lies behind it."""

_SHOWN_BY_CLOCKS: Final = range(1970, 3000)
_MAX_TOLD: Final = 10
_told: Final[set[str]] = set()


def from_text(text: str) -> datetime:
    """Return the moment that `to_text` wrote.

    Whoever edits a row by hand can write what only looks like a time, or one at which arithmetic
    fails. Such a row shall not stop all the others: what cannot be read is told of, once, and
    `UNREADABLE` stands in its place.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.year in _SHOWN_BY_CLOCKS:
            return moment.replace(tzinfo=UTC)
        return _EditedTime.of(moment.replace(tzinfo=UTC), text)
    except (ValueError, TypeError):  # TypeError: a table that somebody made anew without types
        shown = clean_text(str(text), 60)
        if shown not in _told and len(_told) < _MAX_TOLD:
            _told.add(shown)
            _log.warning(
                "database.unreadable_time",
                text=shown,
                hint="taken for 9999-12-31; find the row that was edited by hand, and correct it",
            )
        return _EditedTime.of(UNREADABLE, text)


class UTCText(sa.types.TypeDecorator[datetime]):
    """A moment, kept as UTC text that sorts and compares as text."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Write an aware moment as text."""
        if isinstance(value, _EditedTime):
            return value.text
        return None if value is None else to_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Read text as an aware moment."""
        return None if value is None else from_text(value)


# 64 bits on every database; SQLite's INTEGER has them, and STRICT tables know no BIGINT.
Int64: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = sa.MetaData(naming_convention=NAMING)

TIME_FORMAT: Final = "____-__-__ __:__:__.______"
TIME_COLUMNS: Final = (
    "url_expires_at",
    "next_attempt_at",
    "lease_expires_at",
    "submitted_at",
    "ready_at",
    "done_at",
    "updated_at",
    "unknown_since",
    "failing_since",
)

RUNS_CHECKS: Final[dict[str, str]] = {
    "run_id_positive": "run_id > 0",
    "run_type_named": "run_type <> ''",
    "state_known": "state IN (" + ", ".join(f"'{state}'" for state in State) + ")",
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
    "answers_positive": "answers >= 0",
    "poll_errors_positive": "poll_errors >= 0",
    "unknown_answers_positive": "unknown_answers >= 0",
} | {
    f"{column}_format": f"{column} IS NULL OR {column} LIKE '{TIME_FORMAT}'"
    for column in TIME_COLUMNS
}

ADDED_CHECKS: Final = {
    "answers": "answers_positive",
    "poll_errors": "poll_errors_positive",
    "unknown_answers": "unknown_answers_positive",
    "unknown_since": "unknown_since_format",
    "failing_since": "failing_since_format",
}
"""Columns that were added to the table, whose CHECK stands with them: SQLite adds no other."""


def _added(name: str) -> sa.CheckConstraint:
    check = ADDED_CHECKS[name]
    return sa.CheckConstraint(RUNS_CHECKS[check], name=check)


runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_type", sa.Text, nullable=False),
    sa.Column("run_id", Int64, nullable=False, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("remote_status", sa.Text),
    sa.Column("url", sa.Text),
    sa.Column("url_expires_at", UTCText),
    sa.Column("polls", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("refreshes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_attempt_at", UTCText),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_expires_at", UTCText),
    sa.Column("location", sa.Text),
    sa.Column("bytes", Int64),
    sa.Column("sha256", sa.Text),
    sa.Column("audio_format", sa.Text),
    sa.Column("etag", sa.Text),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("submitted_at", UTCText, nullable=False),
    sa.Column("ready_at", UTCText),
    sa.Column("done_at", UTCText),
    sa.Column("updated_at", UTCText, nullable=False),
    sa.Column("answers", sa.Integer, _added("answers"), nullable=False, server_default="0"),
    sa.Column("poll_errors", sa.Integer, _added("poll_errors"), nullable=False, server_default="0"),
    sa.Column(
        "unknown_answers", sa.Integer, _added("unknown_answers"), nullable=False, server_default="0"
    ),
    sa.Column("unknown_since", UTCText, _added("unknown_since")),
    sa.Column("failing_since", UTCText, _added("failing_since")),
    sa.Column("last_modified", sa.Text),
    sa.Column("digest", sa.Text),
    sa.PrimaryKeyConstraint("run_type", "run_id"),
    *(
        sa.CheckConstraint(rule, name=name)
        for name, rule in RUNS_CHECKS.items()
        if name not in ADDED_CHECKS.values()
    ),
    sqlite_strict=True,
)


def _queue(name: str, state: State, *columns: str | sa.ColumnElement[int]) -> sa.Index:
    """Index one queue: a partial index on a single state stays as small as its queue is."""
    only = sa.text(f"state = '{state}'")
    found = [runs.c[one] if isinstance(one, str) else one for one in columns]
    return sa.Index(name, *found, sqlite_where=only)


_PAUSES: Final = "(julianday(next_attempt_at) - julianday(updated_at)) * 86400.0"
PAUSE_CLASS: Final = sa.literal_column(
    "CASE WHEN next_attempt_at <= updated_at THEN 0"
    f" WHEN {_PAUSES} < 4 THEN 1"
    f" WHEN {_PAUSES} < 16 THEN 2"
    f" WHEN {_PAUSES} < 64 THEN 3"
    " ELSE 4 END",
    sa.Integer,
)
"""How long the pause before a pending run's next poll is, roughly: 0 where there is none, as of a
run never asked for. Queries have to say it as the index does."""

PAUSE_CLASSES: Final = range(5)

QUEUES: Final = (
    _queue("ix_runs_pending", State.PENDING, "run_type", PAUSE_CLASS, "next_attempt_at"),
    _queue("ix_runs_ready", State.READY, "next_attempt_at", "url_expires_at"),
    _queue("ix_runs_downloading", State.DOWNLOADING, "lease_expires_at"),
    _queue("ix_runs_failed", State.FAILED, "updated_at"),
    # Nobody's queue: for people who ask how fast.
    _queue("ix_runs_done", State.DONE, "done_at", "bytes"),
)

run_events = sa.Table(
    "run_events",
    metadata,
    sa.Column("event_id", Int64, primary_key=True, autoincrement=True),
    sa.Column("run_type", sa.Text, nullable=False),
    sa.Column("run_id", Int64, nullable=False),
    sa.Column("at", UTCText, nullable=False),
    sa.Column("from_state", sa.Text),  # NULL: the run was submitted
    sa.Column("to_state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text),
    # No cascade: a run's history never goes by accident.
    sa.ForeignKeyConstraint(["run_type", "run_id"], ["runs.run_type", "runs.run_id"]),
    sa.CheckConstraint(f"at LIKE '{TIME_FORMAT}'", name="at_format"),
    sa.Index("ix_run_events_run", "run_type", "run_id"),
    sqlite_strict=True,
)

blocks = sa.Table(
    "blocks",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True, server_default=""),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("since", UTCText, nullable=False),
    sa.Column("until", UTCText, nullable=False),
    sa.Column("probes", sa.Integer, nullable=False, server_default="0"),
    sa.CheckConstraint("scope IN ('api', 'disk')", name="scope_known"),
    sa.CheckConstraint(f"since LIKE '{TIME_FORMAT}'", name="since_format"),
    sa.CheckConstraint(f"until LIKE '{TIME_FORMAT}'", name="until_format"),
    sqlite_strict=True,
)

hook_cursors = sa.Table(
    "hook_cursors",
    metadata,
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("event_id", Int64, nullable=False),
    sa.CheckConstraint("state IN ('done', 'failed')", name="state_known"),
    sa.CheckConstraint("event_id >= 0", name="event_id_positive"),
    sqlite_strict=True,
)


def one_more(counter: sa.Column[int]) -> sa.ColumnElement[int]:
    """Count one more; what a row edited by hand has at its end already stays there."""
    return sa.func.min(counter, MAX_INTEGER - 1) + 1


BY_KEY: Final = (
    runs.c.run_type == sa.bindparam("key_type"),
    runs.c.run_id == sa.bindparam("key_id"),
)
"""That a run is the one of a statement's parameters."""


def is_run(key: RunKey) -> sa.ColumnElement[bool]:
    """Compare with the key of a run."""
    return sa.and_(runs.c.run_type == key.run_type, runs.c.run_id == key.run_id)


def in_state(state: State) -> sa.ColumnElement[bool]:
    """Compare with a state written out: a bound parameter would keep the partial index unused."""
    return runs.c.state == sa.literal_column(f"'{state.value}'")
