from __future__ import annotations

import errno
import os
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from store.driving import Driver, at

from downloader.errors import ConfigurationError, StoreError
from downloader.store import database as module
from downloader.store import intake
from downloader.store.database import Database, database_url, default_database
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def impatient(database_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Drive a database whose writers give up at once."""
    monkeypatch.setattr(module, "BUSY_TIMEOUT_SECONDS", 0.0)
    with closing(Database(database_url(database_file))) as opened:
        yield Driver(opened)


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("/data/runs.db", "/data/runs.db"),
        ("sqlite:////data/runs.db", "/data/runs.db"),
        ("sqlite+pysqlite:////data/runs.db?timeout=5", "/data/runs.db"),
    ],
)
def test_how_a_database_is_named(named: str, path: str) -> None:
    """A database is named by a path or by an SQLite URL."""
    assert database_url(named) == sa.URL.create("sqlite", database=path)


def test_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path counts from the current folder, one with ~ from the person's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert database_url("a.db").database == str(tmp_path / "a.db")
    assert database_url("sqlite:///a.db").database == str(tmp_path / "a.db")
    assert database_url("~/a.db").database == str(tmp_path / "home" / "a.db")


def test_the_default_is_in_the_persons_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody needs to name a database."""
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    found = default_database()
    assert found.name == "downloader.sqlite3"
    assert found.is_relative_to("/home/somebody")
    assert database_url(None).database == str(found)


@pytest.mark.parametrize(
    "named",
    [
        "postgresql://me:secret@db/runs",
        "mysql+pymysql://me:secret@db/runs",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:a.db?uri=true&p=secret",
        "nosuch://me:secret@host/db",
        "postgresql://me:secret@host:port/db",
        "://secret",
    ],
)
def test_a_name_that_will_not_do(named: str) -> None:
    """Another kind of database than an SQLite file is refused, without showing the password."""
    with pytest.raises(ConfigurationError) as caught:
        database_url(named)
    assert "secret" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("content", [b"not a database" * 100, b"\0" * 5000, b"<html>"])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    """A file of another kind is refused, and not a byte of it changes."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="file is not a database"):
        open_database(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("where", ["", "file/runs.sqlite3", "a\0b"])
def test_a_path_where_no_file_can_be(tmp_path: Path, where: str) -> None:
    """A folder, a path through a file and a null byte are refused, with advice."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be opened: .*Check the path"):
        open_database(tmp_path / where)


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing permissions are told as such (root has them all, so the refusal is played)."""

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        open_database(tmp_path / "runs.sqlite3")


def test_a_damaged_database(driver: Driver, tmp_path: Path) -> None:
    """Damage inside the file is told in words."""
    driver.submit(*range(1, 2000))
    driver.database.close()
    content = bytearray(driver.database.path.read_bytes())
    content[4096 * 2 :] = os.urandom(len(content) - 4096 * 2)
    path = tmp_path / "damaged.sqlite3"
    path.write_bytes(content)
    with (
        pytest.raises(StoreError, match=r"malformed|not a database|corrupt"),
        closing(open_database(path)) as opened,
    ):
        Driver(opened).query("SELECT count(*) FROM run_events WHERE reason <> 'x'")


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite without strict tables is refused before anything is made."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(StoreError, match=r"too old: 3\.37"):
        open_database(tmp_path / "runs.sqlite3")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_waits_in_vain(impatient: Driver) -> None:
    """Where another program holds the database the person is told to find it."""
    with closing(sqlite3.connect(impatient.database.path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"database is locked\. Another program has held"):
            impatient.execute("UPDATE runs SET polls = 1")


def test_readers_and_a_writer_go_beside_each_other(impatient: Driver) -> None:
    """A person's long query and the program's writes do not wait for each other."""
    impatient.submit(1)
    with closing(sqlite3.connect(impatient.database.path, isolation_level=None)) as shell:
        shell.execute("BEGIN")
        assert shell.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]
        impatient.submit(2)
        assert shell.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]
        shell.execute("COMMIT")
        shell.execute("BEGIN IMMEDIATE")
        assert impatient.states() == {1: "pending", 2: "pending"}


def test_writers_take_turns(driver: Driver) -> None:
    """A writer that read first is not thrown out by another: it began as a writer."""
    driver.submit(1)

    def add() -> None:
        for _ in range(50):
            with driver.database.write() as connection:
                polls = connection.exec_driver_sql("SELECT polls FROM runs").scalar()
                connection.exec_driver_sql("UPDATE runs SET polls = ?", ((polls or 0) + 1,))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert driver.row(1)["polls"] == 200


def test_an_error_undoes_the_transaction(driver: Driver) -> None:
    """A transaction that an error ends has changed nothing."""
    driver.submit(1)

    def change_and_fail() -> None:
        with driver.database.write() as connection:
            connection.exec_driver_sql("UPDATE runs SET polls = 9")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    assert driver.row(1)["polls"] == 0


def test_what_a_connection_is_set_to(driver: Driver) -> None:
    """Foreign keys are enforced, and commits sync as much as the transaction asks for."""
    pragmas = "SELECT foreign_keys, synchronous FROM pragma_foreign_keys, pragma_synchronous"
    normal, full = 1, 2
    with driver.database.read() as connection:
        assert connection.exec_driver_sql(pragmas).one() == (1, normal)
    with driver.database.write(durable=True) as connection:
        assert connection.exec_driver_sql(pragmas).one() == (1, full)
    with pytest.raises(ZeroDivisionError), driver.database.write(durable=True):
        raise ZeroDivisionError
    with driver.database.write() as connection:  # the connection of before, from the pool
        assert connection.exec_driver_sql(pragmas).one() == (1, normal)


def test_an_error_shows_no_parameters(driver: Driver) -> None:
    """A statement's values stay out of errors: a signed URL is one of them."""
    with pytest.raises(StoreError) as caught:
        driver.execute("INSERT INTO runs (run_id, url) VALUES (?, ?)", 1, "https://s/?sig=abc")
    assert "abc" not in f"{caught.value} {caught.value.__cause__}"


def test_submitting_asks_for_nothing_once_it_is_recorded(impatient: Driver) -> None:
    """A writer that comes right after the commit does not make a recorded submit fail."""
    with closing(sqlite3.connect(impatient.database.path, isolation_level=None)) as shell:

        def hold(_connection: sa.Connection) -> None:
            recorded = shell.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]
            if recorded and not shell.in_transaction:
                shell.execute("BEGIN IMMEDIATE")

        sa.event.listen(impatient.database.engine, "begin", hold, insert=True)
        found = intake.submit(impatient.database, "tts", [1], at(0))
        assert shell.in_transaction
    assert found == (1, 0)
