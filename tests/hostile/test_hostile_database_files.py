"""Files in the database's place that are none, or no longer: told in a sentence, left alone."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
from disk.small_disks import mounted
from hostile.hostile_values import assert_told
from store.driving import Driver

from downloader.store.database import Database, database_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli.calling import Answer, Caller
    from harness import Program

COMMANDS: Final = (
    *("submit 98", "status", "list", "show 1", "retry 1", "retry --failed", "cancel 60"),
    *("db current", "db upgrade", "db backup copy.sqlite3", "run --once"),
)


def answers(call: Caller) -> Iterator[tuple[str, Answer]]:
    """Call every command, each on the database as it is now."""
    before = {path: path.read_bytes() for path in beside(call.database) if path.is_file()}
    for command in COMMANDS:
        if call.database.is_file():
            for path in beside(call.database):
                if path not in before and path.is_file():
                    path.unlink()
            for path, content in before.items():
                path.write_bytes(content)
        (call.folder / "copy.sqlite3").unlink(missing_ok=True)
        yield command, call(*command.split())


def beside(path: Path) -> list[Path]:
    """Return a database's files."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", ".lock")]


# ----------------------------------------------------------------------- what is no database


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(to: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(to)

    return link


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _cut(size: int) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:size])

    return cut


def _write(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


NOISE = random.Random(5).randbytes(40_000)  # noqa: S311 - not for secrets
NO_DATABASES: dict[str, Callable[[Path], None]] = {
    "zeros": _write(bytes(8192)),
    "text": _write(b"run_id,state\n1,done\n" * 50),
    "random bytes": _write(NOISE),
    "a header alone": _write(b"SQLite format 3\0" + bytes(4080)),
    "cut in the header": _cut(50),
    "cut in the first page": _cut(1000),
    "cut behind the first page": _cut(4096),
    "a folder": _folder,
    "a pipe": _pipe,
    "a link to nowhere": _link("/nonexistent/folder/x"),
    "a link to itself": _link("runs.sqlite3"),
}


@pytest.mark.parametrize("name", NO_DATABASES)
def test_what_is_no_database(call: Caller, name: str) -> None:
    """What is no database is refused by every command, in words that name it, and stays."""
    NO_DATABASES[name](call.database)
    for command, answer in answers(call):
        assert_told(answer, 2)
        assert str(call.database) in answer.err, command
        assert answer.out == "", command


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/full"])
def test_devices(call: Caller, device: str) -> None:
    """A device is no database; what is always full is told as a full disk or as no database."""
    _link(device)(call.database)
    refused = (2, 3) if device == "/dev/full" else (2,)
    for command, answer in answers(call):
        assert_told(answer, *((0, *refused) if command == "db current" else refused))


# ------------------------------------------------------------------------- what is in it is odd


def changed(path: Path, *statements: str) -> None:
    """Change a database's schema as a person with a shell does."""
    with closing(sqlite3.connect(path)) as raw:
        for statement in ("PRAGMA foreign_keys=OFF", *statements):
            raw.execute(statement)
        raw.commit()


VERSIONS: dict[str, tuple[str, ...]] = {
    "none": ("DELETE FROM alembic_version",),
    "of the future": ("UPDATE alembic_version SET version_num = '9999'",),
    "two, ours the second": (
        "DELETE FROM alembic_version",
        "INSERT INTO alembic_version VALUES ('nonsense'), ('0001')",
    ),
    "NULL": (
        "DROP TABLE alembic_version",
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES (NULL)",
    ),
    "a number": (
        "DROP TABLE alembic_version",
        "CREATE TABLE alembic_version (version_num)",
        "INSERT INTO alembic_version VALUES (1)",
    ),
    "bytes": (
        "DROP TABLE alembic_version",
        "CREATE TABLE alembic_version (version_num)",
        "INSERT INTO alembic_version VALUES (x'00ff')",
    ),
    "in another column": (
        "DROP TABLE alembic_version",
        "CREATE TABLE alembic_version (something)",
    ),
    "in a view": (
        "DROP TABLE alembic_version",
        "CREATE VIEW alembic_version AS SELECT '0001' AS version_num",
    ),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_versions(call: Caller, name: str) -> None:
    """A database that does not say which version it is of is refused, in words."""
    changed(call.database, *VERSIONS[name])
    for command, answer in answers(call):
        assert_told(answer, *((0, 2) if command == "db current" else (2,)))
        if answer.code == 2:
            assert str(call.database) in answer.err, command


def test_two_versions_of_which_ours_is_the_first(call: Caller) -> None:
    """A second version beside ours keeps nobody from working."""
    changed(call.database, "INSERT INTO alembic_version VALUES ('nonsense')")
    for _, answer in answers(call):
        assert_told(answer, 0, 2, 3)


MISSING: dict[str, tuple[str, tuple[int, ...]]] = {
    **{
        table: (f"DROP TABLE {table}", (0, 2))
        for table in ("runs", "run_events", "blocks", "alembic_version")
    },
    **{view: (f"DROP VIEW {view}", (0, 2, 3)) for view in ("progress", "failures", "stuck")},
    **{
        index: (f"DROP INDEX {index}", (0, 2, 3))
        for index in ("ix_runs_pending", "ix_runs_ready", "ix_run_events_run")
    },
    "a column": ("ALTER TABLE run_events RENAME COLUMN detail TO details", (0, 2)),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing(call: Caller, name: str) -> None:
    """A table, view, index or column that somebody has dropped is told of where it is needed."""
    statement, codes = MISSING[name]
    if statement.startswith("DROP TABLE runs"):
        changed(call.database, *(f"DROP VIEW {view}" for view in VIEWS), statement)
    else:
        changed(call.database, statement)
    for _, answer in answers(call):
        assert_told(answer, *{*codes, 3})
        if statement.startswith(("DROP VIEW", "DROP INDEX")) and answer.code == 2:
            assert "is not tracked" in answer.err


VIEWS = ("progress", "failures", "stuck", "throughput_by_hour")


@pytest.mark.parametrize("value", ["5", "1.5", "'x'"])
def test_tables_without_types(call: Caller, value: str) -> None:
    """A `runs` that somebody has made anew, without types or checks, may hold anything at all."""
    with closing(sqlite3.connect(call.database)) as raw:
        names = [row[1] for row in raw.execute("PRAGMA table_info(runs)")]
    changed(
        call.database,
        *(f"DROP VIEW {view}" for view in VIEWS),
        "DROP TABLE runs",
        f"CREATE TABLE runs ({', '.join(names)})",
        f"INSERT INTO runs VALUES ({', '.join([value] * len(names))})",  # noqa: S608 - the tests' own text
    )
    for _, answer in answers(call):
        assert_told(answer, 0, 2, 3)


# -------------------------------------------------------------------------------------- the WAL


@pytest.mark.parametrize("name", ["garbage", "zeros", "a header alone", "a folder"])
def test_write_ahead_logs(call: Caller, name: str) -> None:
    """A write-ahead log that is none is passed over, or told of."""
    for path in beside(call.database)[1:3]:
        if name == "a folder":
            path.mkdir()
        else:
            path.write_bytes(
                {
                    "garbage": NOISE,
                    "zeros": bytes(40_000),
                    "a header alone": bytes.fromhex("377f0682002de218"),
                }[name]
            )
    for _, answer in answers(call):
        assert_told(answer, 0, 2, 3)
        if answer.code == 2 and "not tracked" not in answer.err:
            assert str(call.database) in answer.err


def test_a_lock_that_is_a_folder(call: Caller) -> None:
    """Something else in the lock's place is told where a migration needs the lock."""
    beside(call.database)[3].unlink(missing_ok=True)
    beside(call.database)[3].mkdir()
    changed(call.database, "PRAGMA journal_mode=DELETE")
    answer = call("status")
    assert_told(answer, 2)
    assert f"{call.database}.lock" in answer.err


# ----------------------------------------------------------------------------------- read-only


@pytest.mark.needs("mount")
def test_a_read_only_disk(program: Program) -> None:
    """A database on a disk that may not be written to is told as such by every command."""
    with mounted(program.folder / "disk", "size=16m") as disk:
        program.env["DOWNLOADER_DATABASE"] = str(disk / "runs.sqlite3")
        assert program("submit", "1").returncode == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)  # noqa: S607 - the system's own
        for command in ("submit 2", "status", "retry 1", "db current", "run --once"):
            answer = program(*command.split())
            assert answer.returncode == 2, answer
            assert "Read-only file system" in answer.stderr
            assert "Traceback" not in answer.stderr


# -------------------------------------------------------------------------------------- damage

_PAGE: Final = 4096
_OF_THE_SCHEMA: Final = (b"CREATE", b"SELECT", b"ck_runs_")


@pytest.fixture
def worn(call: Caller) -> bytes:
    """Return the content of a database with some rows of each state."""
    with closing(Database(database_url(call.database))) as database:
        driver = Driver(database)
        driver.owner.name = "somebody"  # the same damage each time
        driver.done(*range(1, 20))
        driver.failed(*range(20, 40))
        driver.ready(*range(40, 60), expires=None)
        driver.submit(*range(60, 90))
    with closing(sqlite3.connect(call.database)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in beside(call.database)[1:]:
        path.unlink(missing_ok=True)
    return call.database.read_bytes()


def damaged(content: bytes, seed: int) -> bytes:
    """Flip bits, overwrite bytes or a page, or swap pages, of all but the schema."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    found = bytearray(content)
    pages = [
        place
        for place in range(_PAGE, len(found), _PAGE)
        if not any(word in found[place : place + _PAGE] for word in _OF_THE_SCHEMA)
    ]
    assert len(pages) > 5

    def place() -> int:
        return chance.choice(pages) + chance.randrange(_PAGE)

    match seed % 4:
        case 0:
            for _ in range(chance.randrange(1, 30)):
                found[place()] ^= 1 << chance.randrange(8)
        case 1:
            page = chance.choice(pages)
            found[page : page + _PAGE] = chance.randbytes(_PAGE)
        case 2:
            for _ in range(chance.randrange(1, 200)):
                found[place()] = chance.randrange(256)
        case _:
            here, there = chance.sample(pages, 2)
            found[here : here + _PAGE] = found[there : there + _PAGE]
    return bytes(found)


@pytest.mark.parametrize("seed", range(8))
def test_damage_within(call: Caller, worn: bytes, seed: int) -> None:
    """A database that is damaged somewhere within is worked with as far as it goes, or told of."""
    call.database.write_bytes(damaged(worn, seed))
    for _, answer in answers(call):
        assert_told(answer, 0, 2, 3)


def test_how_far_damage_reaches(call: Caller, worn: bytes) -> None:
    """The damage of these tests is met by some commands, and by others not."""
    codes = set()
    for seed in range(8, 24):
        call.database.write_bytes(damaged(worn, seed))
        for path in beside(call.database)[1:]:
            path.unlink(missing_ok=True)
        codes.add(call("status").code)
        codes.add(call("list", "--json", "--limit", "0").code)
    assert codes == {0, 2}
