from __future__ import annotations

import fcntl
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from verify.verify_rig import content

if TYPE_CHECKING:
    from harness import Program, StartSimulator
    from verify.verify_rig import Rig


@pytest.mark.parametrize("at", ["transfer.published", "transfer.delivered"])
def test_a_lost_commit_is_made_up_for(
    program: Program, start_simulator: StartSimulator, at: str
) -> None:
    """A file published by a process that was killed is recorded by --repair, not fetched again."""
    simulator = start_simulator(min_size=1_500_000, max_size=2_000_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program("submit", *map(str, range(1, 7)))
    program.env["DOWNLOADER_FAILPOINTS"] = f"{at}=kill@3"
    killed = program("run", "--drain", "--lease", "1", "--concurrency", "1")
    assert killed.returncode == -signal.SIGKILL
    del program.env["DOWNLOADER_FAILPOINTS"]
    [(lost,)] = program.query("SELECT run_id FROM runs WHERE state = 'downloading'")
    while program("verify").returncode == 0:  # while its claim lasts, the run is left alone
        threading.Event().wait(0.05)
    done = program("verify")
    first, summary, hint = done.stdout.splitlines()
    assert first.startswith(f"unrecorded {lost}: {program.output / str(lost)}.")
    assert first.endswith("was saved whole but not recorded: the run is downloading")
    assert "1 unrecorded; 0 repaired" in summary
    assert "verify --repair" in hint
    assert program.query("SELECT state FROM runs WHERE run_id = ?", lost) == [("downloading",)]
    requests = simulator.stats()["storage"]["requests"]
    repaired = program("verify", "--repair")
    assert repaired.returncode == 1
    assert "; recorded, " in repaired.stdout
    assert "1 unrecorded; 1 repaired" in repaired.stdout
    assert list((program.output / ".partial").iterdir()) == []
    assert program("verify").returncode == 0
    [(state, location, size)] = program.query(
        "SELECT state, location, bytes FROM runs WHERE run_id = ?", lost
    )
    assert state == "done"
    assert Path(location).read_bytes() == simulator.audio(lost)
    assert size == len(simulator.audio(lost))
    events = program.query(
        "SELECT from_state, to_state, reason, detail FROM run_events WHERE run_id = ?"
        " ORDER BY event_id DESC LIMIT 1",
        lost,
    )
    assert events == [("downloading", "done", "adopted", location)]
    assert simulator.stats()["storage"]["requests"] == requests
    assert program("run", "--drain").returncode == 0
    assert simulator.stats()["storage"]["by_run"][str(lost)] == {"full": 1, "ranged": 0}
    assert program("verify").returncode == 0


ADOPTED = [
    ("pending", None),
    ("pending", 60),
    ("ready", None),
    ("failed", None),
    ("downloading", -1),
]


@pytest.mark.parametrize(("state", "lease"), ADOPTED)
def test_whose_file_is_adopted(rig: Rig, state: str, lease: float | None) -> None:
    """A published file is recorded for every run that is not being saved; its part goes then."""
    rig.track(7, state, lease_seconds=lease)
    rig.publish(7)
    rows = rig.rows()
    found = rig.verify()
    assert found.kinds == {7: "unrecorded"}
    assert rig.rows() == rows
    assert rig.verify("--repair").repaired == {7}
    assert rig.program.query(
        "SELECT state, location, bytes, audio_format, url, next_attempt_at, lease_owner,"
        " error_code FROM runs"
    ) == [("done", str(rig.path(7)), 5000, "wav", None, None, None, None)]
    assert rig.events(7) == [(state, "done", "adopted", str(rig.path(7)))]
    assert rig.tree() == {".partial": "folder", "7.wav": content(7)}
    assert rig.verify().code == 0


def test_a_run_that_is_being_saved_is_left_alone(rig: Rig) -> None:
    """While somebody holds a run, its published file is no finding and is not recorded."""
    rig.track(7, "downloading", lease_seconds=60)
    rig.publish(7)
    rows = rig.rows()
    assert rig.verify("--repair").code == 0
    assert rig.rows() == rows
    assert rig.part(7).exists()


def test_a_cancelled_run_stays_cancelled(rig: Rig) -> None:
    """A person's word counts more than a published file; only its part is stale."""
    rig.track(7, "cancelled")
    rig.publish(7)
    found = rig.verify("--repair")
    assert [one["finding"] for one in found.findings] == ["orphan", "stale_part"]
    assert rig.states() == {7: "cancelled"}
    assert rig.tree() == {".partial": "folder", "7.wav": content(7)}


def test_an_equal_file_is_no_proof(rig: Rig) -> None:
    """A part with the same bytes, or of another run, does not make a file ours."""
    rig.track(7, "ready")
    rig.track(8, "ready")
    rig.path(7).write_bytes(content(7))
    rig.part(7).write_bytes(content(7))
    os.link(rig.path(7), rig.part(8))
    tree, rows = rig.tree(), rig.rows()
    assert rig.verify("--repair").kinds == {7: "orphan"}
    assert (rig.tree(), rig.rows()) == (tree, rows)


def test_a_part_that_somebody_holds(rig: Rig) -> None:
    """Where another process holds the part, the file is reported and not recorded."""
    rig.track(7, "ready")
    rig.publish(7)
    rows = rig.rows()
    with rig.part(7).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = rig.verify("--repair")
    assert found.kinds == {7: "unrecorded"}
    assert found.repaired == set()
    assert "; not repaired: " in found.findings[0]["detail"]
    assert rig.rows() == rows
    assert rig.verify("--repair").repaired == {7}


@pytest.mark.parametrize("at", [1, 2])
def test_killed_while_adopting(rig: Rig, at: int) -> None:
    """An adoption that is killed is completed by the next, and those before it are recorded."""
    for run_id in (7, 8):
        rig.track(run_id, "ready")
        rig.publish(run_id)
    rig.program.env["DOWNLOADER_FAILPOINTS"] = f"verify.repairing=kill@{at}"
    assert rig.program("verify", "--repair").returncode == -signal.SIGKILL
    assert list(rig.states().values()).count("done") == at - 1
    del rig.program.env["DOWNLOADER_FAILPOINTS"]
    assert len(rig.verify("--repair").repaired) == 3 - at
    assert rig.states() == {7: "done", 8: "done"}
    assert list(rig.parts.iterdir()) == []
    assert rig.verify().code == 0


def test_an_orphan_is_adopted_by_the_next_transfer(
    program: Program, start_simulator: StartSimulator
) -> None:
    """What the finding on an unfinished run's file promises is so, if the file is equal."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program("submit", "1", "2")
    program.output.mkdir()
    (program.output / "1.wav").write_bytes(simulator.audio(1))
    done = program("verify")
    assert done.returncode == 1
    assert "orphan 1: " in done.stdout
    assert "if it is equal" in done.stdout
    assert program("run", "--drain").returncode == 0
    assert program("verify").returncode == 0
