"""The wall clock is set, or the machine was suspended: nothing is lost, doubled, or in a hurry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from children import Child
from harness import wait_until

from downloader.camb.run_types import DEFAULT_RUN_TYPE, RUN_TYPES
from downloader.clock import utc_now
from downloader.rules.states import RunKey
from downloader.store import leases, polling
from downloader.store.intake import submit
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from pathlib import Path

    from harness import MakeService, Program, StartSimulator

HOUR = 3600.0

_WITH_A_CLOCK = """
import pathlib, sys, time
from downloader import clock

path = pathlib.Path(sys.argv.pop(1))
clock._wall = lambda: time.time() + float(path.read_text() or 0)
from downloader.cli.main import main

main()
"""


class Clock:
    """The wall clock of the processes that are started with it."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._path = program.folder / "clock"
        self.set(0)

    def set(self, seconds: float) -> None:
        """Set it to so many seconds from the true time, at once and for all of them."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._path)

    def start(self, *arguments: str, log: Path | None = None) -> subprocess.Popen[str]:
        """Start the program under this clock."""
        with (log or self._program.folder / "log").open("w") as stream:
            return Child(
                [sys.executable, "-c", _WITH_A_CLOCK, str(self._path), *arguments],
                env=self._program.environment(),
                cwd=self._program.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                text=True,
            )


@pytest.fixture
def clock(program: Program) -> Clock:
    """Give the program a clock that can be set."""
    return Clock(program)


def stop(*processes: subprocess.Popen[str]) -> None:
    """End daemons in peace."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_clock_that_is_set_during_transfers(
    program: Program, clock: Clock, start_simulator: StartSimulator, step: float
) -> None:
    """Two daemons go on with what they do: each file is fetched once, no lease is taken away."""
    simulator = start_simulator(min_size=900_000, max_size=1_000_000, bandwidth=400_000.0)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 13))
    logs = [program.folder / "one.log", program.folder / "two.log"]
    daemons = [
        clock.start("run", "--concurrency", "4", "--lease", "3s", "--min-free", "0", log=log)
        for log in logs
    ]
    wait_until(lambda: program.status()["runs"]["downloading"] >= 6, *daemons)
    clock.set(step)
    wait_until(lambda: program.status()["runs"]["done"] == 12, *daemons)
    stop(*daemons)
    program.assert_saved(simulator, range(1, 13))
    assert simulator.stats()["storage"]["requests"] == 12
    assert program.query("SELECT count(*) FROM run_events WHERE reason = 'lease_ran_out'") == [(0,)]
    [(attempts, refreshes)] = program.query("SELECT max(attempts), max(refreshes) FROM runs")
    # A URL that waited for a worker may look expired after a step forward, and is asked for anew.
    assert (attempts, refreshes) in ((1, 0), (1, 1 if step > 0 else 0))
    assert all("clock.set" in log.read_text() for log in logs)


def test_a_clock_that_is_set_back_while_runs_wait(
    program: Program, clock: Clock, start_simulator: StartSimulator
) -> None:
    """Runs that waited for a time that is now an hour off are asked for in their own time."""
    pending = {"runs": "*", "where": "api", "fault": {"kind": "pending"}}
    simulator = start_simulator(rules=[pending])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 21))
    clock.set(HOUR)
    daemon = clock.start("run", "--min-poll", "1s", "--max-poll", "2s", "--min-free", "0")
    wait_until(lambda: program.query("SELECT min(polls) FROM runs")[0][0] >= 1, daemon)
    clock.set(0)
    asked = simulator.stats()["api"]["requests"]
    wait_until(lambda: program.query("SELECT min(polls) FROM runs")[0][0] >= 3, daemon)
    # Four requests serve all of them: in the time that two more rounds take there is no spinning.
    assert simulator.stats()["api"]["requests"] - asked <= 4 * 5
    simulator.set_rules([])
    wait_until(lambda: program.status()["runs"]["done"] == 20, daemon)
    stop(daemon)
    program.assert_saved(simulator, range(1, 21))


def test_a_dead_lease_of_the_future(
    program: Program, clock: Clock, start_simulator: StartSimulator
) -> None:
    """What a killed process held is free in a lease's time, also if the clock is set back."""
    simulator = start_simulator(min_size=900_000, max_size=1_000_000, bandwidth=200_000.0)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 5))
    clock.set(HOUR)
    killed = clock.start("run", "--lease", "3s", "--min-free", "0")
    wait_until(lambda: program.status()["runs"]["downloading"] == 4, killed)
    killed.kill()
    killed.wait()
    clock.set(0)
    simulator.set_options(type(simulator.options)(min_size=900_000, max_size=1_000_000))
    drain = clock.start("run", "--drain", "--lease", "3s", "--min-free", "0")
    assert drain.wait(timeout=120) == 0, (program.folder / "log").read_text()
    program.assert_saved(simulator, range(1, 5))


def test_a_suspended_machine(
    program: Program, clock: Clock, start_simulator: StartSimulator
) -> None:
    """After a sleep of hours a daemon goes on, and what it held is still its own."""
    simulator = start_simulator(min_size=900_000, max_size=1_000_000, bandwidth=300_000.0)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 9))
    daemon = clock.start("run", "--concurrency", "4", "--lease", "3s", "--min-free", "0")
    wait_until(lambda: program.status()["runs"]["downloading"] == 4, daemon)
    os.kill(daemon.pid, signal.SIGSTOP)
    clock.set(8 * HOUR)
    os.kill(daemon.pid, signal.SIGCONT)
    wait_until(lambda: program.status()["runs"]["done"] == 8, daemon)
    stop(daemon)
    program.assert_saved(simulator, range(1, 9))
    assert simulator.stats()["storage"]["requests"] == 8


@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR])
def test_a_wrong_clock_against_expiry(
    program: Program, clock: Clock, start_simulator: StartSimulator, wrong_by: float
) -> None:
    """URLs that live a minute are used under a clock that is wrong: the server's counts."""
    simulator = start_simulator(url_lifetime=60)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 21))
    clock.set(wrong_by)
    drain = clock.start("run", "--drain", "--min-free", "0")
    assert drain.wait(timeout=120) == 0
    program.assert_saved(simulator, range(1, 21))
    assert program.query("SELECT max(attempts), max(refreshes) FROM runs") == [(1, 0)]
    assert simulator.stats()["api"]["requests"] == 4


def test_summer_time(program: Program, start_simulator: StartSimulator) -> None:
    """The zone of the machine, with summer time or without, is in no moment that is recorded."""
    simulator = start_simulator(url_lifetime=60)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    # Far from UTC, and in summer time on all days but two.
    program.env["TZ"] = "XST-13:30XDT-14:30,J1/0,J364/0"
    before = to_text(utc_now())
    program.submit(range(1, 6))
    assert program("run", "--drain", "--min-free", "0").returncode == 0
    program.assert_saved(simulator, range(1, 6))
    columns = ("submitted_at", "ready_at", "done_at", "updated_at")
    for moments in program.query(f"SELECT {', '.join(columns)} FROM runs"):  # noqa: S608 - above
        assert before <= min(moments) <= max(moments) <= to_text(utc_now())
    assert program.query("SELECT max(attempts), max(refreshes) FROM runs") == [(1, 0)]


def test_only_what_was_written_in_the_future_is_rebased(
    make_service: MakeService, start_simulator: StartSimulator
) -> None:
    """Waits of the future keep their length, counted from now; all others are left alone."""
    database = make_service(start_simulator()).database
    now = utc_now()
    submit(database, DEFAULT_RUN_TYPE, range(1, 6), now + timedelta(hours=1))
    submit(database, DEFAULT_RUN_TYPE, range(6, 11), now)
    owner = leases.Owner()
    [batch] = polling.claim_due(
        database,
        owner,
        RUN_TYPES,
        wanted=polling.Wanted(5),
        now=now,
        cutoff=now,
        soon_seconds=0,
        lease_until=now + timedelta(minutes=50),
    )
    assert {run.key.run_id for run in batch.runs} == set(range(6, 11))

    def rebase() -> int:
        return leases.rebase(
            database,
            RUN_TYPES,
            now,
            tolerance=timedelta(seconds=5),
            horizon=timedelta(minutes=5),
        )

    assert rebase() == 5
    assert rebase() == 0
    due = polling.claim_due(
        database,
        owner,
        RUN_TYPES,
        wanted=polling.Wanted(10),
        now=now,
        cutoff=now,
        soon_seconds=0,
        lease_until=now + timedelta(minutes=1),
    )
    assert {run.key for one in due for run in one.runs} == {
        RunKey(DEFAULT_RUN_TYPE, run_id) for run_id in range(1, 6)
    }
