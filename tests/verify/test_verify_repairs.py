from __future__ import annotations

import json
import os
import signal
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from verify.verify_rig import content, settled

from downloader.clock import utc_now
from downloader.rules.states import RunKey
from downloader.store import control
from downloader.store.migrate import open_database
from downloader.store.verification import unchanged
from downloader.verification.looking import look
from downloader.verification.verification import Options, Verification

if TYPE_CHECKING:
    from harness import Program, StartSimulator
    from verify.verify_rig import Rig

    from downloader.failpoints import At
    from downloader.simulator.server import Simulator
    from downloader.store.database import Database
    from downloader.store.verification import SavedRun
    from downloader.verification.findings import Finding

COUNT = 12


def _drained(program: Program, simulator: Simulator) -> dict[int, bytes]:
    """Submit runs and save them all; return their files' bytes."""
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    ids = [str(run_id) for run_id in range(1, COUNT + 1)]
    assert program("submit", *ids).returncode == 0
    return _drain(program, simulator)


def _drain(program: Program, simulator: Simulator) -> dict[int, bytes]:
    done = program("run", "--drain")
    assert (done.returncode, done.stderr) == (0, "")
    rows = program.query("SELECT run_id, location, state FROM runs")
    assert [row[2] for row in rows] == ["done"] * COUNT
    files = {run_id: Path(location).read_bytes() for run_id, location, _ in rows}
    assert files == {run_id: simulator.audio(run_id) for run_id in range(1, COUNT + 1)}
    return files


def _damage(program: Program) -> dict[str, bytes]:
    """Damage some saved files in every way; return the bytes that must not be lost."""
    paths = {int(path.stem): path for path in program.output.glob("[0-9]*")}
    kept = {}
    paths[1].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    paths[3].write_bytes(bytes(reversed(paths[3].read_bytes())))
    paths[4].write_bytes(b"an edit of mine")
    for run_id in (2, 3, 4):
        kept[paths[run_id].name] = paths[run_id].read_bytes()
    return kept


def _verify(program: Program, *options: str) -> tuple[int, list[dict[str, Any]]]:
    done = program("verify", "--json", *options)
    assert done.stderr == ""
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_repaired_and_fetched_anew(program: Program, start_simulator: StartSimulator) -> None:
    """--repair and a drain make all well: whole files in their places, the damaged ones beside."""
    simulator = start_simulator()
    _drained(program, simulator)
    kept = _damage(program)
    done = program("verify", "--repair")
    assert (done.returncode, done.stderr) == (1, "")
    *lines, summary, hint = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "missing 1",
        "damaged 2",
        "damaged 3",
        "damaged 4",
    ]
    assert lines[0].endswith("is not there; put back to pending")
    assert ".damaged-1" in lines[1]
    assert summary.endswith(": 3 damaged, 1 missing; 4 repaired")
    assert hint == "`downloader run --drain` fetches what was put back"
    for name, old in kept.items():
        assert (program.output / f"{name}.damaged-1").read_bytes() == old
        assert not (program.output / name).exists()
    code, [summary_after] = _verify(program)  # what is pending is not missed
    assert (code, summary_after["checked"]) == (0, COUNT - 4)
    _drain(program, simulator)
    code, [summary_after] = _verify(program)
    assert (code, summary_after["checked"]) == (0, COUNT)
    for name, old in kept.items():
        assert (program.output / f"{name}.damaged-1").read_bytes() == old
    events = program.query(
        "SELECT run_id, from_state, to_state, reason FROM run_events WHERE from_state = 'done'"
    )
    assert sorted(events) == [
        (1, "done", "pending", "missing"),
        *((run_id, "done", "pending", "damaged") for run_id in (2, 3, 4)),
    ]
    assert simulator.stats()["storage"]["requests"] == COUNT + 4


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_killed_while_repairing(program: Program, start_simulator: StartSimulator, at: int) -> None:
    """A repair killed before or between its files is completed by another; no bytes are lost."""
    simulator = start_simulator()
    _drained(program, simulator)
    kept = _damage(program)
    program.env["DOWNLOADER_FAILPOINTS"] = f"verify.repairing=kill@{at}"
    done = program("verify", "--repair")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert program.query("SELECT DISTINCT state FROM runs") == [("done",)]
    del program.env["DOWNLOADER_FAILPOINTS"]
    code, [*findings, _] = _verify(program, "--repair")
    assert code == 1
    assert {one["run_id"] for one in findings if one["repair"]} == {1, 2, 3, 4}
    # What was moved aside before the kill is missing now.
    moved = {run_id for run_id in (2, 3, 4) if run_id < at}
    assert {one["run_id"] for one in findings if one["finding"] == "missing"} == {1, *moved}
    _drain(program, simulator)
    assert _verify(program)[0] == 0
    aside = {path.name: path.read_bytes() for path in program.output.glob("*.damaged-*")}
    assert aside == {f"{name}.damaged-1": old for name, old in kept.items()}


def test_put_back_is_as_submitted_anew(rig: Rig) -> None:
    """A run that was put back is as `retry` would have it, and its history says why."""
    rig.save(1, 2)
    rig.track(3, "failed")
    rig.path(1).write_bytes(b"damaged")
    assert rig.verify("--repair").repaired == {1}
    with closing(open_database(rig.program.database)) as database:
        control.retry(database, [RunKey("text-to-sound", 3)], utc_now())
    columns = [row[1] for row in rig.program.query("PRAGMA table_info(runs)")]
    ours, theirs = (
        dict(zip(columns, row, strict=True))
        for row in rig.program.query("SELECT * FROM runs WHERE run_id IN (1, 3) ORDER BY run_id")
    )
    for row in (ours, theirs):
        assert row.pop("submitted_at") == row.pop("updated_at") == row.pop("next_attempt_at")
        del row["run_id"]
    assert ours == theirs
    assert rig.events(1) == [
        (
            "done",
            "pending",
            "damaged",
            f"7 bytes instead of 5000, the file is kept as {rig.path(1)}.damaged-1",
        )
    ]


def test_nothing_is_overwritten_by_what_is_moved_aside(rig: Rig) -> None:
    """A damaged file takes the first free name; files that have one already stay as they are."""
    rig.save(1, 2)
    for number, found in ((1, b"mine"), (2, b"mine too")):
        (rig.output / f"1.wav.damaged-{number}").write_bytes(found)
    (rig.output / "2.wav.damaged-1").symlink_to("nowhere")
    rig.path(1).write_bytes(b"damaged")
    rig.path(2).unlink()
    rig.path(2).mkdir()
    (rig.path(2) / "inside").write_bytes(b"kept")
    assert rig.verify("--repair").repaired == {1, 2}
    assert rig.tree() == {
        ".partial": "folder",
        "1.wav.damaged-1": b"mine",
        "1.wav.damaged-2": b"mine too",
        "1.wav.damaged-3": b"damaged",
        "2.wav.damaged-1": "-> nowhere",
        "2.wav.damaged-2": "folder",
        "2.wav.damaged-2/inside": b"kept",
    }


def test_a_link_is_moved_and_not_followed(rig: Rig) -> None:
    """In place of a saved file, a link is moved aside itself; what it leads to is not touched."""
    rig.save(1, 2)
    elsewhere = rig.program.folder / "elsewhere.wav"
    rig.path(1).rename(elsewhere)
    rig.path(1).symlink_to(elsewhere)
    assert rig.verify("--repair").repaired == {1}
    assert rig.tree()["1.wav.damaged-1"] == f"-> {elsewhere}"
    assert elsewhere.read_bytes() == content(1)


@pytest.mark.parametrize("options", [(), ("--repair",)])
def test_quick_repairs_too(rig: Rig, options: tuple[str, ...]) -> None:
    """`--quick --repair` puts back what it finds, and nothing else."""
    rig.save(1, 2, 3)
    rig.path(1).unlink()
    rig.path(2).write_bytes(content(3))
    found = rig.verify("--quick", *options)
    assert found.kinds == {1: "missing"}
    assert rig.states() == {1: "pending" if options else "done", 2: "done", 3: "done"}


def test_a_file_that_cannot_be_moved(rig: Rig) -> None:
    """Where a file cannot be moved aside its run stays done, and the reason is told."""
    rig.save(1, 2)
    rig.path(1).write_bytes(b"damaged")
    rig.program.env["DOWNLOADER_FAILPOINTS"] = "verify.repairing=EACCES"
    tree, rows = rig.tree(), rig.rows()
    found = rig.verify("--repair")
    assert found.kinds == {1: "damaged"}
    assert found.repaired == set()
    assert "; not repaired: it cannot be moved aside: " in found.findings[0]["detail"]
    assert (rig.tree(), rig.rows()) == (tree, rows)


def _in_process(rig: Rig, *, repair: bool = True) -> list[Finding]:
    with closing(open_database(rig.program.database)) as database:
        verification = Verification(database, rig.output, Options(repair=repair), lambda: None)
        return list(verification.findings())


@pytest.mark.parametrize("missing", [True, False])
def test_a_file_that_changes_before_its_repair(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    missing: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A file that somebody has put in its place meanwhile is neither moved nor counted as lost."""
    rig.save(1, 2)
    if missing:
        rig.path(1).unlink()
    else:
        rig.path(1).write_bytes(b"damaged")
    rows = rig.rows()

    def put_right(_at: At) -> None:
        restored = rig.output / "restored"
        restored.write_bytes(content(1))
        restored.rename(rig.path(1))

    monkeypatch.setattr("downloader.verification.saved.reach", put_right)
    [finding] = _in_process(rig)
    assert finding.repair is None
    assert finding.detail.endswith("; not repaired: it has changed meanwhile, verify again")
    assert rig.rows() == rows
    assert rig.path(1).read_bytes() == content(1)
    assert rig.verify().code == 0


def test_a_run_that_changes_before_its_repair(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that another process has put back meanwhile is left to it, and not reported."""
    rig.save(1, 2, 3)
    for run_id in (1, 2):
        rig.path(run_id).unlink()

    def overtaken(database: Database, found_missing: list[SavedRun]) -> set[RunKey]:
        found = unchanged(database, found_missing)
        rig.execute("UPDATE runs SET sha256 = ? WHERE run_id = 1", "0" * 64)
        return found

    monkeypatch.setattr("downloader.store.verification.unchanged", overtaken)
    [finding] = _in_process(rig)
    assert finding.key == RunKey("text-to-sound", 2)
    assert rig.states() == {1: "done", 2: "pending", 3: "done"}


@pytest.mark.parametrize("repair", [True, False])
def test_a_run_that_changes_before_it_is_reported(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    repair: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A row that was read, and has changed by the time its file is looked at, is no finding."""
    rig.save(1, 2)
    rig.path(1).unlink()

    def slowly(run: Any, **options: Any) -> Any:  # noqa: ANN401 - handed on
        found = look(run, **options)
        rig.execute("UPDATE runs SET done_at = '2026-02-01 00:00:00.000000' WHERE run_id = 1")
        return found

    monkeypatch.setattr("downloader.verification.saved.look", slowly)
    assert _in_process(rig, repair=repair) == []
    assert rig.states() == {1: "done", 2: "done"}


def test_a_move_is_on_the_disk_before_its_commit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is synced between the move and the commit, or a power cut could undo the move."""
    rig.save(1, 2)
    rig.path(1).write_bytes(b"damaged")
    folder, sync = rig.output.stat().st_ino, os.fsync
    seen = []

    def watched(descriptor: int) -> None:
        sync(descriptor)
        if os.fstat(descriptor).st_ino == folder:
            seen.append((rig.path(1).exists(), rig.states()[1]))

    monkeypatch.setattr(os, "fsync", watched)
    [finding] = _in_process(rig)
    assert finding.repair is not None
    assert seen == [(False, "done")]
    assert rig.states()[1] == "pending"


def test_nothing_is_made_writable_or_removed(rig: Rig) -> None:
    """A repair leaves the modes and times of other files, and of the kept one, as they were."""
    rig.save(1, 2)
    rig.path(1).write_bytes(b"damaged")
    rig.path(1).chmod(0o440)
    settled(rig.path(1))
    before = rig.path(1).stat()
    assert rig.verify("--repair").repaired == {1}
    after = (rig.output / "1.wav.damaged-1").stat()
    assert stat.S_IMODE(after.st_mode) == 0o440
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(rig.parts) == []  # noqa: PTH208 - names
