"""Folders that may not be searched: what is wrong, and what to do, is said by every command."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
pytestmark = [] if os.geteuid() else [pytest.mark.needs("setpriv")]

TIME = "2026-03-01 12:00:00.000000"


class Subject(Program):
    """The program as a user to whom not everything is open: as another where this one is root."""

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs the program."""
        as_other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return [*([] if os.geteuid() else as_other), *super().command(*arguments)]


@pytest.fixture
def subject() -> Iterator[Subject]:
    """Give the program a folder of its own, in which everything is its user's."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "home").mkdir()
        (folder / "disk" / "audio" / ".partial").mkdir(parents=True)
        subject = Subject(folder)
        subject.env["DOWNLOADER_OUTPUT"] = str(folder / "disk" / "audio")
        for one in (folder, *folder.rglob("*")):
            one.chmod(0o700)
            if not os.geteuid():
                os.chown(one, NOBODY, NOBODY)
        subject.submit([1, 2])
        with closing(sqlite3.connect(subject.database)) as raw:
            raw.execute(
                "UPDATE runs SET state = 'done', next_attempt_at = NULL, bytes = 3, sha256 = ?,"
                " audio_format = 'wav', done_at = ?, location = ? WHERE run_id = 1",
                ("0" * 64, TIME, str(folder / "disk" / "audio" / "1.wav")),
            )
            raw.commit()
        yield subject
    finally:
        for one in (folder / "disk", folder / "disk" / "audio"):
            one.chmod(0o700)
        shutil.rmtree(folder)


@pytest.mark.parametrize("closed", ["disk", "disk/audio"])
@pytest.mark.parametrize("mode", [0o600, 0o000])
@pytest.mark.parametrize(
    "arguments",
    [
        *("verify", "verify --repair", "verify --quick", "doctor", "doctor --quick"),
        *("run --once", "run --drain"),
    ],
)
def test_an_output_folder(subject: Subject, closed: str, mode: int, arguments: str) -> None:
    """It is named, with the command that opens it; nothing is taken for lost, or changed."""
    folder = subject.folder / closed
    folder.chmod(mode)
    done = subject(*arguments.split())
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode in ((3,) if "run" in arguments else (1,)), told
    assert f"{folder} may not be searched" in told
    assert "chmod u+x" in told
    assert "should not happen" not in told
    assert subject.query("SELECT state FROM runs ORDER BY run_id") == [("done",), ("pending",)]


@pytest.mark.parametrize("command", ["status", "list", "show 1", "retry 1", "verify", "doctor"])
def test_the_folder_of_the_database(subject: Subject, command: str) -> None:
    """A database behind a folder that may not be searched is not told to be missing."""
    subject.env["DOWNLOADER_DATABASE"] = str(subject.folder / "disk" / "runs.sqlite3")
    (subject.folder / "disk").chmod(0o600)
    done = subject(*command.split())
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == (1 if command == "doctor" else 2)
    assert f"{subject.folder / 'disk'} may not be searched" in told
    assert "should not happen" not in told
