"""Completion, by the shells themselves."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from needs import needed
from store.driving import Driver

from downloader.cli.main import _COMMANDS
from downloader.rules.states import MAX_RUN_ID, State
from downloader.store.migrate import open_database
from downloader.store.suggestions import ids_beginning

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Program

# Asks the script for what it would offer, without a terminal: what it calls for that is the
# shell's own, which works only while a person types.
_BASH = """
set -u
source <("$0" completion bash)
compopt() { echo "compopt $1 $2"; }
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMPREPLY=()
complete -p downloader >/dev/null
_downloader_completion "$0"
(( ${#COMPREPLY[@]} )) && printf '%s\\n' "${COMPREPLY[@]}"
true
"""
_ZSH = """
setopt no_unset
fpath=(${fpath:#${HOME}*})
autoload -Uz compinit && compinit -u -D
source <("$0" completion zsh)
[[ ${_comps[downloader]} == _downloader_completion ]] || exit 9
_describe() { local -a found; found=("${(@P)3}"); print -l -- ${found%%:*}; }
compadd() { print -l -- ${(P)${@[-1]}}; }
_path_files() { print -r -- "files $*"; }
words=("$@")
CURRENT=$#
_downloader_completion
"""
_FISH = """
$program completion fish | source
for found in (complete --do-complete=$line)
    string replace --regex "\\t.*" "" -- $found
end
true
"""


def bash(program: Program, *words: str) -> list[str]:
    """Return what bash offers for the last of these words."""
    return _asked(program, [needed("bash"), "--norc", "-c", _BASH, _path(), "downloader", *words])


def zsh(program: Program, *words: str) -> list[str]:
    """Return what zsh offers for the last of these words."""
    return _asked(program, [needed("zsh"), "-f", "-c", _ZSH, _path(), "downloader", *words])


def fish(program: Program, *words: str) -> list[str]:
    """Return what fish offers for the last of these words."""
    line = " ".join(["downloader", *map(shlex.quote, words[:-1]), words[-1]])
    begin = f"set program {_path()}\nset line {shlex.quote(line)}\n"
    return _asked(program, [needed("fish"), "--no-config", "-c", begin + _FISH])


def _path() -> str:
    return str(Path(sys.executable).with_name("downloader"))


def _asked(program: Program, command: list[str]) -> list[str]:
    environment = program.environment()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        command,
        env=environment,
        cwd=program.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(filter(None, done.stdout.splitlines()))


SHELLS = pytest.mark.parametrize(
    "shell",
    [
        bash,
        pytest.param(zsh, marks=pytest.mark.needs("zsh")),
        pytest.param(fish, marks=pytest.mark.needs("fish")),
    ],
)


@SHELLS
def test_what_is_completed(program: Program, shell: Callable[..., list[str]]) -> None:
    """Commands, subcommands, options and the values of options are completed."""
    assert shell(program, "") == sorted(_COMMANDS)
    assert shell(program, "s") == ["show", "simulate", "status", "submit"]
    assert shell(program, "db", "b") == ["backup"]
    assert shell(program, "run", "--max-") == [
        "--max-duration",
        "--max-file-size",
        "--max-poll",
        "--max-rate",
    ]
    assert shell(program, "run", "--engine", "") == ["auto", "curl", "httpx"]
    assert shell(program, "list", "--state", "d") == ["done", "downloading"]
    assert shell(program, "submit", "--type", "t") == ["text-to-sound", "tts"]
    assert shell(program, "export", "--format", "") == ["csv", "jsonl", "m3u", "sha256"]
    assert shell(program, "list", "--error", "url_") == [
        *("url_expired", "url_not_yet_valid", "url_refused"),
    ]
    assert shell(program, "completion", "z") == ["zsh"]


@pytest.fixture
def many(program: Program) -> Program:
    """Make a database with a run in each state."""
    opened = open_database(program.database)
    driver = Driver(opened)
    driver.one_of_each_state()
    driver.failed(50, 512, 5003)
    opened.close()
    return program


@SHELLS
def test_run_ids(many: Program, shell: Callable[..., list[str]]) -> None:
    """Run ids are completed: those that the command can do something with."""
    assert shell(many, "show", "") == ["1", "2", "3", "4", "5", "50", "5003", "512", "6"]
    assert shell(many, "retry", "5") == ["5", "50", "5003", "512"]
    assert shell(many, "retry", "512", "50", "5") == ["5", "5003"]
    assert shell(many, "cancel", "") == ["1", "2", "3"]
    assert shell(many, "cancel", "--type", "tts", "") == []
    database = str(many.database)
    many.env["DOWNLOADER_DATABASE"] = str(many.folder / "another.sqlite3")
    assert shell(many, "show", "5") == []
    assert shell(many, "show", "--database", database, "51") == ["512"]
    assert not (many.folder / "another.sqlite3").exists()


def test_files(program: Program) -> None:
    """Where a file or a folder is wanted the shell is told to offer its own."""
    for words, kind in (
        (("submit", "--file"), "default"),
        (("status", "--database"), "default"),
        (("--config",), "default"),
        (("run", "--metrics-textfile"), "default"),
        (("run", "--output"), "dirnames"),
    ):
        assert bash(program, *words, "x") == [f"compopt -o {kind}"], words


@pytest.mark.needs("fish")
def test_files_in_fish(program: Program) -> None:
    """Fish, which has no such word for a script, is told the files themselves."""
    (program.folder / "ids.txt").touch()
    assert fish(program, "submit", "--file", "id") == ["ids.txt"]


def test_the_script_of_an_unknown_shell(program: Program) -> None:
    """A shell that is not known is a mistake, with those that are."""
    done = program("completion", "tcsh")
    assert done.returncode == 2
    for name in ("bash", "zsh", "fish"):
        assert name in done.stderr


def test_a_database_that_takes_long(many: Program) -> None:
    """A look into a database that is huge or damaged offers little, soon, and harms nothing."""
    look: dict[str, Any] = {"most": 50, "states": tuple(State)}
    with sqlite3.connect(many.database) as raw:
        raw.execute(
            "WITH RECURSIVE n(i) AS "
            "(SELECT 1000000 UNION ALL SELECT i + 1 FROM n WHERE i < 1100000) "
            "INSERT INTO runs (run_type, run_id, state, next_attempt_at, submitted_at, updated_at) "
            "SELECT 'text-to-sound', i, 'pending', :at, :at, :at FROM n",
            {"at": "2026-01-01 00:00:00.000000"},
        )
    raw.close()
    assert ids_beginning(many.database, "text-to-sound", "10000", seconds=9, **look)[:2] == [
        1000000,
        1000001,
    ]
    few = {**look, "states": (State.FAILED,)}
    assert ids_beginning(many.database, "text-to-sound", "1", seconds=-1, **few) == []
    many.database.write_bytes(b"no database")
    assert ids_beginning(many.database, "text-to-sound", "1", seconds=9, **look) == []
    assert ids_beginning(many.folder, "text-to-sound", "1", seconds=9, **look) == []


@pytest.mark.parametrize("digits", ["0", "01", "-1", "x", "1x", "٣", "9" * 30, str(MAX_RUN_ID + 1)])
def test_digits_that_begin_no_id(many: Program, digits: str) -> None:
    """What no run id begins with has none offered."""
    look: dict[str, Any] = {"most": 50, "states": tuple(State), "seconds": 9}
    assert ids_beginning(many.database, "text-to-sound", digits, **look) == []
    opened = open_database(many.database)
    Driver(opened).submit(MAX_RUN_ID)
    opened.close()
    assert ids_beginning(many.database, "text-to-sound", "9", **look) == [MAX_RUN_ID]
