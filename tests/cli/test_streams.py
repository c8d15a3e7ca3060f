"""Standard streams that are closed, full or unread: what is to be done is done all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from downloader import descriptors

if TYPE_CHECKING:
    from harness import Program, StartSimulator

TRIAL = """
import os, sys
from downloader.store.migrate import open_database
for number in range(3):
    os.close(number)
opened = open_database(sys.argv[1])
part = os.open(sys.argv[2], os.O_CREAT | os.O_RDWR)
assert part > 2
os.write(2, b"a line of a log")
os.write(1, b"and another")
"""


def run(program: Program, streams: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program by a shell that does this to its streams."""
    path = Path(sys.executable).with_name("downloader")
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$@" {streams}', path, *arguments],
        env=program.environment(),
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "streams", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "2</dev/null"]
)
def test_what_does_something(
    program: Program, start_simulator: StartSimulator, streams: str
) -> None:
    """A command does its work, and ends with the code of that, whoever cannot be told."""
    simulator = start_simulator(rules=[{"runs": [3], "where": "api", "fault": {"kind": "word"}}])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    done = run(program, streams, "submit", "1", "2")
    assert done.returncode == 0, done.stderr
    if streams == ">/dev/full":
        assert "standard output cannot be written to: No space left on device; what was" in (
            done.stderr
        )
    assert program.query("SELECT count(*) FROM runs") == [(2,)]
    assert run(program, streams, "submit", "x").returncode == 2
    assert run(program, streams, "run", "--drain", "-vv").returncode == 0
    program.assert_saved(simulator, [1, 2])
    assert program.query("PRAGMA integrity_check") == [("ok",)]
    assert run(program, streams, "verify").returncode == 0
    next(program.output.glob("1.*")).unlink()
    assert run(program, streams, "verify").returncode == 1


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&-"])
def test_what_only_shows(program: Program, streams: str) -> None:
    """A command that shows something needs standard output alone."""
    assert program("submit", "1").returncode == 0
    done = run(program, streams, "status", "--json")
    assert done.returncode == 0
    assert '"pending": 1' in done.stdout


@pytest.mark.parametrize("streams", [">&-", ">/dev/full", "1</dev/null"])
@pytest.mark.parametrize("command", [("status",), ("db", "current"), ("--help",)])
def test_what_cannot_be_shown(program: Program, streams: str, command: tuple[str, ...]) -> None:
    """Where that is closed or full there is nothing else to do: one line says so, with code 1."""
    assert program("submit", "1").returncode == 0
    done = run(program, streams, *command)
    assert done.returncode == 1
    assert done.stderr.startswith("downloader: standard output cannot be written to: ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_left(program: Program) -> None:
    """Where nobody reads what a command says any more it is not said, and the work is done."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        program.command("submit", "1", "2"),
        env=program.environment(),
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")
    assert program.query("SELECT count(*) FROM runs") == [(2,)]


def test_no_file_takes_the_place_of_a_stream(program: Program, tmp_path: Path) -> None:
    """In a program whose streams are closed no file of ours gets what is written to these."""
    part = tmp_path / "part"
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, program.database, part], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert part.read_bytes() == b""
    assert program.query("PRAGMA integrity_check") == [("ok",)]


def test_open_streams_are_left_alone() -> None:
    """Of streams that are open nothing is touched."""
    before = [os.fstat(number) for number in range(3)]
    assert descriptors.fill() == set()
    assert [os.fstat(number)[:3] for number in range(3)] == [one[:3] for one in before]
