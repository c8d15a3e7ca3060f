"""The next command that a text names, with what it needs to be typed as it stands."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
from terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from cli.calling import Caller
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("statsu",), "No such command 'statsu'. Did you mean 'status'?"),
        (("xyz",), "No such command 'xyz'."),
        (("--database", "x", "status"), "behind its name: downloader status --database"),
        (("run", "--concurrency", "many"), "'many' is not a whole number from 1 to 256"),
        (("list", "--limit", "-1"), "'-1' is not a whole number of 0 or more"),
        (("run", "--grace", "1y"), "give seconds, or 90s, 5m, 24h, 2d, 1w"),
        (("simulate", "--bandwidth", "fast"), "'fast' is not a size: give bytes, or 500M, 10G"),
        (("simulate", "--finish-after", "-5s"), "'-5s' is out of range: at least 0 seconds"),
        (("help", "xyz"), "No such command 'xyz'."),
    ],
)
def test_mistyped(call: Caller, arguments: tuple[str, ...], said: str) -> None:
    """Whoever mistypes is told what is expected, or what to type instead."""
    answer = call(*arguments)
    assert answer.code == 2
    assert said in " ".join(answer.err.split())


def test_help_by_name(call: Caller) -> None:
    """`help` shows what `--help` shows, of the program, a command, and one of a group."""
    assert call("help").out == call("--help").out
    assert call("help", "db", "backup").out == call("db", "backup", "--help").out
    assert "FILE" in call("help", "db", "backup").out


def test_a_week(call: Caller) -> None:
    """A duration may be in weeks."""
    shown = call("config", "--give-up-after", "1w", "--json").json
    assert shown["settings"]["give-up-after"]["value"] == 7 * 86_400


@pytest.mark.parametrize("mode", ["--once", "--drain"])
def test_a_database_that_is_not_there(program: Program, mode: str) -> None:
    """A call that works off what is tracked makes no database, in which nothing is to do."""
    done = program("run", mode, "--database", "typo/d.sqlite3")
    assert (done.returncode, done.stdout) == (2, "")
    [said] = done.stderr.splitlines()
    assert "There is no database at" in said
    assert not (program.folder / "typo").exists()


def test_config_behind_the_command(program: Program) -> None:
    """An option of the program itself is told to stand before the command."""
    done = program("run", "--config", "c.toml")
    assert done.returncode == 2
    assert "--config stands before the command: downloader --config FILE run" in done.stderr


def test_a_file_in_the_way(program: Program) -> None:
    """Where the output folder cannot be made the file that is in its place is named."""
    (program.folder / "a").write_text("")
    program.submit([1])
    told = program("run", "--once", "--output", "a/b/c").stderr
    assert f"cannot be made: {program.folder / 'a'} is there, and is no folder" in told
