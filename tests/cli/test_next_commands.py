"""The next command that a text names, with what it needs to be typed as it stands."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Program, StartSimulator

FAULT = {"kind": "word", "word": "ERROR"}


def next_command(text: str) -> list[str]:
    """Return the arguments of the last command that a text names."""
    return shlex.split(re.findall(r"`downloader ([^`]+)`", text)[-1])


def test_what_was_given_is_repeated(
    program: Program, start_simulator: StartSimulator, tmp_path: Path
) -> None:
    """From `run` to `list`, and from `verify` to what mends: each works as it stands."""
    simulator = start_simulator(rules=[{"runs": [2], "where": "api", "fault": FAULT}])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    database, output = ("--database", str(tmp_path / "a trial.sqlite3")), ("--output", "saved")
    program("submit", "1", "2", *database)
    ended = program("run", "--drain", *database, *output)
    assert "1 saved (" in ended.stdout
    assert f" in {program.folder / 'saved'}, 1 failed" in ended.stdout
    listed = next_command(ended.stderr)
    assert listed == ["list", "--state", "failed", *database]
    assert program(*listed).stdout.split()[:2] == ["2", "failed"]
    shown = program("show", "2", *database).stdout
    assert re.search(r"^what_to_do +no use in a retry", shown, re.MULTILINE)
    (program.folder / "saved" / "1.wav").unlink()
    repair = next_command(program("verify", *database, *output, "--all-missing").stdout)
    assert repair == ["verify", "--repair", *database, *output]
    mended = program(*repair, "--all-missing").stdout
    again = next_command(mended)
    assert again == ["run", "--drain", *database, *output]
    assert program(*again).returncode == 0
    assert program("verify", *database, *output).stdout.endswith("all is well\n")


def test_a_configuration_file_is_repeated(program: Program) -> None:
    """What --config named is named again, and what it says is not."""
    settings = program.folder / "my settings.toml"
    settings.write_text('database = "there.sqlite3"\n')
    program.env["DOWNLOADER_DATABASE"] = ""  # as if not set
    told = program("--config", str(settings), "status").stderr
    assert f"`downloader --config '{settings}' submit` makes one" in told


def test_no_match(program: Program) -> None:
    """Whoever looks on is told that no run is listed; a pipe is given nothing."""
    program.submit([1])
    quiet = program("list", "--state", "failed")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    with Terminal(program, "list", "--state", "failed", columns=200) as terminal:
        assert terminal.end() == 0
    assert terminal.lines[-1].startswith("no run is listed; looked into /")


def test_a_circle(program: Program, start_simulator: StartSimulator) -> None:
    """A file that was compared with the service's and is another is not to be compared again."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    program.submit([4])
    program("run", "--drain")
    (program.folder / "audio" / "5.wav").write_bytes(b"something else")
    first = program("verify").stdout
    assert "`downloader submit 5` to have it compared" in first
    program("submit", "5")
    assert "name_taken (1): move the file" in program("run", "--drain").stderr
    second = program("verify").stdout
    assert "not what the service has of this run: move it away, then `downloader retry 5`" in second
    (program.folder / "audio" / "5.wav").rename(program.folder / "mine.wav")
    with Terminal(program, *next_command(second), columns=120) as terminal:
        assert terminal.end() == 0
    assert "`downloader run --drain` asks for them" in terminal.lines[-1]
    assert program("run", "--drain").returncode == 0
    assert program("run", "--drain").stdout == "nothing to do: 2 saved, 0 failed\n"
