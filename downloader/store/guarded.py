"""A connection for other people's SQL: it reads, it writes nothing, and it shows no URL.

Two guards, since one is not enough. SQLite's authorizer (https://sqlite.org/c3ref/set_authorizer.html)
is asked while a statement is compiled: it refuses whatever is not on its lists, and has the
column `url` read as NULL. But it is not asked for the columns that JOIN … USING and NATURAL JOIN
compare, and a FULL JOIN hands them out. So the compiled statement itself is looked at too
(EXPLAIN), and refused where it would read that column.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SECRET: Final = "url"  # noqa: S105 - a column's name
"""The column, of whatever table, that is never read."""

_BUSY_SECONDS: Final = 10.0
_MAX_VALUE_BYTES: Final = 16 * 1024 * 1024

_PRAGMAS: Final = frozenset(
    {
        "database_list",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
"""Those that tell of the schema, with or without a name in brackets."""

_TELLING: Final = frozenset({"compile_options", "journal_mode", "schema_version", "user_version"})
"""Those that tell something as long as nothing is assigned."""

_SCHEMA: Final = frozenset({"sqlite_master", "sqlite_schema", "sqlite_sequence", "sqlite_stat1"})
_FUNCTION_TABLES: Final = frozenset(
    {"json_each", "json_tree", *(f"pragma_{name}" for name in _PRAGMAS)}
)

_FILE_FUNCTIONS: Final = frozenset(
    {"edit", "fsdir", "fts3_tokenizer", "load_extension", "lsmode", "readfile", "writefile"}
)
"""Of SQLite's shell and of extensions: they reach files or code."""

_EXPLAINED: Final = re.compile(r"\s*explain\b", re.IGNORECASE)


class _Cursor(sqlite3.Cursor):
    """A cursor that looks at a statement before it runs."""

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:  # noqa: ANN401 - sqlite3's own
        """Execute a statement, unless it would read a secret."""
        connection = self.connection
        assert isinstance(connection, Guarded)  # noqa: S101 - nobody else makes one
        if _EXPLAINED.match(sql) is None:
            connection.check(sql, parameters)
        super().execute(sql, parameters)
        return self


class Guarded(sqlite3.Connection):
    """A connection that only reads, and no secret."""

    def cursor(self, factory: Any = None) -> Any:  # noqa: ANN401 - sqlite3's signature
        """Return a cursor that looks at each statement first, whatever was asked for."""
        del factory
        return super().cursor(_Cursor)

    def execute(self, sql: str, parameters: Any = (), /) -> Any:  # noqa: ANN401 - as above
        """Execute a statement, unless it would read a secret."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, *_: object) -> Any:  # noqa: ANN401 - as above
        """Refuse: it is for writing."""
        raise sqlite3.DatabaseError("not authorized")

    def executescript(self, _sql: str) -> Any:  # noqa: ANN401 - as above
        """Refuse: it is for writing."""
        raise sqlite3.DatabaseError("not authorized")

    def check(self, sql: str, parameters: Any) -> None:  # noqa: ANN401 - as above
        """Refuse a statement whose compiled form reads the column `url` of a table.

        Raises:
            sqlite3.DatabaseError: it does.

        """
        plain = super().cursor()
        secret = _secret_columns(plain)
        cursors: dict[int, int] = {}  # SQLite's number of an open table: the column not to read
        plain.row_factory = None
        for _, opcode, one, two, *_ in plain.execute(f"EXPLAIN {sql}", parameters):
            if opcode in ("OpenRead", "OpenWrite") and two in secret:
                cursors[one] = secret[two]
            elif opcode == "OpenDup" and two in cursors:
                cursors[one] = cursors[two]
            elif (opcode == "Column" and cursors.get(one) == two) or (
                opcode == "RowData" and one in cursors
            ):
                raise sqlite3.DatabaseError(f"not authorized: the column {SECRET} is a secret")


def _secret_columns(cursor: sqlite3.Cursor) -> dict[int, int]:
    """Return the secret column's number by the root page of its table."""
    cursor.row_factory = None
    found = cursor.execute(
        "SELECT made.rootpage, info.cid"
        " FROM sqlite_schema AS made JOIN pragma_table_info(made.name) AS info"
        " WHERE made.type = 'table' AND info.name = ? COLLATE NOCASE",
        (SECRET,),
    )
    return dict(found.fetchall())


def open_guarded(path: Path) -> Guarded:
    """Open a database for other people's SQL; threads may hand the connection on.

    Raises:
        sqlite3.Error: it cannot be opened.

    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
        factory=Guarded,
    )
    relations = sqlite3.Connection.cursor(connection).execute(
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')"
        " AND sql NOT LIKE 'CREATE VIRTUAL%' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    connection.set_authorizer(_authorizer(name for (name,) in relations.fetchall()))
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    return connection


def _authorizer(relations: Iterable[str]) -> Any:  # noqa: ANN401 - sqlite3's callback
    """Return what SQLite asks about each thing that a statement does."""
    readable = {name.lower() for name in relations} | _SCHEMA | _FUNCTION_TABLES

    def decide(
        action: int, first: str | None, second: str | None, _schema: str | None, _view: str | None
    ) -> int:
        one, two = (first or "").lower(), (second or "").lower()
        if action == sqlite3.SQLITE_READ:
            if two == SECRET:
                return sqlite3.SQLITE_IGNORE
            # Without a column it is only counted, and what is counted may be a name of the query's.
            allowed = one in readable or two == ""
        elif action == sqlite3.SQLITE_PRAGMA:
            allowed = one in _PRAGMAS or (one in _TELLING and second is None)
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = two not in _FILE_FUNCTIONS
        elif action == sqlite3.SQLITE_UPDATE:
            # How SQLite announces a function that is used as a table; its own table takes no other.
            allowed = one == "sqlite_master"
        else:
            allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return decide
