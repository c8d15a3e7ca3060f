"""docs/sql.md as the program reads it: the queries, and what is said of tables, views and columns.

The page is the one source. A wheel brings it along; a checkout has it in `docs`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from downloader.errors import StoreError

_PACKAGE: Final = Path(__file__).resolve().parent.parent

_QUERY: Final = re.compile(r"<!-- query: ([a-z0-9-]+) -->\n```sql\n(.+?)\n```\n", re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ROW: Final = re.compile(r"^\|(?! ?-)(.+)\|$", re.MULTILINE)
_RELATION: Final = re.compile(r"^### `(\w+)`$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_MARKS: Final = re.compile(r"`|\*\*|\\(?=\|)")


class Query(NamedTuple):
    """A query of the page: its name, the question it answers, and what is said after it."""

    name: str
    question: str
    sql: str
    remark: str


class Column(NamedTuple):
    """What the page says of a column of a table or view, in Markdown."""

    name: str
    holds: str
    null: str

    @property
    def never_null(self) -> bool:
        """Whether it is never NULL."""
        return self.null == "never"


class Page:
    """The page, read."""

    def __init__(self, text: str) -> None:
        self.text: Final = text

    def queries(self) -> list[Query]:
        """Return the queries in the page's order."""
        found = []
        for match in _QUERY.finditer(self.text):
            question = _HEADING.findall(self.text, 0, match.start())[-1]
            after = self.text[match.end() :]
            following = _HEADING.search(after)
            remark = after[: following.start()] if following else after
            found.append(Query(match[1], question, match[2], remark.strip()))
        return found

    def section(self, heading: str) -> str:
        """Return what stands under a heading (with its marks), down to the next of its kind."""
        level = heading.partition(" ")[0]
        start = self.text.index(f"\n{heading}\n") + len(heading) + 2
        end = re.search(rf"^#{{1,{len(level)}}} ", self.text[start:], re.MULTILINE)
        return self.text[start : start + end.start()] if end else self.text[start:]

    def relations(self, kind: str) -> dict[str, list[Column]]:
        """Return the columns of each table ('Tables') or view ('Views') that the page tells of."""
        return {
            name: [
                Column(words(row[0])[0], row[1], row[2])
                for row in rows(self.section(f"### `{name}`"), "column")
            ]
            for name in _RELATION.findall(self.section(f"## {kind}"))
        }

    def about(self, relation: str) -> str:
        """Return what is said of a table or view, before its columns."""
        return self.section(f"### `{relation}`").partition("\n|")[0].strip()


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


def plain(markdown: str) -> str:
    """Return a text of the page without its marks: links as their words, on one line."""
    return " ".join(_MARKS.sub("", _LINK.sub(r"\1", markdown)).split())


def page_path() -> Path:
    """Return where the page is: in the package, or beside it in a checkout."""
    shipped = _PACKAGE / "docs" / "sql.md"
    return shipped if shipped.is_file() else _PACKAGE.parent / "docs" / "sql.md"


def read_page() -> Page:
    """Read the page.

    Raises:
        StoreError: it did not come with the program, or cannot be read.

    """
    path = page_path()
    try:
        return Page(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(
            f"The description of the database, {path}, cannot be read: {error.strerror}. "
            "Install the program again."
        ) from error
