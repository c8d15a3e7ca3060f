"""The priority of a line on standard error, where systemd's journal reads it.

By sd-daemon(3) a line that begins with `<3>` is an error to the journal, which takes the prefix
off: `journalctl -p err` finds it. Anywhere else nothing is put before a line.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import click

_PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def prefix(level: str) -> str:
    """Return what a line of this level begins with: nothing, unless the journal reads it."""
    return f"<{_PRIORITIES[level]}>" if _is_read_by_journal() else ""


def tell(level: str, text: str) -> None:
    """Write a text to standard error, each of its lines with the level's prefix."""
    begin = prefix(level)
    click.echo("\n".join(begin + line for line in text.splitlines()), err=True)


def _is_read_by_journal() -> bool:
    """Return whether standard error is what JOURNAL_STREAM names: see systemd.exec(5).

    The variable alone says nothing: whoever is started with another standard error inherits it.
    """
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return named == f"{found.st_dev}:{found.st_ino}"
