"""What is left of a URL in the database's files once `runs.url` holds it no more.

A row that shrinks leaves its old bytes in the page, and a commit leaves the page in the write-ahead
log. SQLite overwrites what it frees (`secure_delete`), but for the gaps of a page that it builds
anew: so a stray signature in a thousand may survive in the file, which its owner alone can read.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from spilling import files_of, issued_in, secrets_of

from downloader.store.migrate import backup, open_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Program, Service, StartSimulator
    from spilling import Secrets

    from downloader.simulator.server import Simulator

RUNS = 120


def left_in(secrets: Secrets, path: Path) -> int:
    """Return how many of the signatures issued are in a file."""
    raw = path.read_bytes()
    signatures = {signature for url in secrets.urls for signature in secrets_of(url)}
    return sum(signature.encode() in raw for signature in signatures)


def test_a_closed_database(
    watched: StartSimulator,
    keyed_service: Callable[[Simulator], Service],
    secrets: Secrets,
    tmp_path: Path,
) -> None:
    """When all is saved and closed, the file and a backup of it have (almost) no signature left."""
    fault = {"kind": "url-lifetime", "seconds": -1}
    simulator = watched(rules=[{"runs": {"modulo": 5}, "where": "api", "fault": fault, "times": 1}])
    service = keyed_service(simulator)
    service.submit(*range(1, RUNS + 1))
    assert service.run().tally.done == RUNS
    assert len(secrets.urls) > RUNS
    path = service.database.path
    assert issued_in(path) == []
    service.database.close()
    assert [one.name for one in files_of(path)] == ["runs.sqlite3", "runs.sqlite3.lock"]
    with contextlib.closing(open_database(path)) as opened:
        backup(opened, tmp_path / "backup.sqlite3")
    for one in (path, tmp_path / "backup.sqlite3"):
        assert left_in(secrets, one) <= len(secrets.urls) // 50, one


def test_the_log_of_an_open_database(
    watched: StartSimulator, keyed_service: Callable[[Simulator], Service], secrets: Secrets
) -> None:
    """The write-ahead log has what was committed through it, until it is emptied."""
    service = keyed_service(watched())
    service.submit(1, 2, 3)
    assert service.run().tally.done == 3
    log = service.database.path.with_name("runs.sqlite3-wal")
    assert left_in(secrets, log) == 3
    assert service.database.empty_log()
    assert log.stat().st_size == 0


def test_the_log_of_a_killed_program(
    keyed_program: Program, watched: StartSimulator, secrets: Secrets
) -> None:
    """A program that was killed leaves its log behind; the next call, whatever it is, clears it."""
    program = keyed_program
    program.env["DOWNLOADER_API_URL"] = watched().api_url
    program.env["DOWNLOADER_LEASE"] = "1"
    program.env["DOWNLOADER_FAILPOINTS"] = "record.committed=kill"
    assert program("submit", "1", "2", "3").returncode == 0
    assert program("run", "--drain").returncode == -signal.SIGKILL
    log = program.database.with_name("runs.sqlite3-wal")
    assert left_in(secrets, log) > 0
    del program.env["DOWNLOADER_FAILPOINTS"]
    assert program("run", "--drain").returncode == 0
    assert not log.exists()
    assert left_in(secrets, program.database) == 0
    assert program.query("SELECT count(*) FROM runs WHERE state = 'done'") == [(3,)]


def test_every_connection_overwrites_what_it_frees(tmp_path: Path) -> None:
    """Readers' and writers' connections overwrite what is freed, whatever SQLite's default is."""
    with contextlib.closing(open_database(tmp_path / "runs.sqlite3")) as opened:
        for transaction in (opened.read, opened.write):
            with transaction() as connection:
                assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
