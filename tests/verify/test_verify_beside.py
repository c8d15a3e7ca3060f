from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest
from verify.verify_rig import content

from downloader.clock import utc_now
from downloader.store.migrate import open_database
from downloader.store.schema import to_text
from downloader.store.verification import tracked
from downloader.verification.verification import Options, Verification

if TYPE_CHECKING:
    from harness import Program, StartSimulator
    from verify.verify_rig import Rig

    from downloader.rules.states import RunKey
    from downloader.store.database import Database
    from downloader.store.verification import Tracked
    from downloader.verification.findings import Finding

RUNS = 120


def test_a_daemon_beside_it(program: Program, start_simulator: StartSimulator) -> None:
    """While a daemon saves hundreds of runs, verifying over and over finds nothing wrong."""
    simulator = start_simulator(
        rules=[
            {
                "runs": [run_id],
                "where": "storage",
                "fault": {"kind": "status", "status": 503},
                "times": 1,
            }
            for run_id in range(7, RUNS, 7)
        ],
        min_size=1_000,
        max_size=200_000,
        finish_after=1.0,
        storage_latency=0.15,
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    ids = "\n".join(map(str, range(1, RUNS + 1)))
    assert program("submit", "--file", "-", stdin=ids).returncode == 0
    checked: list[int] = []
    options = [(), ("--quick",), ("--repair", "--all-missing")]
    with program.start("run", "--concurrency", "8", stderr=subprocess.DEVNULL) as daemon:
        while not checked or checked[-1] < RUNS:
            done = program("verify", "--json", *options[len(checked) % 3])
            assert (done.returncode, done.stderr) == (0, ""), done.stdout
            checked.append(json.loads(done.stdout)["checked"])
            assert daemon.poll() is None
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate()
    assert daemon.returncode == 0
    assert any(0 < number < RUNS for number in checked), "the daemon was done too soon"
    assert program.query("SELECT DISTINCT reason FROM run_events WHERE from_state = 'done'") == []
    for run_id in range(1, RUNS + 1):
        assert (program.output / f"{run_id}.wav").read_bytes() == simulator.audio(run_id)


@pytest.mark.parametrize(
    "at", ["transfer.published", "transfer.delivered", "record.written", "record.committed"]
)
def test_a_daemon_in_the_midst_of_saving(
    program: Program, start_simulator: StartSimulator, at: str
) -> None:
    """Wherever a daemon is between publishing a file and removing its part, nothing is wrong."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program("submit", *map(str, range(1, 13)))
    program.env["DOWNLOADER_FAILPOINTS"] = f"{at}=stop@3"
    with program.start("run", "--drain", "--lease", "10m") as daemon:
        try:
            frozen = psutil.Process(daemon.pid)
            pause = threading.Event()
            while frozen.status() != psutil.STATUS_STOPPED:
                assert daemon.poll() is None
                pause.wait(0.02)
            del program.env["DOWNLOADER_FAILPOINTS"]
            assert len(list(program.output.glob("[0-9]*"))) >= 3
            for options in ((), ("--quick",), ("--repair",)):
                done = program("verify", *options)
                assert (done.returncode, done.stderr) == (0, ""), done.stdout
        except BaseException:
            daemon.kill()  # what is frozen would be waited for in vain
            raise
        daemon.send_signal(signal.SIGCONT)
        _, err = daemon.communicate()
    assert (daemon.returncode, err) == (0, "")
    assert program("verify").returncode == 0
    for run_id in range(1, 13):
        assert (program.output / f"{run_id}.wav").read_bytes() == simulator.audio(run_id)
    assert simulator.stats()["storage"]["requests"] == 12


def test_a_daemon_fetches_what_is_put_back(
    program: Program, start_simulator: StartSimulator
) -> None:
    """Beside a daemon --repair is enough: what it puts back is fetched under its old name."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program("submit", *map(str, range(1, 41)))
    assert program("run", "--drain").returncode == 0
    with program.start("run", "--min-poll", "0.1s") as daemon:
        for run_id in range(1, 41):
            (program.output / f"{run_id}.wav").write_bytes(b"damaged")
        assert program("verify", "--repair").returncode == 1
        while program.query("SELECT count(*) FROM runs WHERE state = 'done'") != [(40,)]:
            assert daemon.poll() is None
            assert program.query("SELECT * FROM failures") == []
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate()
    assert program("verify").returncode == 0
    for run_id in range(1, 41):
        assert (program.output / f"{run_id}.wav").read_bytes() == simulator.audio(run_id)
        assert (program.output / f"{run_id}.wav.damaged-1").read_bytes() == b"damaged"


@pytest.mark.parametrize("repair", [True, False])
def test_a_file_that_is_recorded_meanwhile(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    repair: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A run that is saved between the listing and the report has no orphan: it is asked twice."""
    rig.save(1)
    rig.track(7, "pending")
    rig.path(7).write_bytes(content(7))

    def overtaken(database: Database, keys: list[RunKey]) -> dict[RunKey, Tracked]:
        found = tracked(database, keys)
        _record(rig, 7)
        return found

    monkeypatch.setattr("downloader.store.verification.tracked", overtaken)
    assert _in_process(rig, repair=repair) == []


def test_a_file_that_is_adopted_meanwhile(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose part a worker holds, and which it has then recorded, is no finding either."""
    rig.track(7, "ready")
    rig.publish(7)

    def held(_name: str, _partial: int) -> None:
        _record(rig, 7)

    monkeypatch.setattr("downloader.verification.orphans.lock_existing", held)
    assert _in_process(rig, repair=True) == []


def _record(rig: Rig, run_id: int) -> None:
    """Record a run as saved, as a worker would."""
    digest = hashlib.sha256(content(run_id)).hexdigest()
    rig.execute(
        "UPDATE runs SET state = 'done', url = NULL, next_attempt_at = NULL, location = ?,"
        " bytes = 5000, sha256 = ?, audio_format = 'wav', done_at = ?, updated_at = ?"
        " WHERE run_id = ?",
        *(str(rig.path(run_id)), digest, to_text(utc_now()), to_text(utc_now()), run_id),
    )


def _in_process(rig: Rig, *, repair: bool) -> list[Finding]:
    with closing(open_database(rig.program.database)) as database:
        verification = Verification(database, rig.output, Options(repair=repair), lambda: None)
        return list(verification.findings())


def test_two_repairs_at_once(rig: Rig) -> None:
    """Of several repairs at a time each run is put back by one; each damaged file is kept once."""
    rig.save(*range(1, 301))
    for run_id in range(1, 301):
        if run_id % 3 == 0:
            rig.path(run_id).write_bytes(b"damaged")
        elif run_id % 3 == 1:
            rig.path(run_id).unlink()
    running = [rig.program.start("verify", "--repair", "--json") for _ in range(3)]
    repaired: list[int] = []
    for process in running:
        with process:
            out, err = process.communicate()
        assert err == ""
        found = [json.loads(line) for line in out.splitlines()[:-1]]
        repaired += [one["run_id"] for one in found if one["repair"]]
    lost = [run_id for run_id in range(1, 301) if run_id % 3 != 2]
    assert sorted(repaired) == lost
    assert [
        row[0] for row in rig.program.query("SELECT run_id FROM run_events ORDER BY run_id")
    ] == lost
    assert {name: found for name, found in rig.tree().items() if name != ".partial"} == {
        f"{run_id}.wav" if run_id % 3 else f"{run_id}.wav.damaged-1": (
            content(run_id) if run_id % 3 else b"damaged"
        )
        for run_id in range(1, 301)
        if run_id % 3 != 1
    }
