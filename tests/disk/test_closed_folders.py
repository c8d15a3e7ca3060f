"""Folders that may not be searched: what is wrong, and what to do, is said by every command."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Unprivileged

pytestmark = pytest.mark.needs("unprivileged")

TIME = "2026-03-01 12:00:00.000000"


@pytest.fixture
def subject(unprivileged: Unprivileged) -> Iterator[Unprivileged]:
    """Give it a database with a saved run and one to do, and an output folder."""
    folders = [unprivileged.folder / name for name in ("disk", "disk/audio", "disk/audio/.partial")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    unprivileged.env["DOWNLOADER_OUTPUT"] = str(folders[1])
    unprivileged.own()
    unprivileged.submit([1, 2])
    with closing(sqlite3.connect(unprivileged.database)) as raw:
        raw.execute(
            "UPDATE runs SET state = 'done', next_attempt_at = NULL, bytes = 3, sha256 = ?,"
            " audio_format = 'wav', done_at = ?, location = ? WHERE run_id = 1",
            ("0" * 64, TIME, str(folders[1] / "1.wav")),
        )
        raw.commit()
    yield unprivileged
    for folder in folders[:2]:
        folder.chmod(0o700)


@pytest.mark.parametrize("closed", ["disk", "disk/audio"])
@pytest.mark.parametrize("mode", [0o600, 0o000])
@pytest.mark.parametrize(
    "arguments",
    [
        *("verify", "verify --repair", "verify --quick", "doctor", "doctor --quick"),
        *("run --once", "run --drain"),
    ],
)
def test_an_output_folder(subject: Unprivileged, closed: str, mode: int, arguments: str) -> None:
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
def test_the_folder_of_the_database(subject: Unprivileged, command: str) -> None:
    """A database behind a folder that may not be searched is not told to be missing."""
    subject.env["DOWNLOADER_DATABASE"] = str(subject.folder / "disk" / "runs.sqlite3")
    (subject.folder / "disk").chmod(0o600)
    done = subject(*command.split())
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == (1 if command == "doctor" else 2)
    assert f"{subject.folder / 'disk'} may not be searched" in told
    assert "should not happen" not in told
