"""What docs/sql.md says, as Datasette's metadata: https://docs.datasette.io/en/stable/metadata.html."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from downloader.store.contract import plain
from downloader.store.guarded import SECRET

if TYPE_CHECKING:
    from pathlib import Path

    from downloader.store.contract import Column, Page, Query

DATABASE: Final = "downloader"
"""What the database is called in addresses, whatever its file is."""

_NEVER_SHOWN: Final = "Not shown here."


def query_name(name: str) -> str:
    """Return what a query of the page is called in addresses: views have some of their names."""
    return f"ask-{name}"


def metadata(page: Page, path: Path) -> dict[str, Any]:
    """Return title, descriptions and queries."""
    relations = page.relations("Tables") | page.relations("Views")
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
                        "columns": {one.name: _column(one) for one in columns},
                    }
                    for name, columns in relations.items()
                }
                | {"alembic_version": {"description": "The schema's revision.", "hidden": True}},
            }
        },
    }


def _query(query: Query) -> dict[str, str]:
    return {"sql": query.sql, "title": query.question, "description": plain(query.remark)}


def _column(column: Column) -> str:
    told = plain(column.holds)
    if column.name == SECRET:
        return f"{told}. {_NEVER_SHOWN}"
    return told if column.never_null else f"{told}. NULL: {plain(column.null)}"
