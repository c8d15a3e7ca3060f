"""What recording runs costs at the least: the same rows into the same tables by `executemany`.

`raw_sqlite.py DATABASE IDS_FILE`; the database has the program's schema, and is in WAL mode. One
transaction, on the disk when it returns.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path


def main(database: str, ids_file: str) -> None:
    """Insert a run and its first event for every id."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    with Path(ids_file).open(encoding="ascii") as file:
        run_ids = [int(line) for line in file]
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO runs (run_type, run_id, state, next_attempt_at, submitted_at, updated_at)"
            " VALUES ('text-to-sound', ?, 'pending', ?, ?, ?)",
            ((run_id, now, now, now) for run_id in run_ids),
        )
        connection.executemany(
            "INSERT INTO run_events (run_type, run_id, at, to_state, reason)"
            " VALUES ('text-to-sound', ?, ?, 'pending', 'submitted')",
            ((run_id, now) for run_id in run_ids),
        )
        connection.execute("COMMIT")


main(sys.argv[1], sys.argv[2])
