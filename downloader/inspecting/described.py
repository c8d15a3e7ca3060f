"""What docs/sql.md says, as Datasette's metadata: https://docs.datasette.io/en/stable/metadata.html."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from downloader.store.contract import plain
from downloader.store.guarded import SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from downloader.store.contract import Column, Page, Query

DATABASE: Final = "downloader"
"""What the database is called in addresses, whatever its file is."""

_NEVER_SHOWN: Final = "Not shown here."
_EXAMPLE: Final = re.compile(r"('[^']*'|[0-9]+) /\* :(\w+) \*/")
_AS_IN_RUNS: Final = "as in `runs`"
_AS_THERE: Final = "as there"


def query_name(name: str) -> str:
    """Return what a query of the page is called in addresses: views have some of their names."""
    return f"ask-{name}"


def examples(query: Query) -> dict[str, str]:
    """Return what a query asks for, by name, with the values that the page has as examples."""
    return {name: value.strip("'") for value, name in _EXAMPLE.findall(query.sql)}


def metadata(page: Page, path: Path) -> dict[str, Any]:
    """Return title, descriptions and queries."""
    relations = page.relations("Tables") | page.relations("Views")
    runs = {column.name: column for column in relations["runs"]}
    return {
        "title": "downloader",
        "description": f"The runs that {path} tracks. Nothing can be changed here.",
        "databases": {
            DATABASE: {
                "description": "Questions, tables and views of the database. Times are UTC, sizes "
                "bytes. Presigned URLs are not shown.",
                "queries": {query_name(one.name): _query(one) for one in page.queries()},
                "tables": {
                    name: {
                        "description": plain(page.about(name)),
                        "columns": {one.name: _column(one, runs) for one in columns},
                    }
                    for name, columns in relations.items()
                }
                | {"alembic_version": {"description": "The schema's revision.", "hidden": True}},
            }
        },
    }


def _query(query: Query) -> dict[str, Any]:
    return {
        "sql": _EXAMPLE.sub(r":\2", query.sql),
        "params": list(examples(query)),
        "title": query.question,
        "description": plain(query.remark),
    }


def _column(column: Column, runs: Mapping[str, Column]) -> str:
    same = runs[column.name] if column.holds == _AS_IN_RUNS else column
    told = plain(same.holds)
    if column.name == SECRET:
        return f"{told}. {_NEVER_SHOWN}"
    null = same.null if column.null == _AS_THERE else column.null
    return told if column.never_null else f"{told}. NULL: {plain(null)}"
