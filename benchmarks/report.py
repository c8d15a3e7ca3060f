"""The tables where people read them: docs/performance.md, between marks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def of_machine(found: Mapping[str, str]) -> str:
    """Return the machine and the versions as a list of Markdown."""
    return "\n".join(f"- {name}: {value}" for name, value in found.items())


def check(names: Iterable[str], page: Path = PAGE) -> None:
    """Check that the page has a place for each table, before anything is measured for it.

    Raises:
        BenchmarkError: it has not.

    """
    text = page.read_text("utf-8")
    for name in ("machine", *names):
        replaced(text, name, "")


def write(
    found: Mapping[str, str],
    tables: Mapping[str, str],
    pictures: Mapping[str, str],
    page: Path = PAGE,
) -> None:
    """Put what was measured into the page, and pictures beside it; the rest stays as it is.

    Raises:
        BenchmarkError: the page has no place for one of them.

    """
    text = page.read_text("utf-8")
    for name, content in {"machine": of_machine(found), **tables}.items():
        text = replaced(text, name, content)
    page.write_text(text, "utf-8")
    for name, content in pictures.items():
        page.with_name(name).write_text(content, "utf-8")


def replaced(text: str, name: str, content: str) -> str:
    """Return a page with what stands between the marks of `name` replaced.

    Raises:
        BenchmarkError: the page has no such marks, or more than one pair.

    """
    start, end = f"<!-- measured: {name} -->\n", f"<!-- end: {name} -->"
    pattern = re.compile(f"({re.escape(start)}).*?({re.escape(end)})", re.DOTALL)
    new, found = pattern.subn(lambda match: f"{match[1]}{content}\n{match[2]}", text)
    if found != 1:
        raise BenchmarkError(f"the page has {found} places marked {start.strip()}")
    return new
