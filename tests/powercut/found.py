"""What is found after a cut: the runs that the database has, and whether their files are there."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Files = dict[str, bytes | None]


class AfterTheCut:
    """Looks into databases as they would be found."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[bytes, list[dict[str, Any]] | None] = {}

    def rows(self, files: Files, name: str = "runs.sqlite3") -> list[dict[str, Any]] | None:
        """Return the runs that the database would have, whole; None where it would have none yet.

        The write-ahead log is read as SQLite does after a crash: up to the last whole commit.
        """
        records = {
            path.rpartition("/")[2]: content or b""
            for path, content in files.items()
            if path.startswith(name) and not path.endswith((".lock", "-shm"))
        }
        digest = hashlib.sha256()
        for path, content in sorted(records.items()):
            digest.update(f"{path} {len(content)} ".encode())
            digest.update(content)
        if digest.digest() not in self._known:
            self._known[digest.digest()] = self._open(records, name.rpartition("/")[2])
        return self._known[digest.digest()]

    def _open(self, records: dict[str, bytes], name: str) -> list[dict[str, Any]] | None:
        for path in self._folder.iterdir():
            path.unlink()
        if name not in records:
            return None
        for one, content in records.items():
            (self._folder / one).write_bytes(content)
        with contextlib.closing(sqlite3.connect(self._folder / name)) as found:
            found.row_factory = sqlite3.Row
            assert [row[0] for row in found.execute("PRAGMA integrity_check")] == ["ok"]
            if not found.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchall():
                return None
            return [dict(row) for row in found.execute("SELECT * FROM runs ORDER BY run_id")]


@functools.lru_cache(maxsize=1000)
def sha256(content: bytes) -> str:
    """Return the SHA-256 of a content, which is the same object as long as nothing changes it."""
    return hashlib.sha256(content).hexdigest()


def assert_done_is_true(rows: list[dict[str, Any]] | None, files: Files, root: Path) -> set[int]:
    """Assert that the file of each run that is done would be there, whole; return these runs."""
    done = [row for row in rows or [] if row["state"] == "done"]
    for row in done:
        content = files.get(str(row["location"]).removeprefix(f"{root}/"))
        assert content is not None, f"run {row['run_id']} is done, and its file is gone"
        assert len(content) == row["bytes"]
        assert sha256(content) == row["sha256"]
    return {row["run_id"] for row in done}


def put_back(files: Files, root: Path) -> None:
    """Make a folder what it would be after a cut; the program's home stays."""
    for path in root.iterdir():
        if path.name != "home":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in files.items():
        if content is None:
            (root / name).mkdir(exist_ok=True)
    for name, content in files.items():
        if content is not None:
            (root / name).write_bytes(content)
