"""Reading docs/sql.md: its queries, the columns that it tells of, its lists of words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")

_QUERY: Final = re.compile(r"<!-- query: ([a-z0-9-]+) -->\n```sql\n(.+?)\n```\n", re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ROW: Final = re.compile(r"^\|(?! ?-)(.+)\|$", re.MULTILINE)


class Query(NamedTuple):
    """A query of the page: its name, the question it answers, and what is said after it."""

    name: str
    question: str
    sql: str
    remark: str


class Column(NamedTuple):
    """What the page says of a column of a table or view."""

    name: str
    never_null: bool


def queries() -> list[Query]:
    """Return the queries in the page's order."""
    found = []
    for match in _QUERY.finditer(TEXT):
        question = _HEADING.findall(TEXT, 0, match.start())[-1]
        after = TEXT[match.end() :]
        following = _HEADING.search(after)
        remark = after[: following.start()] if following else after
        found.append(Query(match[1], question, match[2], remark.strip()))
    return found


def section(heading: str) -> str:
    """Return what stands under a heading (with its marks), down to the next of its kind."""
    level = heading.partition(" ")[0]
    start = TEXT.index(f"\n{heading}\n") + len(heading) + 2
    end = re.search(rf"^#{{1,{len(level)}}} ", TEXT[start:], re.MULTILINE)
    return TEXT[start : start + end.start()] if end else TEXT[start:]


def relations(kind: str) -> dict[str, list[Column]]:
    """Return the columns of each table ('Tables') or view ('Views') that the page tells of."""
    names = re.findall(r"^### `(\w+)`$", section(f"## {kind}"), re.MULTILINE)
    return {name: _columns(section(f"### `{name}`")) for name in names}


def rows(text: str, first: str) -> list[list[str]]:
    """Return the rows of the tables whose first column is headed so, cell by cell."""
    found = []
    for table in re.split(r"\n\n", text):
        head, *lines = [re.split(r"(?<!\\)\|", row) for row in _ROW.findall(table)] or [[""]]
        if head[0].strip() == first:
            found += [[cell.strip() for cell in line] for line in lines]
    return found


def words(cell: str) -> list[str]:
    """Return the words of a cell that are set as code."""
    return re.findall(r"`([^`]+)`", cell)


def _columns(text: str) -> list[Column]:
    return [Column(words(row[0])[0], row[2] == "never") for row in rows(text, "column")]
