from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from children import Child
from harness import wait_until
from store.driving import START

from downloader.clock import utc_now
from downloader.diagnosis import databases
from downloader.store import checkup
from downloader.store.migrate import open_database
from downloader.store.schema import SCHEMA_REVISION, to_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli.calling import Caller
    from diagnosis.conftest import Doctor
    from harness import Program, StartSimulator
    from store.driving import Driver


@pytest.fixture(autouse=True)
def _asked_api(call: Caller, start_simulator: StartSimulator) -> None:
    """Have an API that is well."""
    call.set(DOWNLOADER_API_URL=start_simulator().api_url)


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database as another program does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what is in a folder, with sizes and times of change."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }


@pytest.mark.parametrize("arguments", [[], ["--quick"]])
def test_nothing_is_made(call: Caller, doctor: Doctor, arguments: list[str]) -> None:
    """A database and a folder that are not there are not made: it is told that they will be."""
    call.database.unlink()
    call.set(DOWNLOADER_DATABASE=str(call.folder / "new" / "runs.sqlite3"))
    before = tree(call.folder)
    found = doctor(*arguments)
    assert found.statuses == {}
    assert "will create it" in found.finding("database")
    assert "will be created" in found.finding("output")
    assert tree(call.folder) == before
    assert "schema" not in found.checks


def test_a_database_that_cannot_be_made(call: Caller, doctor: Doctor) -> None:
    """Where the folder above is a file, neither database nor output can be made."""
    (call.folder / "file").write_bytes(b"")
    for arguments in ([], ["--quick"]):
        found = doctor("--database", call.folder / "file" / "new" / "runs.sqlite3", *arguments)
        assert found.statuses == {"database": "problem", "output": "problem"}
        assert "file is not a folder" in found.finding("database")


def test_a_database_that_is_well(call: Caller, doctor: Doctor) -> None:
    """A current database is told to be writable, current, whole and its owner's alone."""
    found = doctor()
    assert found.statuses == {}
    assert f"{call.database} can be read and written; in WAL mode" in found.finding("database")
    assert SCHEMA_REVISION in found.finding("schema")
    assert "nothing wrong" in found.finding("integrity")


def test_a_quick_look_changes_nothing(call: Caller, doctor: Doctor) -> None:
    """A quick look writes nothing, and leaves nothing beside the database."""
    (call.folder / "audio").mkdir()
    before = tree(call.folder)
    found = doctor("--quick")
    assert found.statuses == {}
    assert tree(call.folder) == before
    assert set(found.checks) == {
        "database",
        "schema",
        "database_access",
        "blocks",
        "service",
        "database_disk",
        "output",
        "output_disk",
    }


def test_a_database_of_a_newer_version(call: Caller, doctor: Doctor) -> None:
    """A newer schema is a problem, and nothing of it is read."""
    with raw(call.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for arguments in ([], ["--quick"]):
        found = doctor(*arguments)
        assert found.statuses == {"schema": "problem"}
        assert "9999" in found.finding("schema")
        assert "blocks" not in found.checks


def test_a_database_of_an_older_version(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older schema is no problem: the next command brings it up to date."""
    monkeypatch.setattr(databases, "SCHEMA_REVISION", "9999")
    found = doctor()
    assert found.statuses == {}
    assert "brings it to 9999, after a backup" in found.finding("schema")


def test_a_file_of_no_bytes(call: Caller, doctor: Doctor) -> None:
    """An empty file is a database that has yet to be made."""
    call.database.unlink()
    call.database.touch(0o600)
    found = doctor()
    assert found.statuses == {}
    assert "none yet" in found.finding("schema")
    assert "not yet in WAL mode" in found.finding("database")


@pytest.mark.parametrize("kind", ["of another program", "text", "folder", "link to nothing"])
def test_what_is_no_database_of_ours(call: Caller, doctor: Doctor, kind: str) -> None:
    """What cannot be used as a database is told in one problem, with what to do."""
    path = call.folder / "other"
    if kind == "of another program":
        with raw(path) as connection:
            connection.execute("CREATE TABLE photos (a)")
        path.chmod(0o600)
    elif kind == "text":
        path.write_text("no database\n" * 100)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(call.folder / "nothing")
    for arguments in ([], ["--quick"]):
        found = doctor("--database", path, *arguments)
        assert found.statuses == {"database": "problem"}
        assert "--database" in found.finding("database")


def test_a_damaged_database(call: Caller, driver: Driver, doctor: Doctor) -> None:
    """Damage within the file is found, though the file can be opened."""
    driver.submit(*range(1, 3000))
    with raw(call.database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    driver.database.close()
    size = call.database.stat().st_size
    with call.database.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xa5" * (size // 4))
    found = doctor()
    assert found.statuses["integrity"] == "problem"
    assert "backup" in found.finding("integrity")


def test_a_database_too_large_to_be_checked(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of a large database is left out, and one that takes long is ended: both told."""
    monkeypatch.setattr(checkup, "_CHECK_BYTES", 1000)
    found = doctor()
    assert found.statuses == {}
    assert "not checked" in found.finding("integrity")
    monkeypatch.setattr(checkup, "_CHECK_BYTES", 10**9)
    monkeypatch.setattr(checkup, "_CHECK_SECONDS", -1.0)
    monkeypatch.setattr(checkup, "_CHECK_STEPS", 1)
    found = doctor()
    assert found.statuses == {}
    assert "PRAGMA integrity_check" in found.finding("integrity")


def test_a_database_that_another_program_keeps(
    call: Caller, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that another program holds is waited for a moment, and is a warning."""
    monkeypatch.setattr("downloader.store.database._LOOKING_SECONDS", 0.1)
    with raw(call.database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        found = doctor("--quick")
        connection.execute("ROLLBACK")
    assert found.statuses == {"database": "warning"}
    assert "locked" in found.finding("database")


def test_an_sqlite_without_json(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite without the functions that statements need is a problem, told in clear."""
    monkeypatch.setattr(checkup, "_USES_JSON", "SELECT count(*) FROM no_such_each('[1]')")
    for arguments in ([], ["--quick"]):
        found = doctor(*arguments)
        assert found.statuses == {"database": "problem"}
        assert "json_each" in found.finding("database")


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ((3, 37, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_which_sqlite_has_the_reset_bug(version: tuple[int, int, int], has: bool) -> None:  # noqa: FBT001 - of the table
    """The bug went with 3.51.3, and in two older series with a patch."""
    assert checkup.has_reset_bug(version) is has


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists locks")
@pytest.mark.parametrize("buggy", [True, False])
def test_another_program_beside(
    call: Caller, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, *, buggy: bool
) -> None:
    """With an SQLite that has the bug, another program that has the database open is named."""
    monkeypatch.setattr(checkup, "has_reset_bug", lambda: buggy)
    found = doctor()
    assert found.statuses == {}
    assert ("which this program avoids" in found.finding("sqlite")) is buggy
    code = (
        "import sqlite3, sys\n"
        "opened = sqlite3.connect(sys.argv[1])\n"
        "opened.execute('SELECT count(*) FROM runs').fetchall()\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(call.database), "5ec2e7word"]
    with Child[bytes](command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        found = doctor()
        other.stdin.close()
    assert found.statuses == ({"sqlite": "warning"} if buggy else {})
    if buggy:
        assert f"(pid {other.pid})" in found.finding("sqlite")
    assert "5ec2e7word" not in str(found.checks)


def test_files_that_others_may_open(call: Caller, doctor: Doctor) -> None:
    """A database that others may read is warned of, for there are URLs in it."""
    call.database.chmod(0o640)
    found = doctor()
    assert found.statuses == {"database_access": "warning"}
    assert "runs.sqlite3" in found.finding("database_access")
    assert "chmod 600" in found.finding("database_access")


def test_a_database_of_another_user(
    call: Caller, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database of somebody else is warned of, to root too."""
    owner = call.database.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    found = doctor()
    assert found.statuses == {"database_access": "warning"}
    assert f"uid {owner}" in found.finding("database_access")


def test_what_is_blocked(call: Caller, doctor: Doctor, start_simulator: StartSimulator) -> None:
    """What has stopped the service is a warning, in one line, with since when and until when."""
    call("submit", "1", "2")
    simulator = start_simulator(api_key="another")
    assert call("run", "--once", "--api-url", simulator.api_url).code == 3
    found = doctor("--quick")
    assert (found.code, found.statuses) == (0, {"blocks": "warning"})
    assert "key_refused" in found.finding("blocks")
    assert to_text(utc_now())[:10] in found.finding("blocks")
    assert "\n" not in found.finding("blocks")


def test_a_claim_that_nobody_takes_back(driver: Driver, doctor: Doctor) -> None:
    """A claim that ran out minutes ago says that no service works: a quick look fails by it."""
    driver.downloading(1, seconds=(utc_now() - START).total_seconds())
    assert "at work" in doctor("--quick").finding("service")
    ran_out = to_text(utc_now() - timedelta(seconds=90))
    driver.execute("UPDATE runs SET lease_expires_at = ?", ran_out)
    assert doctor("--quick").statuses == {}
    ran_out = to_text(utc_now() - timedelta(seconds=150))
    driver.execute("UPDATE runs SET lease_expires_at = ?", ran_out)
    found = doctor("--quick")
    assert (found.code, found.statuses) == (1, {"service": "problem"})
    assert ran_out[:16] in found.finding("service")
    assert doctor().statuses.get("service") == "warning"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists locks")
def test_a_service_that_is_idle(program: Program, start_simulator: StartSimulator) -> None:
    """A `downloader run` with nothing to do is seen by the database that it has open."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    open_database(program.database).close()

    def service() -> str:
        found = json.loads(program("doctor", "--quick", "--json").stdout)
        [said] = [one["finding"] for one in found["checks"] if one["name"] == "service"]
        return str(said)

    assert "no `downloader run` is seen" in service()
    with program.start("run") as process:
        wait_until(lambda: f"pid {process.pid}" in service(), process)
        process.send_signal(signal.SIGTERM)
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists locks")
def test_nobody_is_at_work(doctor: Doctor, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that have been due for long while nobody has the database open make a warning."""
    monkeypatch.setattr(databases, "FORGOTTEN", timedelta(minutes=15))
    now = (utc_now() - START).total_seconds()
    driver.submit(1, seconds=now - 5 * 60)
    assert doctor("--quick").statuses == {}
    driver.submit(2, seconds=now - 20 * 60)
    found = doctor("--quick")
    assert (found.code, found.statuses) == (0, {"service": "warning"})
    assert "nobody is at work: runs have been due since " in found.finding("service")


def test_no_list_of_locks(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the system lists no locks nothing is concluded from that."""
    monkeypatch.setattr("downloader.diagnosis.processes._PROC", tmp_path / "none")
    found = doctor("--quick")
    assert found.statuses == {}
    assert found.finding("service").startswith("not known: no transfer is claimed >")


def test_a_check_that_fails_itself(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw ends the checks of its kind alone, and shows no secret."""

    def fail(_path: Path) -> None:
        raise ZeroDivisionError("https://s.example/?X-Amz-Signature=5ec2e7")

    monkeypatch.setattr(databases, "holders_of", fail)
    found = doctor("--quick")
    assert "output_disk" in found.checks
    assert found.statuses == {"database_checks": "problem"}
    assert "ZeroDivisionError" in found.finding("database_checks")
    assert "5ec2e7" not in str(found.checks)


def test_a_large_log_stays(call: Caller, driver: Driver, doctor: Doctor) -> None:
    """The log beside a database in use is left as it is."""
    driver.submit(*range(1, 2000))
    log = call.database.with_name("runs.sqlite3-wal")
    size = log.stat().st_size
    assert size > 0
    assert doctor().statuses == {}
    assert log.stat().st_size == size


def test_the_lock_of_migrations_is_left_alone(call: Caller, doctor: Doctor) -> None:
    """A migration under way does not hold the doctor up."""
    lock = call.database.with_name("runs.sqlite3.lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert doctor().statuses == {}
