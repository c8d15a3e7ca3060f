"""The pages of the documentation, and the blocks in them that the tests run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def text_of(page: str) -> str:
    """Return a page, named as from the project's root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, mark: str) -> list[str]:
    """Return the code blocks of a page that stand behind a mark; there is one at least."""
    found = re.findall(rf"<!-- {re.escape(mark)} -->\n```\w+\n(.+?)\n```", text_of(page), re.DOTALL)
    assert found, f"{page} has no block marked {mark!r}"
    return found


def block(page: str, mark: str) -> str:
    """Return the one block that stands behind a mark."""
    [text] = blocks(page, mark)
    return text


def command(page: str, name: str) -> str:
    """Return the one command of a page that has this name."""
    return block(page, f"command: {name}")
