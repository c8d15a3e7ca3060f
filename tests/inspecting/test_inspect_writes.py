from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from inspecting.looking import Site

WRITING: Final = [
    "INSERT INTO blocks (scope, reason, message, since, until) VALUES ('api', 'x', 'x', 'x', 'x')",
    "UPDATE runs SET state = 'cancelled'",
    "DELETE FROM run_events",
    "WITH r AS (SELECT 1) DELETE FROM run_events",
    "WITH r AS (SELECT 1) UPDATE runs SET polls = 9",
    "WITH r AS (SELECT 1) INSERT INTO blocks SELECT 'api', 'x', 'x', 'x', 'x', 1",
    "REPLACE INTO blocks SELECT 'api', 'x', 'x', 'x', 'x', 1",
    "CREATE TABLE more (a)",
    "CREATE TEMP VIEW urls AS SELECT url FROM runs",
    "DROP TABLE runs",
    "ALTER TABLE runs RENAME COLUMN url TO shown",
    "ATTACH DATABASE '{folder}/attached.sqlite3' AS more",
    "VACUUM INTO '{folder}/copied.sqlite3'",
    "BEGIN IMMEDIATE",
    "SAVEPOINT one",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA query_only = 0",
    "PRAGMA writable_schema = 1",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "EXPLAIN DELETE FROM runs",
    "SELECT 1; DELETE FROM runs",
    "SELECT load_extension('{folder}/extension')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('{folder}/written', 'x')",
    "SELECT * FROM fsdir('/etc')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT * FROM pragma_journal_mode",
    "SELECT * FROM sqlite_master, pragma_wal_checkpoint",
]


@pytest.mark.parametrize("sql", WRITING)
def test_no_statement_writes_or_reaches_a_file(site: Site, tmp_path: Path, sql: str) -> None:
    """Statements that would change something, attach a database or reach a file are refused."""
    before = site.program.query("SELECT * FROM runs ORDER BY run_type, run_id")
    events = site.program.query("SELECT count(*) FROM run_events")
    statement = sql.format(folder=tmp_path)
    for answer in (
        site.select(statement),
        site.ask(f"/downloader?{urlencode({'sql': statement})}"),
    ):
        assert answer.status == 400, answer.text
        assert "Traceback" not in answer.text
    assert site.program.query("SELECT * FROM runs ORDER BY run_type, run_id") == before
    assert site.program.query("SELECT count(*) FROM run_events") == events
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize(
    "path", ["/", "/downloader", "/downloader/runs", "/downloader/runs/-/insert"]
)
def test_only_reading_is_answered(site: Site, method: str, path: str) -> None:
    """A request that is not to read is refused, wherever it goes."""
    answer = site.ask(path, method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.text == "Nothing can be changed here.\n"


def test_what_people_ask_is_answered(site: Site) -> None:
    """Questions by hand, also those that join, count, recurse and explain, are answered."""
    assert (
        site.rows("SELECT count(*) FROM runs JOIN run_events USING (run_type, run_id)")[0][0] > 50
    )
    assert site.rows("SELECT state, count(*) FROM runs GROUP BY state") != []
    assert site.rows(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) "
        "SELECT sum(i) FROM n"
    ) == [[45]]
    assert site.rows("EXPLAIN QUERY PLAN SELECT * FROM runs WHERE state = 'failed'") != []
    assert site.rows("SELECT name FROM pragma_table_info('runs') WHERE cid = 0") == [["run_type"]]
    assert site.rows("SELECT value FROM json_each('[7]')") == [[7]]
