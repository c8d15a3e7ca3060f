from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from store.driving import SIGNATURE, Driver, key

from downloader.clock import utc_now
from downloader.rules.resume import Journal
from downloader.rules.states import State
from downloader.rules.steps import NewUrl, TransferFailed, TryAgain
from downloader.store import blocks, control, events, leases, listing, transfers
from downloader.store.migrate import migrations_folder
from downloader.store.schema import PAUSE_CLASS, SCHEMA_REVISION, from_text, metadata, runs, to_text
from downloader.store.status import status

if TYPE_CHECKING:
    from downloader.rules.steps import TransferStep
    from downloader.store.database import Database

RUNS = {
    "run_type": "TEXT",
    "run_id": "INTEGER",
    "state": "TEXT",
    "remote_status": "TEXT",
    "url": "TEXT",
    "url_expires_at": "TEXT",
    "polls": "INTEGER",
    "attempts": "INTEGER",
    "refreshes": "INTEGER",
    "next_attempt_at": "TEXT",
    "lease_owner": "TEXT",
    "lease_expires_at": "TEXT",
    "location": "TEXT",
    "bytes": "INTEGER",
    "sha256": "TEXT",
    "audio_format": "TEXT",
    "etag": "TEXT",
    "error_code": "TEXT",
    "error_message": "TEXT",
    "submitted_at": "TEXT",
    "ready_at": "TEXT",
    "done_at": "TEXT",
    "updated_at": "TEXT",
    "answers": "INTEGER",
    "poll_errors": "INTEGER",
    "unknown_answers": "INTEGER",
    "unknown_since": "TEXT",
    "failing_since": "TEXT",
    "last_modified": "TEXT",
    "digest": "TEXT",
}
RUN_EVENTS = {
    "event_id": "INTEGER",
    "run_type": "TEXT",
    "run_id": "INTEGER",
    "at": "TEXT",
    "from_state": "TEXT",
    "to_state": "TEXT",
    "reason": "TEXT",
    "detail": "TEXT",
}
BLOCKS = {
    "scope": "TEXT",
    "subject": "TEXT",
    "reason": "TEXT",
    "message": "TEXT",
    "since": "TEXT",
    "until": "TEXT",
    "probes": "INTEGER",
}
HOOK_CURSORS = {"state": "TEXT", "event_id": "INTEGER"}
VIEWS = {
    "progress": [
        "run_type",
        "runs",
        "pending",
        "ready",
        "downloading",
        "done",
        "failed",
        "cancelled",
        "bytes",
        "percent_finished",
        "oldest_unfinished_at",
    ],
    "failures": [
        "run_type",
        "run_id",
        "error_code",
        "error_message",
        "remote_status",
        "polls",
        "attempts",
        "refreshes",
        "submitted_at",
        "failed_at",
    ],
    "stuck": [
        "run_type",
        "run_id",
        "state",
        "why",
        "error_code",
        "error_message",
        "remote_status",
        "polls",
        "attempts",
        "refreshes",
        "next_attempt_at",
        "submitted_at",
        "updated_at",
        "unknown_answers",
        "unknown_since",
    ],
    "throughput_by_hour": ["hour", "runs", "bytes", "mean_seconds_from_submit"],
    "contract": ["major", "minor"],
    "unfinished": [
        "run_type",
        "run_id",
        "state",
        "remote_status",
        "polls",
        "attempts",
        "refreshes",
        "next_attempt_at",
        "lease_owner",
        "lease_expires_at",
        "url_expires_at",
        "error_code",
        "error_message",
        "submitted_at",
        "ready_at",
        "updated_at",
        "answers",
        "poll_errors",
        "unknown_answers",
        "unknown_since",
        "failing_since",
    ],
    "eta": [
        "unfinished",
        "finished_last_hour",
        "bytes_last_hour",
        "runs_per_hour",
        "seconds_left",
        "expected_at",
    ],
    "transfers_by_run": [
        "run_type",
        "run_id",
        "transfers",
        "saved",
        "errors",
        "broken_off",
        "first_at",
        "last_at",
    ],
}
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")


@pytest.mark.parametrize(
    ("table", "columns", "primary_key"),
    [
        ("runs", RUNS, ["run_type", "run_id"]),
        ("run_events", RUN_EVENTS, ["event_id"]),
        ("blocks", BLOCKS, ["scope", "subject"]),
        ("hook_cursors", HOOK_CURSORS, ["state"]),
    ],
)
def test_tables(
    driver: Driver, table: str, columns: dict[str, str], primary_key: list[str]
) -> None:
    """A table has its documented columns, in their order and of their types, and its key."""
    found = driver.query("SELECT name, type, pk FROM pragma_table_info(?) ORDER BY cid", table)
    assert [(name, kind) for name, kind, _ in found] == list(columns.items())
    keyed = sorted((place, name) for name, _, place in found if place)
    assert [name for _, name in keyed] == primary_key


def test_nothing_else_is_in_the_database(driver: Driver) -> None:
    """The tables and views are the documented ones, and every table of ours is strict."""
    found = driver.query("SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view')")
    ours = {"runs", "run_events", "blocks", "hook_cursors"}
    tables = {("table", name) for name in ours | {"alembic_version"}}
    assert set(found) == tables | {("view", name) for name in VIEWS}
    strict = driver.query("SELECT name FROM pragma_table_list WHERE strict")
    assert {name for (name,) in strict} == ours


@pytest.mark.parametrize("view", VIEWS)
def test_view_columns(driver: Driver, view: str) -> None:
    """A view has its documented columns in their order, and none of them is the URL."""
    found = driver.query("SELECT name FROM pragma_table_info(?) ORDER BY cid", view)
    assert [name for (name,) in found] == VIEWS[view]


def _statements(connection: sa.Connection) -> dict[str, str]:
    """Return each table's and index's CREATE statement, white space apart."""
    found = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"
    )
    return {name: " ".join(sql.split()) for name, sql in found if name != "alembic_version"}


def test_the_migrations_build_what_the_program_is_written_against(database: Database) -> None:
    """Every column, CHECK, key and index (its WHERE too) is the same in both descriptions."""
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        described = _statements(connection)
    engine.dispose()
    with database.read() as connection:
        assert _statements(connection) == described


def test_the_newest_revision_is_known(database: Database) -> None:
    """The revision that a start compares with is the newest of the scripts, and the only head."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_REVISION]
    with database.read() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars()
        assert found.all() == [SCHEMA_REVISION]


def test_the_states_are_those_of_the_check(driver: Driver) -> None:
    """The states that the migrated CHECK allows are those of the program, in its order."""
    [(sql,)] = driver.query("SELECT sql FROM sqlite_master WHERE name = 'runs'")
    found = re.search(r"CONSTRAINT ck_runs_state_known CHECK \(state IN \(([^)]*)\)\)", sql)
    assert found is not None
    assert re.findall(r"'([^']*)'", found[1]) == [state.value for state in State]


def test_one_partial_index_for_each_queue(driver: Driver) -> None:
    """Each queue's index holds the rows of its one state, and no other."""
    found = dict(
        driver.query(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'runs'"
            " AND sql IS NOT NULL"
        )
    )
    assert {name: sql.partition(" ON ")[2] for name, sql in found.items()} == {
        "ix_runs_pending": f"runs (run_type, {PAUSE_CLASS}, next_attempt_at)"
        " WHERE state = 'pending'",
        "ix_runs_ready": "runs (next_attempt_at, url_expires_at) WHERE state = 'ready'",
        "ix_runs_downloading": "runs (lease_expires_at) WHERE state = 'downloading'",
        "ix_runs_failed": "runs (updated_at) WHERE state = 'failed'",
        "ix_runs_done": "runs (done_at, bytes) WHERE state = 'done'",
    }


def test_every_time_is_utc_text(driver: Driver) -> None:
    """Every time that any transition writes is `YYYY-MM-DD HH:MM:SS.ffffff`."""
    driver.one_of_each_state()
    blocks.block(driver.database, "api", "key", "Refused.", now=utc_now(), pause_seconds=float)
    moments = [
        value
        for table in ("runs", "run_events", "blocks")
        for column in (RUNS | RUN_EVENTS | BLOCKS)
        if column.endswith("_at") or column in {"at", "since", "until"}
        if driver.query("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", table, column)
        for (value,) in driver.query(
            f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"  # noqa: S608 - names above
        )
    ]
    assert len(moments) > 20
    assert [moment for moment in moments if not TIME.fullmatch(moment)] == []


def test_times_compare_with_sqlites_own(driver: Driver) -> None:
    """A moment of the store is before or after `datetime('now')` as it is in truth."""
    now = utc_now()
    [found] = driver.query(
        "SELECT ? < datetime('now'), ? > datetime('now'), julianday(?) - julianday('now')",
        to_text(now - timedelta(seconds=2)),
        to_text(now + timedelta(seconds=60)),
        to_text(now),
    )
    assert found[:2] == (1, 1)
    assert abs(found[2]) < 60 / 86400


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(
    datetime(1971, 1, 1),  # noqa: DTZ001 - the zone is drawn apart
    datetime(9998, 12, 31),  # noqa: DTZ001 - as above
    timezones=ZONES,
)


@given(MOMENTS, MOMENTS)
def test_text_order_is_time_order(one: datetime, other: datetime) -> None:
    """Moments of any time zone are written as one text, read back the same, and order as text."""
    assert TIME.fullmatch(to_text(one))
    assert from_text(to_text(one)) == one
    assert from_text(to_text(one)).tzinfo is UTC
    assert (to_text(one) < to_text(other)) == (one < other)


def test_no_other_table_and_no_view_shows_a_urls_query(driver: Driver) -> None:
    """Whatever a run with a signed URL goes through, the signature is in `runs.url` alone."""
    driver.one_of_each_state()
    driver.ready(11, 12, 13, 14, 15, 16, 17)
    claims = driver.claim_ready(1).claimed
    steps: list[TransferStep] = [
        TryAgain(claims[0].run.ready_at or utc_now(), "reset", "The connection was reset.", 1),
        NewUrl(utc_now(), "url_expired", "The URL expired.", attempts=1, refreshes=1),
        TransferFailed("http_500", "The storage answers 500.", attempts=1, refreshes=1),
    ]
    for claim, step in zip(claims, steps, strict=False):
        assert driver.end([claim], step, 1) == [True]
    transfers.note_object(driver.database, claims[3], Journal('"e"', 7), utc_now())
    control.cancel(driver.database, [claims[4].run.key], utc_now())
    control.retry(driver.database, [claims[4].run.key], utc_now())
    leases.rescue(driver.database, utc_now())
    assert driver.query("SELECT count(*) FROM runs WHERE url LIKE ?", f"%{SIGNATURE}%") == [(6,)]
    shown = {}
    for (name,) in driver.query("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"):
        rows = driver.query(f"SELECT * FROM {name}")  # noqa: S608 - from the database itself
        shown[name] = str(rows) if name != "runs" else ""
    shown["runs"] = str(
        driver.query(f"SELECT {', '.join(set(RUNS) - {'url'})} FROM runs")  # noqa: S608 - names above
    )
    assert [name for name, text in shown.items() if SIGNATURE in text] == []
    assert all(
        text != "[]" for name, text in shown.items() if name not in {"blocks", "hook_cursors"}
    )
    listed = list(listing.list_runs(driver.database, listing.Filter()))
    one = listing.show_run(driver.database, key(11))
    assert SIGNATURE not in str((listed, one, status(driver.database, utc_now())))
    assert all("url" not in row for row in listed)


def test_a_run_with_a_history_cannot_be_deleted(driver: Driver) -> None:
    """A person's DELETE of a run fails on its history, which would be without its run."""
    driver.submit(1)
    with pytest.raises(Exception, match="FOREIGN KEY constraint failed"):
        driver.execute("DELETE FROM runs")
    driver.execute("DELETE FROM run_events")
    driver.execute("DELETE FROM runs")


def test_the_history_is_read_in_its_order(driver: Driver) -> None:
    """A run's history is every transition, oldest first, with its time, reason and detail."""
    driver.done(1, seconds=5)
    with driver.database.read() as connection:
        found = events.history(connection, key(1))
    assert [(e.from_state, e.to_state, e.reason) for e in found] == [
        (None, "pending", "submitted"),
        ("pending", "ready", "url_received"),
        ("ready", "downloading", "claimed"),
        ("downloading", "done", "published"),
    ]
    assert found[-1].detail == "/audio/1.wav"
    assert {event.at.isoformat() for event in found} == {"2026-03-01T12:00:05+00:00"}


def test_the_programs_columns_are_all_known() -> None:
    """The list that people see leaves out the URL and nothing else."""
    assert {column.name for column in runs.c} - {c.name for c in listing.SHOWN} == {"url"}
