"""docs/sql.md, read as the program reads it: its queries, its columns, its lists of words."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from downloader.store.contract import Page, rows, words

__all__ = ["PAGE", "TEXT", "queries", "relations", "rows", "section", "words"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")

_READ: Final = Page(TEXT)
queries: Final = _READ.queries
relations: Final = _READ.relations
section: Final = _READ.section
