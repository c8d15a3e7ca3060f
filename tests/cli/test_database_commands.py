from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store.driving import Driver
from store.scripts import ADD_A_TABLE, next_version

from downloader.store.migrate import open_database, upgrade
from downloader.store.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from cli.calling import Caller
    from harness import Program

REPOSITORY = Path(__file__).parents[2]
COMMANDS = {
    "submit": ["submit", "1"],
    "run": ["run", "--once"],
    "status": ["status"],
    "list": ["list"],
    "show": ["show", "1"],
    "retry": ["retry", "1"],
    "cancel": ["cancel", "1"],
    "db upgrade": ["db", "upgrade"],
    "db current": ["db", "current"],
    "db backup": ["db", "backup", "copy"],
}


def _every_command_but(*names: str) -> pytest.MarkDecorator:
    chosen = {name: arguments for name, arguments in COMMANDS.items() if name not in names}
    return pytest.mark.parametrize("arguments", chosen.values(), ids=chosen.keys())


def test_upgrade_makes_a_database(call: Caller) -> None:
    """`db upgrade` makes what is not there, and is content with what is."""
    path = call.folder / "new" / "runs.sqlite3"
    for _ in range(2):
        answer = call("db", "upgrade", "--database", path)
        assert (answer.code, answer.out, answer.err) == (
            0,
            f"{path}: revision {SCHEMA_REVISION}\n",
            "",
        )


def test_current(call: Caller) -> None:
    """`db current` tells the revision of a database and of the program."""
    answer, known = call("db", "current"), SCHEMA_REVISION
    assert answer.out == f"{call.database}: revision {known}, this version's is {known}\n"


def test_current_changes_nothing(call: Caller) -> None:
    """`db current` makes no database where there is none, and fills no empty one."""
    answer = call("db", "current", "--database", "missing/runs.sqlite3")
    assert answer.code == 2
    assert "There is no database at" in answer.err
    assert not (call.folder / "missing").exists()
    empty = call.folder / "empty"
    empty.touch()
    assert "revision none" in call("db", "current", "--database", empty).out
    assert empty.read_bytes() == b""


def test_backup(call: Caller, driver: Driver) -> None:
    """`db backup` makes a whole copy for its owner's eyes, of a database in use."""
    driver.one_of_each_state()
    answer = call("db", "backup", "copy.sqlite3")
    target = call.folder / "copy.sqlite3"
    assert (answer.code, answer.out) == (0, f"{call.database} is backed up in {target}\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert call("list", "--database", target).out == call("list").out
    answer = call("db", "backup", "copy.sqlite3")
    assert answer.code == 2
    assert "exists already" in answer.err
    assert call("db", "backup", "no/folder/copy").code == 2
    assert call("db", "backup", call.folder).code == 2


@_every_command_but("db current")
def test_a_newer_database(call: Caller, driver: Driver, arguments: list[str]) -> None:
    """Every command refuses a database of a newer version, and says what to do."""
    call.set(CAMB_API_KEY="key")
    driver.submit(1)
    upgrade(driver.database, next_version(call.folder, ADD_A_TABLE))
    answer = call(*arguments)
    assert (answer.code, answer.out) == (2, "")
    [line] = answer.err.splitlines()
    assert line.startswith(f"downloader: The database {call.database} was made by a newer version")
    assert "install that version again, or put back the backup" in line
    assert driver.states() == {1: "pending"}
    assert f"revision 9999, this version's is {SCHEMA_REVISION}" in call("db", "current").out


@_every_command_but()
@pytest.mark.parametrize("kind", ["another program's", "no database", "a folder", "no place"])
def test_what_is_no_database_of_ours(call: Caller, arguments: list[str], kind: str) -> None:
    """Every command refuses what is not its database in one clear line, and leaves it alone."""
    call.set(CAMB_API_KEY="key")
    path = call.folder / "thing"
    if kind == "another program's":
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("CREATE TABLE moz_places (a)")
    elif kind == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"no database" * 100)
    before = None if path.is_dir() else path.read_bytes()
    named = path / "runs.sqlite3" if kind == "no place" else path
    answer = call(*arguments, "--database", named)
    assert (answer.code, answer.out) == (2, "")
    [line] = answer.err.splitlines()
    assert line.startswith("downloader: ")
    assert str(named) in line
    assert before is None or path.read_bytes() == before


@_every_command_but()
def test_databases_that_are_not_supported(call: Caller, arguments: list[str]) -> None:
    """Every command refuses a URL of another kind of database, without its password."""
    call.set(CAMB_API_KEY="key")
    answer = call(*arguments, "--database", "postgresql://me:secret@host/runs")
    assert (answer.code, answer.out) == (2, "")
    assert "postgresql databases are not supported" in answer.err
    assert "secret" not in answer.err


def test_the_first_command_makes_the_database(program: Program, tmp_path: Path) -> None:
    """`submit` makes the database it needs, from any folder, in the person's data folder."""
    program.env = {"DOWNLOADER_DATABASE": ""}
    answer = subprocess.run(
        [Path(sys.executable).with_name("downloader"), "submit", "7"],
        env=program.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    [made] = (tmp_path / "home").rglob("downloader.sqlite3")
    with closing(open_database(made)) as opened:
        assert Driver(opened).states() == {7: "pending"}


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "status --watch",
        "list",
        "show 1",
        "export",
        "retry 1",
        "retry --failed",
        "cancel 1",
        "verify",
        "db current",
        "db backup to.sqlite3",
        "inspect",
    ],
)
def test_a_mistyped_name(call: Caller, command: str) -> None:
    """A command that looks or changes says that there is no database, and makes none."""
    before = sorted(call.folder.iterdir())
    answer = call(*command.split(), "--database", "typo.sqlite3")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"downloader: There is no database at {call.folder / 'typo.sqlite3'}: name it with "
        "--database; `downloader submit --database typo.sqlite3` makes one.\n"
    )
    assert sorted(call.folder.iterdir()) == before


@pytest.mark.parametrize("named", [":memory:", "file:runs.sqlite3?mode=ro", "sqlite://", "x://y"])
def test_what_is_no_file(call: Caller, named: str) -> None:
    """What other programs take for a database, and is no file, is refused before one is made."""
    before = sorted(call.folder.iterdir())
    answer = call("submit", "1", "--database", named)
    assert (answer.code, answer.out) == (2, "")
    assert "give a path" in answer.err
    assert sorted(call.folder.iterdir()) == before


def _alembic(path: Path, *arguments: str) -> str:
    answer = subprocess.run(
        [Path(sys.executable).with_name("alembic"), *arguments],
        env=os.environ | {"DOWNLOADER_DATABASE": str(path)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        umask=0,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_alembics_own_commands(tmp_path: Path) -> None:
    """From the checkout `alembic` migrates, checks and removes the database that is named."""
    path = tmp_path / "runs.sqlite3"
    _alembic(path, "upgrade", "head")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(open_database(path)) as opened:
        assert opened.in_wal_mode()
        Driver(opened).one_of_each_state()
    assert "No new upgrade operations detected" in _alembic(path, "check")
    _alembic(path, "downgrade", "base")
    with closing(sqlite3.connect(path)) as raw:
        left = raw.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")
        assert left.fetchall() == [("alembic_version",)]
    with closing(open_database(path)) as opened:  # an empty database, to begin with again
        assert Driver(opened).states() == {}
