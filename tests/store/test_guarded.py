from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sql.cases import Cases

from downloader.store.guarded import open_guarded
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from store.driving import Driver

SECRET: Final = "5ec2e7"


@pytest.fixture(scope="module")
def cases_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make runs in every state."""
    path = tmp_path_factory.mktemp("guarded") / "runs.sqlite3"
    with closing(open_database(path)) as database:
        Cases(database).make()
    return path


@pytest.fixture(scope="module")
def guarded(cases_file: Path) -> Iterator[sqlite3.Connection]:
    """Open it guarded."""
    with closing(open_guarded(cases_file)) as connection:
        yield connection


def test_the_secret_is_there(cases_file: Path) -> None:
    """An ordinary connection reads what a guarded one must not: else the tests show nothing."""
    with closing(sqlite3.connect(cases_file)) as raw:
        joined = "SELECT url FROM (SELECT NULL AS url) AS a FULL JOIN runs USING (url)"
        for sql in ("SELECT url FROM runs WHERE url IS NOT NULL", joined):
            assert SECRET in str(raw.execute(sql).fetchall())


SOURCES: Final = st.sampled_from(
    [
        *("runs", "main.runs", "(SELECT * FROM runs)", "(SELECT NULL AS url)", "unfinished"),
        *("(SELECT url, run_id FROM runs)", "(SELECT 'a' AS url, 1 AS run_id)", "run_events"),
        *("(VALUES (1))", "(SELECT r.url FROM runs AS r)"),
    ]
)
JOINS: Final = st.sampled_from(
    [
        *("NATURAL FULL JOIN", "NATURAL LEFT JOIN", "NATURAL RIGHT JOIN", "NATURAL JOIN", ","),
        *("FULL JOIN", "LEFT JOIN", "RIGHT JOIN", "JOIN", "CROSS JOIN"),
    ]
)
CONDITIONS: Final = st.sampled_from(
    ["", "USING (url)", "USING (run_id)", "USING (url, run_id)", "ON a.url IS b.url", "ON 1"]
)
SHOWN: Final = st.sampled_from(
    [
        *("*", "url", "a.*", "b.*", "hex(url)", "max(url)", "group_concat(url)", "json_array(url)"),
        *("a.url || b.url", "coalesce(a.url, b.url)", "(SELECT url)", "quote(url)", "count(*)"),
        *("first_value(url) OVER (ORDER BY url DESC)", "b.url", "typeof(url)", "length(url)"),
    ]
)
TAILS: Final = st.sampled_from(
    [
        *("", "ORDER BY url", "GROUP BY url", "WHERE url IS NOT NULL", "LIMIT 3"),
        *("UNION SELECT url FROM runs", "GROUP BY 1 HAVING max(url) > ''", "WHERE a.url = b.url"),
    ]
)


STATEMENTS: Final = st.builds(
    "SELECT {} FROM {} AS a {} {} AS b {} {}".format,
    *(SHOWN, SOURCES, JOINS, SOURCES, CONDITIONS, TAILS),
)


@given(sql=STATEMENTS)
def test_no_join_shows_a_url(guarded: sqlite3.Connection, sql: str) -> None:
    """However tables are joined and columns named, a URL is NULL or the statement is refused."""
    try:
        found = str(guarded.execute(sql).fetchmany(2000))
    except sqlite3.Error:
        return
    assert SECRET not in found
    assert SECRET.encode().hex().upper() not in found
    assert "https" not in found


def test_views_and_copies_of_other_hands(driver: Driver) -> None:
    """A view that somebody has made shows no URL either, nor does a table with a copy of them."""
    driver.ready(1, 2)
    driver.execute("CREATE VIEW plain AS SELECT run_id, url AS address FROM runs")
    driver.execute(
        "CREATE VIEW joined AS SELECT url AS address FROM (SELECT NULL AS url) AS a"
        " FULL JOIN runs USING (url)"
    )
    driver.execute("CREATE TABLE copied AS SELECT run_id, url FROM runs")
    with closing(open_guarded(driver.database.path)) as guarded:
        assert guarded.execute("SELECT * FROM plain").fetchall() == [(1, None), (2, None)]
        assert guarded.execute("SELECT * FROM copied").fetchall() == [(1, None), (2, None)]
        with pytest.raises(sqlite3.DatabaseError, match="the column url is a secret"):
            guarded.execute("SELECT * FROM joined")


@pytest.mark.parametrize(
    "sql", ["DELETE FROM runs", "CREATE TEMP TABLE t (a)", "BEGIN", "ATTACH ':memory:' AS a"]
)
def test_no_way_of_a_connection_writes(guarded: sqlite3.Connection, sql: str) -> None:
    """Neither a connection's methods nor a cursor's of whatever kind let a statement write."""
    for attempt in (
        guarded.execute,
        guarded.executescript,
        guarded.cursor().execute,
        guarded.cursor(sqlite3.Cursor).execute,
        guarded.cursor().executescript,
    ):
        with pytest.raises(sqlite3.DatabaseError):
            attempt(sql)
    for many in (guarded.executemany, guarded.cursor().executemany):
        with pytest.raises(sqlite3.Error):
            many(sql, [()])


def test_values_have_a_limit(guarded: sqlite3.Connection) -> None:
    """A statement that makes a huge value is refused, before it takes the memory."""
    for sql in ("SELECT zeroblob(99999999)", "SELECT hex(zeroblob(9999999))"):
        with pytest.raises(sqlite3.Error, match=re.compile("too big", re.IGNORECASE)):
            guarded.execute(sql).fetchall()
