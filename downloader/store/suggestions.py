"""Run ids that begin with some digits: for whoever types one, and waits."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING

from downloader.rules.states import MAX_RUN_ID

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from downloader.rules.states import State


def ids_beginning(
    path: Path,
    run_type: str,
    digits: str,
    states: Collection[State],
    *,
    most: int,
    seconds: float,
) -> list[int]:
    """Return up to so many ids of a type in these states, found in about so many seconds.

    The database is only read, not made and not migrated; what is wrong with it is told by whatever
    uses it next, not here.
    """
    if (digits and not (digits.isascii() and digits.isdigit())) or not os.path.isfile(path):  # noqa: PTH113 - not to fail
        return []
    marks = ", ".join("?" * len(states))
    query = (
        "SELECT run_id FROM runs WHERE run_type = ? AND run_id BETWEEN ? AND ? "  # noqa: S608 - marks
        f"AND state IN ({marks}) ORDER BY run_id LIMIT ?"
    )
    found: list[int] = []
    over_at = time.monotonic() + seconds
    with contextlib.suppress(sqlite3.Error):
        source = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(source, timeout=seconds, uri=True)) as raw:
            raw.set_progress_handler(lambda: time.monotonic() > over_at, 1000)
            for least, greatest in _ranges(digits):
                left = most - len(found)
                rows = raw.execute(query, (run_type, least, greatest, *states, left))
                found += [run_id for (run_id,) in rows]
    return found


def _ranges(digits: str) -> Iterator[tuple[int, int]]:
    """Yield where the numbers lie that begin with these digits: for each length, in one piece."""
    if not digits:
        yield 1, MAX_RUN_ID
    elif not digits.startswith("0"):
        least, width = int(digits[:20]), 1
        while least <= MAX_RUN_ID:
            yield least, min(least + width - 1, MAX_RUN_ID)
            least, width = least * 10, width * 10
