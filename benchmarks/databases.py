"""Databases of many runs, made as fast as can be."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

from benchmarks.program import DATABASE, Program

if TYPE_CHECKING:
    from pathlib import Path

_NOW: Final = "2026-01-31 08:00:00.000000"

# What the program's own steps leave of a run that is saved: three more events, and the row.
_EVENT: Final = """
    INSERT INTO run_events (run_type, run_id, at, from_state, to_state, reason, detail)
    SELECT run_type, run_id, :now, :before, :after, :reason, :detail
    FROM runs WHERE state = 'pending' AND run_id % :every = 0
"""
_FINISH: Final = """
    UPDATE runs SET state = 'done', next_attempt_at = NULL, polls = 1, attempts = 1,
        location = :folder || run_id || '.wav', bytes = 1760000, audio_format = 'wav',
        sha256 = lower(hex(randomblob(32))), etag = '"68a1f2c4-1adb00"',
        ready_at = :now, done_at = :now, updated_at = :now
    WHERE state = 'pending' AND run_id % :every = 0
"""
_FOLDER: Final = "/home/ada/.local/share/downloader/audio/"
_EVENTS: Final = (
    ("pending", "ready", "url_received", None),
    ("ready", "downloading", "claimed", "some-host.example:12345:0123abcd:67890"),
    ("downloading", "done", "published", f"{_FOLDER}123456.wav"),
)


def tracked(folder: Path, runs: int) -> Path:
    """Make a database of `runs` submitted runs in a new folder; return its path."""
    folder.mkdir()
    Program().submit(folder, range(1, runs + 1))
    return folder / DATABASE


def finish(database: Path, *, every: int = 1) -> None:
    """Have pending runs saved, or every so-many-th of them, as the program would leave them."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for before, after, reason, detail in _EVENTS:
            values = {"before": before, "after": after, "reason": reason, "detail": detail}
            connection.execute(_EVENT, values | {"now": _NOW, "every": every})
        connection.execute(_FINISH, {"folder": _FOLDER, "now": _NOW, "every": every})
