"""docs/sql.md held to the database: what it tells of is there, and its queries give the answers."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest
from pages import command
from sql import code_words, page
from sql.answers import ANSWERS
from sql.cases import Cases, look_at
from store.driving import Driver, at

from downloader.camb.run_types import RUN_TYPES
from downloader.rules.audio import AudioFormat
from downloader.rules.states import TRANSITIONS, State
from downloader.rules.steps import NewUrl
from downloader.store import verification
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLES: Final = page.relations("Tables")
VIEWS: Final = page.relations("Views")
QUERIES: Final = {query.name: query for query in page.queries()}
READS_ALL: Final = re.compile(r"\bReads (every run|the whole history)\b")


@pytest.fixture(scope="module")
def cases_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the database in which every question has something to find."""
    path = tmp_path_factory.mktemp("sql") / "runs.sqlite3"
    with closing(open_database(path)) as database:
        Cases(database).make()
    return path


@pytest.fixture
def cases(cases_file: Path) -> Iterator[sqlite3.Connection]:
    """Open that database as the page says."""
    with closing(_open(cases_file)) as connection:
        look_at(connection)
        yield connection


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database without runs as the page says."""
    path = tmp_path / "empty.sqlite3"
    open_database(path).close()
    with closing(_open(path)) as connection:
        yield connection


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)


def test_every_question_has_an_answer() -> None:
    """Each query of the page has a name of its own, a question, and an answer to be compared."""
    assert len(page.queries()) == len(QUERIES) == page.TEXT.count("```sql")
    assert set(ANSWERS) == set(QUERIES)
    assert [query.question for query in QUERIES.values() if not query.question.endswith("?")] == []
    assert [name for name, rows in ANSWERS.items() if not rows] == []


@pytest.mark.parametrize("name", QUERIES)
def test_answers(cases: sqlite3.Connection, name: str) -> None:
    """A query of the page gives the right rows, in the right order."""
    assert cases.execute(QUERIES[name].sql).fetchall() == ANSWERS[name]


@pytest.mark.parametrize("name", QUERIES)
def test_no_answers(empty: sqlite3.Connection, name: str) -> None:
    """A query has nothing to say of a database without runs, by the real clock."""
    expected = {"contract": [(1, 5)], "eta": [(0, None, None, None)]}
    assert empty.execute(QUERIES[name].sql).fetchall() == expected.get(name, [])


def test_two_meanings_of_missing(tmp_path: Path) -> None:
    """What has been going on tells a file that is gone from the disk from one the storage lacks."""
    path = tmp_path / "runs.sqlite3"
    with closing(open_database(path)) as database:
        driver = Driver(database)
        driver.done(1)
        lost = [(saved, "missing") for saved in verification.saved_runs(database)]
        verification.put_back(database, lost, at(10), lambda _: "it is gone")
        driver.ready(2)
        [claim] = driver.claim_ready(20).claimed
        lacking = NewUrl(at(30), "missing", "The storage has no such file (HTTP 404).", 1, 1)
        assert driver.end([claim], lacking, 30) == [True]
    with closing(_open(path)) as connection:
        found = connection.execute(QUERIES["lately"].sql).fetchall()
    assert [row[:4] for row in found if row[0] == "missing"] == [
        ("missing", "done", "pending", 1),
        ("missing", "downloading", "pending", 1),
    ]


def test_the_tables_and_views_are_those_of_the_page(cases: sqlite3.Connection) -> None:
    """Each table, view and column of the database is on the page, and no other, in order."""
    relations = cases.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view')"
    )
    found: dict[str, dict[str, list[str]]] = {"table": {}, "view": {}}
    for kind, name in relations.fetchall():
        columns = cases.execute("SELECT name FROM pragma_table_info(?) ORDER BY cid", (name,))
        found[kind][name] = [column for (column,) in columns]
    assert found["table"].pop("alembic_version") == ["version_num"]
    assert found["table"] == {name: [one.name for one in all_] for name, all_ in TABLES.items()}
    assert found["view"] == {name: [one.name for one in all_] for name, all_ in VIEWS.items()}
    assert [name for name, columns in found["view"].items() if "url" in columns] == []


@pytest.mark.parametrize("name", [*TABLES, *VIEWS])
def test_nulls(cases: sqlite3.Connection, empty: sqlite3.Connection, name: str) -> None:
    """What the page calls never NULL is never NULL, and every other column is now and then."""
    columns = (TABLES | VIEWS)[name]
    nulls = {
        column.name: sum(
            one.execute(f"SELECT count(*) FROM {name} WHERE {column.name} IS NULL").fetchone()[0]  # noqa: S608 - the page's names
            for one in (cases, empty)
        )
        for column in columns
    }
    assert {name for name, count in nulls.items() if count == 0} == {
        column.name for column in columns if column.never_null
    }


def test_columns_that_are_never_null(cases: sqlite3.Connection) -> None:
    """What the page calls never NULL in a table is declared so."""
    for table, columns in TABLES.items():
        declared = cases.execute(
            "SELECT name FROM pragma_table_info(?) WHERE \"notnull\" OR type = 'INTEGER' AND pk",
            (table,),
        )
        never = {column.name for column in columns if column.never_null}
        assert {name for (name,) in declared} == never


def _reasons() -> list[tuple[str, set[str | None], str]]:
    """Return the page's transitions: a reason, the states before, the state after."""
    found: list[tuple[str, set[str | None], str]] = []
    for reason, states, *_ in page.rows(page.section("### `run_events`"), "reason"):
        if "→" not in states:
            found += [(page.words(reason)[0], {state}, state) for state in page.words(states)]
            continue
        before, after = states.split("→")
        words = ["error code"] if "error code" in reason else page.words(reason)
        befores: set[str | None] = {*page.words(before)} or {None}
        found += [(word, befores, page.words(after)[0]) for word in words]
    return found


def _codes() -> set[str]:
    """Return the page's error codes."""
    rows = page.rows(page.section("## Error codes"), "code")
    return {word for row in rows for word in page.words(row[0])}


def test_reasons() -> None:
    """The page's reasons are those that the store writes, and lead where the states allow it."""
    reasons = {reason for reason, _, _ in _reasons()} - {"error code"}
    assert reasons - {"damaged", "missing"} == code_words.event_reasons()
    transitions = {
        (before, after) for _, befores, after in _reasons() for before in befores if before != after
    }
    assert transitions == TRANSITIONS | {(None, State.PENDING)}


def test_every_event_is_as_the_page_says(cases: sqlite3.Connection) -> None:
    """Each event of the cases has a reason of the page, between the states it gives."""
    events = set(cases.execute("SELECT reason, from_state, to_state FROM run_events"))
    told = {
        (word, before, after)
        for reason, befores, after in _reasons()
        for word in (_codes() if reason == "error code" else {reason})
        for before in befores
    }
    assert events - told == set()
    seen = {reason for reason, _, _ in events}
    assert {reason for reason, _, _ in _reasons()} - seen == {"error code", "missing"}


def test_error_codes() -> None:
    """The page's error codes are those that the program gives, all of them."""
    assert _codes() == code_words.error_codes()


def _words_of(table: str, column: str) -> list[str]:
    [cell] = [
        row[1]
        for row in page.rows(page.section(f"### `{table}`"), "column")
        if row[0] == f"`{column}`"
    ]
    return page.words(cell)


def test_closed_lists() -> None:
    """States, run types, audio formats and reasons of blocks are those of the program."""
    assert _words_of("runs", "state") == [state.value for state in State]
    assert set(_words_of("runs", "run_type")) - {"run_id"} == set(RUN_TYPES)
    assert set(_words_of("runs", "audio_format")) == set(AudioFormat)
    assert set(_words_of("blocks", "reason")) == code_words.block_reasons()


def test_the_version(cases: sqlite3.Connection) -> None:
    """The version that the page names is the one that the database tells."""
    [version] = re.findall(r"in the view `contract`: (\d+)\.(\d+)\.", page.TEXT)
    assert cases.execute("SELECT * FROM contract").fetchall() == [tuple(map(int, version))]


def _with_a_past(path: Path, runs: int) -> Path:
    """Make a database with so many runs saved long ago, beside a few that are under way."""
    with closing(open_database(path)) as database:
        Cases(database).make()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(
            """
            WITH RECURSIVE old(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM old WHERE n < ?)
            INSERT INTO runs (run_type, run_id, state, location, bytes, sha256, audio_format,
                              submitted_at, done_at, updated_at)
            SELECT 'text-to-sound', 100000 + n, 'done', '/audio/old.wav', n, printf('%064d', n),
                   'wav', '2025-01-01 00:00:00.000000', '2025-01-02 00:00:00.000000',
                   '2025-01-02 00:00:00.000000'
            FROM old
            """,
            (runs,),
        )
        raw.execute(
            """
            INSERT INTO run_events (run_type, run_id, at, from_state, to_state, reason)
            SELECT run_type, run_id, done_at, step.column1, step.column2, step.column3
            FROM runs CROSS JOIN (VALUES (NULL, 'pending', 'submitted'),
                                         ('ready', 'downloading', 'claimed'),
                                         ('downloading', 'done', 'published')) AS step
            WHERE run_id > 100000
            ORDER BY run_id
            """
        )
        raw.commit()
    return path


@pytest.fixture(scope="module")
def pasts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a database with a past, and one with twice as much of it."""
    folder = tmp_path_factory.mktemp("pasts")
    return _with_a_past(folder / "one", 2000), _with_a_past(folder / "two", 4000)


def _steps(path: Path, sql: str) -> int:
    """Return how many hundreds of steps SQLite takes for a query."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with closing(_open(path)) as connection:
        look_at(connection)
        connection.set_progress_handler(count, 100)
        connection.execute(sql).fetchall()
    return steps


COSTS: Final[list[tuple[str, str, str]]] = [
    *((query.name, query.sql, query.remark) for query in QUERIES.values()),
    *((view, f"SELECT * FROM {view}", page.section(f"### `{view}`")) for view in VIEWS),  # noqa: S608 - the page's names
]


@pytest.mark.parametrize(("sql", "told"), [row[1:] for row in COSTS], ids=[row[0] for row in COSTS])
def test_what_reads_everything_is_called_so(pasts: tuple[Path, Path], sql: str, told: str) -> None:
    """What is saved and over costs a query nothing, unless the page says that it reads it all."""
    one, two = (_steps(path, sql) for path in pasts)
    assert (two - one > 20) == (READS_ALL.search(told) is not None), (one, two)


def test_the_views_by_the_key_of_a_run(pasts: tuple[Path, Path]) -> None:
    """The transfers of one run are found without reading everybody's."""
    sql = "SELECT * FROM transfers_by_run WHERE run_type = 'text-to-sound' AND run_id = 123"
    one, two = (_steps(path, sql) for path in pasts)
    assert two - one <= 1


def test_the_ways_to_open_it(cases_file: Path) -> None:
    """The page's two ways to open the database work where it is, and tell the same."""
    uri, sql = re.findall(r'"(.+?)"', command("docs/sql.md", "shell"))
    folder = cases_file.parent
    absolute = uri.replace("file:", f"file:{folder}/")
    with closing(sqlite3.connect(absolute, uri=True)) as connection:
        expected = connection.execute(sql).fetchall()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM blocks")
    done = subprocess.run(
        [sys.executable, "-c", command("docs/sql.md", "python")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(row) for row in expected]


def test_reading_while_the_program_writes(tmp_path: Path) -> None:
    """A query beside a transaction that writes does not wait, and sees what was committed."""
    path = tmp_path / "runs.sqlite3"
    with closing(open_database(path)) as database:
        cases = Cases(database)
        cases.driver.submit(1, 2)
        with database.write() as writing, closing(_open(path)) as reading:
            writing.exec_driver_sql("UPDATE runs SET polls = 7")
            reading.execute("PRAGMA busy_timeout = 0")
            found: list[tuple[Any, ...]] = reading.execute(
                "SELECT polls FROM unfinished"
            ).fetchall()
    assert found == [(0,), (0,)]
