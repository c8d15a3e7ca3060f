"""Who may read what is written: the records their owner alone, audio whom the umask lets."""

from __future__ import annotations

import signal
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Program, StartSimulator

UMASKS = pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])


def mode(path: Path) -> int:
    """Return the permissions of a file or a folder, not of what it may be a link to."""
    return stat.S_IMODE(path.lstat().st_mode)


def modes(folder: Path) -> dict[str, str]:
    """Return the permissions of the files in a folder, in octal."""
    return {path.name: oct(mode(path)) for path in folder.iterdir() if path.is_file()}


def call(program: Program, umask: int, *arguments: str) -> int:
    """Run the program under a umask; return its exit code."""
    with program.start(*arguments, umask=umask) as process:
        process.communicate(timeout=120)
    return process.returncode


@UMASKS
def test_records(
    program: Program, start_simulator: StartSimulator, tmp_path: Path, umask: int
) -> None:
    """Database, log, index, lock and backups are their owner's alone, in a folder of his alone."""
    folder = tmp_path / "made" / "data"
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator().api_url,
        "DOWNLOADER_DATABASE": str(folder / "runs.sqlite3"),
        "DOWNLOADER_FAILPOINTS": "record.committed=kill",
    }
    assert call(program, umask, "submit", "1", "2", "3") == 0
    assert mode(folder) == 0o700
    assert call(program, umask, "run", "--drain") == -signal.SIGKILL
    assert modes(folder) == dict.fromkeys(
        [f"runs.sqlite3{end}" for end in ("", "-shm", "-wal", ".lock")], "0o600"
    )
    program.env["DOWNLOADER_FAILPOINTS"] = "backup.copied=kill"
    target = folder / "backup.sqlite3"
    assert call(program, umask, "db", "backup", str(target)) == -signal.SIGKILL
    assert mode(folder / "backup.sqlite3.part") == 0o600
    del program.env["DOWNLOADER_FAILPOINTS"]
    assert call(program, umask, "db", "backup", str(target)) == 0
    assert mode(target) == 0o600
    assert set(modes(folder).values()) == {"0o600"}


@UMASKS
def test_default_data_folder(program: Program, tmp_path: Path, umask: int) -> None:
    """The folder that is made where nobody names one is its owner's alone, too."""
    program.env["XDG_DATA_HOME"] = str(tmp_path / "home" / "data")
    program.env["DOWNLOADER_DATABASE"] = ""
    with program.start("submit", "1", umask=umask) as process:
        process.communicate(timeout=120)
    assert process.returncode == 0
    [database] = (tmp_path / "home").rglob("downloader.sqlite3")
    assert (mode(database), mode(database.parent)) == (0o600, 0o700)


@UMASKS
def test_saved_files(program: Program, start_simulator: StartSimulator, umask: int) -> None:
    """Saved audio follows the umask, and what is on its way is in a folder of the owner alone."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    assert call(program, umask, "submit", "1", "2", "3") == 0
    assert call(program, umask, "submit", "--type", "tts", "1", "2") == 0
    assert call(program, umask, "run", "--drain") == 0
    files = [path for path in program.output.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {mode(path) for path in files} == {0o666 & ~umask}
    assert mode(program.output) == mode(program.output / "tts") == 0o777 & ~umask
    assert mode(program.output / ".partial") == 0o700


def test_a_database_that_was_there(program: Program) -> None:
    """What somebody has let others read stays readable: who made it so meant it."""
    assert program("submit", "1").returncode == 0
    program.database.chmod(0o640)
    with program.start("submit", "2", umask=0) as process:
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert mode(program.database) == 0o640
