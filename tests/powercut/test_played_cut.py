"""The power cut at every system call, with the real bytes: what is left, and what SQLite reads.

A trace of the real program is played on a disk in memory (`powercut.disks`, where the models of
what a cut leaves are). After each call that changes what would be left, the database is opened as
it would be found. That the program then goes on to save everything is shown from a sample of cuts.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from typing import TYPE_CHECKING

import pytest
from harness import KEY, Service
from powercut.disks import Disk, Left
from powercut.found import AfterTheCut, Files, assert_done_is_true, put_back
from powercut.recording import Op, recorded

from downloader.rules.decisions import Limits
from downloader.settings import Settings
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Program, StartSimulator

    from downloader.simulator.server import Simulator

pytestmark = pytest.mark.needs("strace")

RUNS = range(101, 108)
CUTS = 12
"""From how many moments of a trace the program is run to its end again."""


@pytest.fixture
def after_the_cut(tmp_path: Path) -> AfterTheCut:
    """Open what would be found after a cut."""
    folder = tmp_path / "found"
    folder.mkdir()
    return AfterTheCut(folder)


def says(op: Op) -> bool:
    """Return whether a call speaks to whoever has called the program."""
    return op.name == "write" and op.descriptor == 1 and op.result > 0


def unrecorded(program: Program) -> set[Path]:
    """Return the files that a killed program had named, and perhaps not synced, nor recorded.

    A cut may come right after: nothing of them is on the disk yet.
    """
    recorded_ones = {location for (location,) in program.query("SELECT location FROM runs")}
    named = {path for path in program.output.iterdir() if path.is_file()}
    lost = {path for path in named if str(path) not in recorded_ones}
    assert lost
    return lost


@contextlib.contextmanager
def next_boot(program: Program, simulator: Simulator) -> Iterator[Service]:
    """Give the service as it starts after the cut."""
    settings = Settings(
        output=program.output,
        api_key=KEY,
        api_url=simulator.api_url,
        min_free_bytes=0,
        lease_seconds=1,
        limits=Limits(min_poll_seconds=0.05, max_poll_seconds=0.2),
    )
    with contextlib.closing(open_database(program.database)) as database:
        with database.write() as connection:  # the power was away for longer than any claim lasts
            connection.exec_driver_sql(
                "UPDATE runs SET lease_expires_at = submitted_at,"
                " next_attempt_at = iif(state = 'pending', submitted_at, NULL)"
                " WHERE lease_owner IS NOT NULL"
            )
        yield Service(database, settings)


@pytest.mark.parametrize("left", Left)
def test_a_cut_while_files_are_saved(
    program: Program,
    start_simulator: StartSimulator,
    after_the_cut: AfterTheCut,
    monkeypatch: pytest.MonkeyPatch,
    *,
    left: Left,
) -> None:
    """Whenever the power goes, no run is lost, and what is done is whole; then all is saved."""
    simulator = start_simulator(min_size=20_000, max_size=1_600_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(RUNS)
    disk = Disk(program.folder)
    ops = recorded(program, "run", "--drain", "--min-free", "0")
    dice = random.Random(len(ops))  # noqa: S311 - a game
    sample = set(dice.sample(range(len(ops)), CUTS))
    cuts: list[Files] = []
    seen_done: set[int] = set()
    for number, op in enumerate(disk.play(ops)):
        if op.name == "openat" and "O_CREAT" not in op.words and number not in sample:
            continue  # that leaves nothing else than before
        files = disk.left(left, seed=number)
        rows = after_the_cut.rows(files)
        assert rows is not None
        assert [row["run_id"] for row in rows] == list(RUNS)
        done = assert_done_is_true(rows, files, program.folder)
        if left is Left.RECORDS_KEPT:
            assert done >= seen_done, "what was done is not any more"
        seen_done |= done
        if number in sample:
            cuts.append(files)
    assert seen_done == set(RUNS)
    monkeypatch.setattr("downloader.transfer.part.boot_id", lambda: "the next boot")
    for files in cuts:
        put_back(files, program.folder)
        with next_boot(program, simulator) as service:
            assert service.run().tally.failed == 0
            service.assert_saved(simulator, *RUNS)


@pytest.mark.parametrize("command", ["submit", "retry", "cancel"])
@pytest.mark.parametrize("left", Left)
def test_a_cut_after_a_command_has_spoken(
    program: Program, after_the_cut: AfterTheCut, command: str, left: Left
) -> None:
    """What a command says it has recorded is there after a cut; before, all of it or nothing.

    Somebody else has the database open: whoever closes it last forces everything to the disk.
    """
    program.submit([1])
    if command != "submit":
        program.submit(RUNS)
    if command == "retry":
        assert program("cancel", *map(str, RUNS)).returncode == 0
    before = {"submit": set(), "retry": {"cancelled"}, "cancel": {"pending"}}[command]
    after = {"cancelled"} if command == "cancel" else {"pending"}
    disk = Disk(program.folder)  # it reads, and a file that is closed takes our locks on it along
    with contextlib.closing(sqlite3.connect(program.database)) as other:
        other.execute("SELECT count(*) FROM runs").fetchall()
        ops = recorded(program, command, *map(str, RUNS))
    spoken = min(op.began for op in ops if says(op))
    looks = 0
    for number, op in enumerate(disk.play(ops)):
        if op.name == "openat" and "O_CREAT" not in op.words and not says(op):
            continue
        rows = after_the_cut.rows(disk.left(left, seed=number))
        assert rows is not None
        states = {row["run_id"]: row["state"] for row in rows if row["run_id"] != 1}
        assert set(states.values()) in (before, after)
        assert set(states) in (set(), set(RUNS))
        if op.ended >= spoken:
            assert set(states.values()) == after, op
        looks += 1
    assert looks > 5


@pytest.mark.parametrize("left", Left)
def test_a_cut_after_the_first_submit(
    program: Program, after_the_cut: AfterTheCut, left: Left
) -> None:
    """A database that is new, in folders that are new, is there when `submit` has spoken."""
    program.env["DOWNLOADER_DATABASE"] = str(program.folder / "a" / "b" / "runs.sqlite3")
    disk = Disk(program.folder)
    ops = recorded(program, "submit", *map(str, RUNS))
    spoken = min(op.began for op in ops if says(op))
    for number, op in enumerate(disk.play(ops)):
        if op.name == "openat" and "O_CREAT" not in op.words:
            continue
        rows = after_the_cut.rows(disk.left(left, seed=number), "a/b/runs.sqlite3")
        assert [row["run_id"] for row in rows or []] in ([], list(RUNS))
        assert rows or op.ended < spoken


@pytest.mark.parametrize("left", Left)
def test_a_cut_while_equal_files_are_adopted(
    program: Program, start_simulator: StartSimulator, after_the_cut: AfterTheCut, left: Left
) -> None:
    """An equal file that somebody has put under a run's name is forced to the disk, too."""
    simulator = start_simulator(min_size=20_000, max_size=60_000, audio_format="wav")
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(RUNS)
    program.output.mkdir()
    for run_id in RUNS:
        (program.output / f"{run_id}.wav").write_bytes(simulator.audio(run_id))
    disk = Disk(program.folder, unsynced=lambda path: path.suffix == ".wav")
    ops = recorded(program, "run", "--drain", "--min-free", "0")
    seen_done: set[int] = set()
    for number, op in enumerate(disk.play(ops)):
        if op.name == "openat" and "O_CREAT" not in op.words:
            continue
        files = disk.left(left, seed=number)
        seen_done |= assert_done_is_true(after_the_cut.rows(files), files, program.folder)
    assert seen_done == set(RUNS)


@pytest.mark.parametrize("left", Left)
def test_a_cut_while_a_lost_commit_is_put_right(
    program: Program, start_simulator: StartSimulator, after_the_cut: AfterTheCut, left: Left
) -> None:
    """A file whose commit was lost is forced to the disk, name and bytes, before it is recorded."""
    simulator = start_simulator(min_size=20_000, max_size=60_000)
    program.env |= {
        "DOWNLOADER_API_URL": simulator.api_url,
        "DOWNLOADER_FAILPOINTS": "transfer.published=kill@3",
        "DOWNLOADER_LEASE": "1",
        "DOWNLOADER_MIN_FREE": "0",
    }
    program.submit(RUNS)
    assert program("run", "--drain").returncode < 0
    del program.env["DOWNLOADER_FAILPOINTS"]
    disk = Disk(program.folder, unsynced=unrecorded(program).__contains__)
    ops = recorded(program, "run", "--drain")
    seen_done: set[int] = set()
    for number, op in enumerate(disk.play(ops)):
        if op.name == "openat" and "O_CREAT" not in op.words:
            continue
        files = disk.left(left, seed=number)
        seen_done |= assert_done_is_true(after_the_cut.rows(files), files, program.folder)
    assert seen_done == set(RUNS)
    events = program.query("SELECT count(*) FROM run_events WHERE reason = 'adopted'")
    assert events[0][0] >= 1


@pytest.mark.parametrize("left", Left)
def test_a_cut_while_a_verification_repairs(
    program: Program, start_simulator: StartSimulator, after_the_cut: AfterTheCut, left: Left
) -> None:
    """`verify --repair` records a file only when it is on the disk, and loses none of its own."""
    simulator = start_simulator(min_size=20_000, max_size=60_000, audio_format="wav")
    program.env |= {
        "DOWNLOADER_API_URL": simulator.api_url,
        "DOWNLOADER_FAILPOINTS": "transfer.published=kill@3",
        "DOWNLOADER_LEASE": "1",
        "DOWNLOADER_MIN_FREE": "0",
    }
    program.submit(RUNS)
    assert program("run", "--drain").returncode < 0
    del program.env["DOWNLOADER_FAILPOINTS"]
    lost = unrecorded(program)
    with contextlib.closing(sqlite3.connect(program.database)) as raw, raw:
        raw.execute(
            "UPDATE runs SET state = 'ready', next_attempt_at = updated_at, lease_owner = NULL,"
            " lease_expires_at = NULL WHERE state = 'downloading'"
        )
    disk = Disk(program.folder, unsynced=lost.__contains__)
    ops = recorded(program, "verify", "--repair", "--json", returns=1)
    summary = json.loads(b"".join(op.data for op in ops if says(op)).splitlines()[-1])
    assert summary["found"]["unrecorded"] == len(lost)
    seen_done: set[int] = set()
    for number, op in enumerate(disk.play(ops)):
        if op.name == "openat" and "O_CREAT" not in op.words:
            continue
        files = disk.left(left, seed=number)
        seen_done |= assert_done_is_true(after_the_cut.rows(files), files, program.folder)
    assert seen_done == {int(path.stem) for path in program.output.glob("*.wav")}


@pytest.mark.parametrize("left", Left)
def test_a_cut_while_a_backup_is_made(
    program: Program, after_the_cut: AfterTheCut, left: Left
) -> None:
    """A backup that has its name is whole, and it has it when the command says so."""
    program.submit(RUNS)
    (program.folder / "copies").mkdir()
    target = program.folder / "copies" / "backup.sqlite3"
    disk = Disk(program.folder)
    ops = recorded(program, "db", "backup", str(target))
    spoken = min(op.began for op in ops if says(op))
    named = 0
    for number, op in enumerate(disk.play(ops)):
        files = disk.left(left, seed=number)
        if "copies/backup.sqlite3" in files:
            rows = after_the_cut.rows(files, "copies/backup.sqlite3")
            assert rows is not None
            assert [row["run_id"] for row in rows] == list(RUNS)
            named += 1
        assert named or op.ended < spoken, "the backup is said to be there, and is not"
    assert named
