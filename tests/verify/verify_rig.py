"""A database with saved files, made in a moment, and `downloader verify` on it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from downloader.clock import utc_now
from downloader.store.migrate import open_database
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Program

TYPE = "text-to-sound"
LONG_AGO = "2026-01-31 08:00:00.000000"
KINDS = {"damaged", "missing", "unreadable", "unrecorded", "orphan", "stale_part"}


def content(run_id: int) -> bytes:
    """Return what the file of a run holds: 5000 bytes, of every run others."""
    return (f"{run_id:019d}\n" * 250).encode()


@dataclass(frozen=True)
class Verdict:
    """What `verify --json` found, and how it ended."""

    code: int
    findings: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def kinds(self) -> dict[int | None, str]:
        """Return what was found of each run."""
        return {one["run_id"]: one["finding"] for one in self.findings}

    @property
    def repaired(self) -> set[int | None]:
        """Return the runs of which something was repaired."""
        return {one["run_id"] for one in self.findings if one["repair"] is not None}


@dataclass
class Rig:
    """A program's folder, filled by hand."""

    program: Program

    def __post_init__(self) -> None:
        """Make the database and the folders."""
        open_database(self.program.database).close()
        self.parts.mkdir(parents=True)

    @property
    def output(self) -> Path:
        """The output folder."""
        return self.program.output

    @property
    def parts(self) -> Path:
        """The folder of parts."""
        return self.output / ".partial"

    def path(self, run_id: int, extension: str = "wav") -> Path:
        """Return where the file of a run is."""
        return self.output / f"{run_id}.{extension}"

    def part(self, run_id: int, run_type: str = TYPE) -> Path:
        """Return where a part of a run is."""
        return self.parts / f"{run_type}-{run_id}.0123456789ab.0.part"

    def execute(self, sql: str, *parameters: object) -> None:
        """Change the database as a person with a shell could."""
        with contextlib.closing(sqlite3.connect(self.program.database, timeout=30)) as raw, raw:
            raw.execute(sql, parameters)

    def save(self, *run_ids: int, run_type: str = TYPE, folder: Path | None = None) -> None:
        """Record runs as done, long ago, each with its file."""
        own = self.output if run_type == TYPE else self.output / run_type
        folder = own if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        for run_id in run_ids:
            path = folder / f"{run_id}.wav"
            path.write_bytes(content(run_id))
            digest = hashlib.sha256(content(run_id)).hexdigest()
            self.execute(
                "INSERT INTO runs (run_type, run_id, state, location, bytes, sha256, audio_format,"
                " polls, attempts, submitted_at, ready_at, done_at, updated_at)"
                " VALUES (?, ?, 'done', ?, 5000, ?, 'wav', 3, 1, ?, ?, ?, ?)",
                *(run_type, run_id, str(path), digest, *[LONG_AGO] * 4),
            )

    def track(self, run_id: int, state: str, *, lease_seconds: float | None = None) -> None:
        """Record a run, not done, that was last changed long ago.

        With `lease_seconds` somebody holds it until so many seconds from now.
        """
        url = "https://storage.example/a" if state in ("ready", "downloading") else None
        due = LONG_AGO if state in ("pending", "ready") else None
        owner = None if lease_seconds is None else "host:1:abc:1"
        until = None
        if lease_seconds is not None:
            until = to_text(utc_now() + timedelta(seconds=lease_seconds))
        error = "deadline" if state == "failed" else None
        self.execute(
            "INSERT INTO runs (run_type, run_id, state, url, next_attempt_at, lease_owner,"
            " lease_expires_at, error_code, error_message, submitted_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(TYPE, run_id, state, url, due, owner, until, error, error, LONG_AGO, LONG_AGO),
        )

    def publish(self, run_id: int) -> None:
        """Leave the file of a run as a crash between its publication and its commit does."""
        self.part(run_id).write_bytes(content(run_id))
        os.link(self.part(run_id), self.path(run_id))

    def verify(self, *options: str) -> Verdict:
        """Verify; what is printed is JSON, and nothing else is."""
        done = self.program("verify", "--json", *options)
        assert done.stderr == ""
        *findings, summary = [json.loads(line) for line in done.stdout.splitlines()]
        assert sum(summary["found"].values()) == len(findings)
        assert summary["repaired"] == sum(one["repair"] is not None for one in findings)
        assert set(summary["found"]) == KINDS
        assert done.returncode == (1 if findings else 0)
        return Verdict(done.returncode, findings, summary)

    def states(self) -> dict[int, str]:
        """Return the state of each run."""
        return dict(self.program.query("SELECT run_id, state FROM runs"))

    def rows(self) -> list[tuple[Any, ...]]:
        """Return all that the database says."""
        runs = self.program.query("SELECT * FROM runs ORDER BY run_type, run_id")
        return runs + self.program.query("SELECT * FROM run_events ORDER BY event_id")

    def events(self, run_id: int) -> list[tuple[Any, ...]]:
        """Return what is told of a run."""
        return self.program.query(
            "SELECT from_state, to_state, reason, detail FROM run_events WHERE run_id = ?"
            " ORDER BY event_id",
            run_id,
        )

    def tree(self) -> dict[str, bytes | str]:
        """Return what is in the output folder: contents of files, targets of links, kinds."""
        found: dict[str, bytes | str] = {}
        for path in sorted(self.output.rglob("*")):
            name = str(path.relative_to(self.output))
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            elif path.is_file():
                found[name] = path.read_bytes()
            else:
                found[name] = "folder" if path.is_dir() else "other"
        return found


def settled(path: Path, seconds: float = 3600) -> None:
    """Make a file look as if it was last written so many seconds ago."""
    then = utc_now().timestamp() - seconds
    os.utime(path, (then, then), follow_symlinks=False)
