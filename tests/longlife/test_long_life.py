"""A long life in short; `long_life.py` is the long one."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from longlife.long_life import live

from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from pathlib import Path


def test_thousands_of_runs_in_one_process(tmp_path: Path) -> None:
    """Memory, files, threads and the write-ahead log stay small, with readers attached."""
    life = live(tmp_path, runs=6_000, warm_up=4_000, concurrency=8)
    life.check()


def test_emptying_the_log_waits_for_readers_a_moment_only(tmp_path: Path) -> None:
    """The log is emptied between two readers, and left as it is where one goes on reading."""
    path = tmp_path / "runs.sqlite3"
    with (
        contextlib.closing(open_database(path)) as database,
        contextlib.closing(sqlite3.connect(path)) as reader,
    ):
        reader.isolation_level = None
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchall()
        with database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE more (x)")
        size = database.log_bytes()
        assert size > 0
        assert database.empty_log() is False
        assert database.log_bytes() == size
        reader.execute("COMMIT")
        assert database.empty_log() is True
        assert database.log_bytes() == 0
