"""Databases of earlier schemas, brought up to date and back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from store.driving import Driver

from downloader.store import migrate
from downloader.store.database import Database, database_url
from downloader.store.migrate import current_revision, migrations_folder, open_database
from downloader.store.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TABLES = {
    "runs": "run_type, run_id, state, remote_status, url, url_expires_at, polls, attempts, "
    "refreshes, next_attempt_at, lease_owner, lease_expires_at, location, bytes, sha256, "
    "audio_format, etag, error_code, error_message, submitted_at, ready_at, done_at, updated_at",
    "run_events": "*",
    "blocks": "scope, reason, message, since, until, probes",
}


def _run(database: Database, what: Callable[..., None], revision: str) -> None:
    """Run one of Alembic's own commands on a database."""
    config = migrate._config(migrations_folder())
    with database.migrating() as connection:
        config.attributes["connection"] = connection
        what(config, revision)


def _contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the first schema's columns hold."""
    with closing(sqlite3.connect(path)) as raw:
        return {
            table: raw.execute(f"SELECT {columns} FROM {table}").fetchall()  # noqa: S608 - names above
            for table, columns in TABLES.items()
        }


def _schema(path: Path) -> dict[str, str]:
    """Return every statement that makes the database, white space apart."""
    with closing(sqlite3.connect(path)) as raw:
        found = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: " ".join(sql.split()) for name, sql in found}


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Database]:
    """Make a database as the first schema had it, with a run in each state."""
    with closing(Database(database_url(tmp_path / "runs.sqlite3"))) as database:
        _run(database, command.upgrade, "head")
        Driver(database).one_of_each_state()
        _run(database, command.downgrade, "0001")
        yield database


def test_a_database_of_the_first_schema(first: Database, tmp_path: Path) -> None:
    """It is brought up to date at a start: its rows are kept, and a copy of it is beside it."""
    before, schema = _contents(first.path), _schema(first.path)
    assert current_revision(first) == "0001"
    assert "contract" not in schema
    with closing(open_database(first.path)) as opened:
        assert current_revision(opened) == SCHEMA_REVISION
        assert _contents(first.path) == before
        driver = Driver(opened)
        assert driver.query("SELECT major, minor FROM contract") == [(1, 5)]
        assert driver.query("SELECT run_id FROM unfinished ORDER BY run_id") == [(1,), (2,), (3,)]
        driver.submit(9)
        assert driver.states()[9] == "pending"
    [kept] = tmp_path.glob("*.backup-0001-*")
    assert (_contents(kept), _schema(kept)) == (before, schema)


def test_there_and_back(first: Database) -> None:
    """Downgraded it is as it was, rows and schema, and can be brought up to date once more."""
    before, schema = _contents(first.path), _schema(first.path)
    _run(first, command.upgrade, "head")
    newest = _schema(first.path)
    _run(first, command.downgrade, "0001")
    assert current_revision(first) == "0001"
    assert (_contents(first.path), _schema(first.path)) == (before, schema)
    _run(first, command.upgrade, "head")
    assert (_contents(first.path), _schema(first.path)) == (before, newest)


def test_what_is_stuck_is_the_same_in_both(first: Database) -> None:
    """`stuck` has the same columns and the same rows before 0002 and after; 0005 tells more."""
    _run(first, command.upgrade, "head")
    Driver(first).ready(11, 12, 13)
    _run(first, command.downgrade, "0001")

    def stuck() -> list[dict[str, Any]]:
        with first.read() as connection:
            found = connection.exec_driver_sql("SELECT * FROM stuck ORDER BY run_id")
            return [dict(row) for row in found.mappings()]

    before = stuck()
    assert [row["run_id"] for row in before] == [1, 2, 3, 11, 12, 13]
    _run(first, command.upgrade, "0004")
    assert stuck() == before
    _run(first, command.upgrade, "head")
    assert [row["run_id"] for row in stuck()] == [1, 2, 3, 11, 12, 13]
    _run(first, command.downgrade, "0004")
    assert stuck() == before
