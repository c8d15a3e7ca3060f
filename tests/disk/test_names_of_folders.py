"""Folders whose names are no text: refused where they would be recorded, used elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness import Program, StartSimulator

    from downloader.simulator.server import Simulator

NAME = os.fsdecode(b"b\xffd")

pytestmark = pytest.mark.needs("linux")  # macOS has no such names


@pytest.fixture
def simulator(start_simulator: StartSimulator, program: Program) -> Simulator:
    """Serve what the program asks for."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    return simulator


@pytest.mark.parametrize("how", ["named", "beside the database", "the current folder"])
@pytest.mark.parametrize(
    "command", ["run --once", "run --drain", "verify", "doctor", "doctor --quick --json"]
)
def test_an_output_folder(program: Program, command: str, how: str) -> None:
    """It is refused before anything is done, and named so that it can be found."""
    program.submit([1])
    (program.folder / NAME).mkdir()
    if how == "named":
        program.env["DOWNLOADER_OUTPUT"] = str(program.folder / NAME / "audio")
    elif how == "beside the database":
        program.env["DOWNLOADER_DATABASE"] = str(program.folder / NAME / "runs.sqlite3")
        program.env["DOWNLOADER_OUTPUT"] = str(program.folder / NAME / "audio")
        program.submit([1])
    else:
        program.env["DOWNLOADER_OUTPUT"] = "audio"
        program.folder = program.folder / NAME
        program.env["DOWNLOADER_DATABASE"] = str(program.folder.parent / "runs.sqlite3")
    done = program(*command.split())
    told = done.stdout + done.stderr
    assert done.returncode == (1 if "doctor" in command else 2), told
    assert "not UTF-8" in " ".join(told.split())
    assert "--output" in told
    assert "should not happen" not in told


def test_every_other_folder(program: Program, simulator: Simulator) -> None:
    """A database, a list of ids, a configuration and a list that is exported may be anywhere."""
    folder = program.folder / NAME
    folder.mkdir()
    program.env["DOWNLOADER_DATABASE"] = str(folder / "runs.sqlite3")
    (folder / "ids.txt").write_text("1\n2\n")
    (folder / "config.toml").write_text("concurrency = 2\n")
    for arguments in (
        ("submit", "--file", str(folder / "ids.txt")),
        ("--config", str(folder / "config.toml"), "run", "--drain", "--min-free", "0"),
        ("run", "--once", "--min-free", "0", "--log-format", "json", "--verbose"),
        ("status", "--json"),
        ("db", "backup", str(folder / "backup.sqlite3")),
        ("export", "--file", str(folder / "list.m3u")),
        ("verify", "--json"),
    ):
        done = program(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert "should not happen" not in done.stderr
    program.assert_saved(simulator, [1, 2])
    assert (folder / "list.m3u").exists()
