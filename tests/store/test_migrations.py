from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from children import Child
from store.driving import Driver
from store.scripts import ADD_A_TABLE, NEXT, next_version

from downloader.errors import NewerDatabaseError, StoreError
from downloader.store import migrate
from downloader.store.database import Database, database_url
from downloader.store.migrate import backup, current_revision, open_database, upgrade
from downloader.store.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as raw:
        return list(raw.iterdump())


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask_0() -> Iterator[None]:
    """Let every file be as open as its maker says."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_new_database(tmp_path: Path) -> None:
    """A path where nothing is becomes a database of this version, in folders made for it."""
    path = tmp_path / "new" / "folder" / "runs.sqlite3"
    with closing(open_database(path)) as database:
        assert current_revision(database) == SCHEMA_REVISION
        assert database.in_wal_mode()
    assert sorted(p.name for p in path.parent.iterdir()) == ["runs.sqlite3", "runs.sqlite3.lock"]


@pytest.mark.parametrize("name", ['it\'s "here"', "100% [a]", "é ü 音", "a?b=1#c", ":memory:", "~"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    """A path is a path, whatever is in its name."""
    path = tmp_path / name / name
    with closing(open_database(path)) as database:
        Driver(database).submit(1)
    assert path.is_file()
    with closing(open_database(path)) as database:
        assert Driver(database).states() == {1: "pending"}


@pytest.mark.usefixtures("umask_0")
def test_only_the_owner_may_read(tmp_path: Path) -> None:
    """Database, WAL, shared memory, lock and backups are 0600 whatever the umask."""
    path = tmp_path / "folder" / "runs.sqlite3"
    with closing(open_database(path)) as database:
        driver = Driver(database)
        driver.ready(1)
        upgrade(database, next_version(tmp_path, ADD_A_TABLE))
        driver.submit(2)
        backup(database, path.with_name("of-mine"))
        modes = {file.name: _mode(file) for file in path.parent.iterdir()}
    assert len(modes) == 6
    assert {"runs.sqlite3", "runs.sqlite3-wal", "runs.sqlite3-shm", "runs.sqlite3.lock"} < set(
        modes
    )
    assert set(modes.values()) == {0o600}


STARTING_AT_ONCE = """
import sys, alembic.command, sqlalchemy.dialects.sqlite
from downloader.clock import utc_now
from downloader.store.intake import submit
from downloader.store.migrate import open_database
print("ready", flush=True)
sys.stdin.readline()
database = open_database(sys.argv[1])
print(submit(database, "text-to-sound", [int(sys.argv[2])], utc_now()).submitted)
database.close()
"""


def test_processes_that_start_at_once(tmp_path: Path) -> None:
    """Of several first starts at one moment each succeeds, from any folder, on one database."""
    path = tmp_path / "data" / "runs.sqlite3"
    processes = []
    for number in range(1, 7):
        folder = tmp_path / str(number)
        folder.mkdir()
        processes.append(
            Child(
                [sys.executable, "-c", STARTING_AT_ONCE, str(path), str(number)],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = []
    for process in processes:
        out, _ = process.communicate(timeout=60)
        said.append((process.returncode, out.splitlines()[-1]))
    assert said == [(0, "1")] * 6
    with closing(open_database(path)) as database:
        assert Driver(database).states() == dict.fromkeys(range(1, 7), "pending")
        assert Driver(database).query("SELECT count(*) FROM alembic_version") == [(1,)]
    assert {p.name for p in path.parent.iterdir()} == {"runs.sqlite3", "runs.sqlite3.lock"}


def test_one_migrates_at_a_time(database: Database) -> None:
    """While one process migrates, the lock keeps every other out; afterwards it is free."""
    path = database.path.with_name(database.path.name + ".lock")
    with database.migrating(), path.open("r+b") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_first_start_beside_a_reader(tmp_path: Path) -> None:
    """A start waits for whoever looks into the still empty file, and then succeeds."""
    path = tmp_path / "runs.sqlite3"
    path.touch()
    other = (
        "import sqlite3, sys\n"
        "raw = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "raw.execute('BEGIN'); raw.execute('SELECT * FROM sqlite_master').fetchall()\n"
        "print('reading', flush=True)\n"
        "__import__('threading').Event().wait(0.2)\n"
    )
    with Child(
        [sys.executable, "-c", other, str(path)], stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        with closing(open_database(path)) as database:
            assert current_revision(database) == SCHEMA_REVISION


def test_a_backup_comes_before_a_migration(driver: Driver, tmp_path: Path) -> None:
    """Before rows are migrated they are in a whole copy beside the database, for its owner."""
    database = driver.database
    driver.one_of_each_state()
    before = _dump(database.path)
    saved = upgrade(database, next_version(tmp_path, ADD_A_TABLE))
    assert saved is not None
    assert saved.parent == database.path.parent
    assert saved.name.startswith(f"runs.sqlite3.backup-{SCHEMA_REVISION}-")
    assert _mode(saved) == 0o600
    assert _dump(saved) == before
    with closing(sqlite3.connect(saved)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert current_revision(database) == NEXT
    assert driver.query("SELECT count(*) FROM of_the_future") == [(0,)]
    assert len(driver.states()) == 6
    left = [p.name for p in tmp_path.iterdir() if ".part" in p.name]
    assert left == []


def test_no_backup_where_nothing_can_be_lost(tmp_path: Path) -> None:
    """A database that is new, or up to date, is not backed up."""
    with closing(open_database(tmp_path / "runs.sqlite3")) as database:
        assert upgrade(database) is None
    assert list(tmp_path.glob("*backup*")) == []


def test_a_backup_may_not_be_possible(driver: Driver, tmp_path: Path) -> None:
    """Where the backup cannot be written nothing is migrated."""
    scripts = next_version(tmp_path, ADD_A_TABLE)
    with pytest.MonkeyPatch.context() as patched:

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(os, "link", full)
        with pytest.raises(StoreError, match=r"backup .* cannot be written: No space left"):
            upgrade(driver.database, scripts)
    assert current_revision(driver.database) == SCHEMA_REVISION
    assert list(tmp_path.glob("*backup*")) == []
    assert upgrade(driver.database, scripts) is not None


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("op.execute('INSERT INTO nowhere VALUES (1)')", "no such table: nowhere"),
        ("raise ValueError('a slip in a script')", "a slip in a script"),
        ("op.execute('UPDATE runs SET state = 0')", "CHECK constraint failed"),
    ],
)
def test_a_migration_that_fails(driver: Driver, tmp_path: Path, failure: str, said: str) -> None:
    """A failing migration leaves the database as it was, says why, and where the backup is."""
    driver.one_of_each_state()
    before = _dump(driver.database.path)
    scripts = next_version(tmp_path, ADD_A_TABLE, "op.execute('DELETE FROM run_events')", failure)
    for attempt in (1, 2):  # a second start finds no worse than the first did
        with pytest.raises(StoreError, match=said) as caught:
            upgrade(driver.database, scripts)
        named = re.search(r"A backup from before is (\S+)\.$", str(caught.value))
        assert named is not None
        saved = driver.database.path.with_name(named[1].rpartition("/")[2])
        assert saved.is_file()
        assert len(list(tmp_path.glob("*backup*"))) == attempt
        assert _dump(saved) == before
    assert _dump(driver.database.path) == before
    driver.submit(7)
    with pytest.raises(StoreError, match="FOREIGN KEY"):  # switched on again
        driver.execute("DELETE FROM runs WHERE run_id = 7")


def test_a_migration_that_loses_runs_of_events(driver: Driver, tmp_path: Path) -> None:
    """Events left without their run are noticed, and the person is sent to the backup."""
    driver.done(1)
    scripts = next_version(tmp_path, "op.execute('DELETE FROM runs')")
    with pytest.raises(StoreError, match=r"left rows of run_events without their run.*backup"):
        upgrade(driver.database, scripts)
    assert len(list(tmp_path.glob("*backup*"))) == 1


def test_a_migration_that_rebuilds_the_runs_keeps_their_history(
    driver: Driver, tmp_path: Path
) -> None:
    """A batch migration that copies `runs` loses neither rows nor events."""
    driver.one_of_each_state()
    events = driver.query("SELECT * FROM run_events")
    rebuild = [
        "query = \"SELECT name, sql FROM sqlite_master WHERE type = 'view'\"",
        "views = op.get_bind().exec_driver_sql(query).all()",
        "[op.execute(f'DROP VIEW {name}') for name, _ in views]",
        # Alembic does not see an index on an expression.
        "op.execute('DROP INDEX ix_runs_pending')",
        "with op.batch_alter_table('runs', recreate='always') as batch:",
        "    batch.add_column(sa.Column('note', sa.Text))",
        "[op.execute(sql) for _, sql in views]",
    ]
    upgrade(driver.database, next_version(tmp_path, *rebuild))
    assert driver.query("SELECT * FROM run_events") == events
    assert driver.query("SELECT count(*), count(note) FROM runs") == [(6, 0)]


def test_a_newer_database_is_refused(driver: Driver, tmp_path: Path) -> None:
    """A database of a newer version is refused in words, and not changed."""
    upgrade(driver.database, next_version(tmp_path, ADD_A_TABLE))
    driver.database.close()
    before = driver.database.path.read_bytes()
    with pytest.raises(
        NewerDatabaseError, match=rf"newer version .* 9999, .* knows {SCHEMA_REVISION}"
    ):
        open_database(driver.database.path)
    assert driver.database.path.read_bytes() == before


@pytest.mark.parametrize(
    "tables",
    [
        ["moz_places"],
        ["runs"],
        ["alembic_version", "users"],
        ["alembic_version", "runs", "experiments"],
    ],
)
def test_a_database_of_another_program(tmp_path: Path, tables: list[str]) -> None:
    """Another program's database is refused, and not a byte of it changes."""
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as raw:
        for table in tables:
            raw.execute(f"CREATE TABLE {table} (version_num TEXT)")
        if "alembic_version" in tables:
            raw.execute("INSERT INTO alembic_version VALUES ('abc')")
        raw.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="belongs to another program"):
        open_database(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["other.sqlite3"]


def test_only_the_version_table_of_another_program(tmp_path: Path) -> None:
    """A database with an unknown revision and nothing else is not taken for an empty one."""
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num TEXT)")
        raw.execute("INSERT INTO alembic_version VALUES ('abc')")
        raw.commit()
    before = path.read_bytes()
    with pytest.raises(NewerDatabaseError):
        open_database(path)
    assert path.read_bytes() == before


def test_a_copy_without_wal_gets_it_back(database: Database, tmp_path: Path) -> None:
    """A database restored in another journal mode lets people read beside the program again."""
    copy = tmp_path / "copy.sqlite3"
    with closing(sqlite3.connect(database.path)) as raw:
        raw.execute("VACUUM INTO ?", (str(copy),))
    with closing(Database(database_url(copy))) as plain:
        assert not plain.in_wal_mode()
    with closing(open_database(copy)) as opened:
        assert opened.in_wal_mode()


def test_the_scripts_come_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package brings its scripts inside; a checkout has them beside the package."""
    assert (migrate.migrations_folder() / "env.py").is_file()
    package = tmp_path / "site-packages" / "downloader"
    monkeypatch.setattr(migrate, "_PACKAGE", package)
    assert migrate.migrations_folder() == tmp_path / "site-packages" / "migrations"
    (package / "migrations").mkdir(parents=True)
    assert migrate.migrations_folder() == package / "migrations"


def test_a_backup_of_a_database_in_use(driver: Driver, tmp_path: Path) -> None:
    """A backup made beside a writer holds what was committed, whole, and the writer goes on."""
    driver.submit(1, 2)
    target = tmp_path / "copy.sqlite3"
    with driver.database.write() as connection:
        connection.exec_driver_sql("UPDATE runs SET polls = 7")
        backup(driver.database, target)
    with closing(open_database(target)) as copy:
        assert Driver(copy).query("SELECT run_id, polls FROM runs") == [(1, 0), (2, 0)]
    assert driver.query("SELECT DISTINCT polls FROM runs") == [(7,)]


def test_a_backup_overwrites_nothing(driver: Driver, tmp_path: Path) -> None:
    """A file that is there already is left alone."""
    target = tmp_path / "precious"
    target.write_text("of mine", encoding="utf-8")
    with pytest.raises(StoreError, match="exists already"):
        backup(driver.database, target)
    assert target.read_text(encoding="utf-8") == "of mine"


@pytest.mark.parametrize("where", ["no/such/folder/copy", "file/copy"])
def test_a_backup_that_has_no_place(driver: Driver, tmp_path: Path, where: str) -> None:
    """A backup that cannot be written says so, and leaves nothing behind."""
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StoreError, match="cannot be written"):
        backup(driver.database, tmp_path / where)
    assert sorted(tmp_path.iterdir()) == before


def test_the_error_carries_no_parameters(driver: Driver, tmp_path: Path) -> None:
    """What a failing statement was given stays out of the error: it could be a signed URL."""
    secret = "https://s/1?X-Amz-Signature=abc"
    insert = "sql = 'INSERT INTO runs (url) VALUES (?)'"
    execute = f"op.get_bind().exec_driver_sql(sql, ({secret!r},))"
    with pytest.raises(StoreError) as caught:
        upgrade(driver.database, next_version(tmp_path, insert, execute))
    texts = [str(caught.value), repr(caught.value), str(caught.value.__cause__)]
    assert "Signature" not in json.dumps(texts)
