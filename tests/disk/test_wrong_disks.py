"""An output folder whose disk is away: nothing is saved in its place, and it is waited for."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from disk.small_disks import daemon, mounted
from harness import wait_until
from operating.listening import listening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Program, StartSimulator

    from downloader.simulator.server import Simulator

RUN = ("run", "--min-free", "0")


@pytest.fixture
def simulator(start_simulator: StartSimulator, program: Program) -> Simulator:
    """Serve what the program asks for."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    return simulator


def unmount(disk: Path) -> None:
    """Take a disk away, from under whoever uses it."""
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # noqa: S607 - the system's own


@contextlib.contextmanager
def on_its_disk(program: Program) -> Iterator[Path]:
    """Have the files saved on a disk of their own, which a second mount keeps when it is away."""
    with mounted(program.folder / "kept", "size=64m") as kept:
        disk = program.folder / "disk"
        disk.mkdir()
        program.env["DOWNLOADER_OUTPUT"] = str(disk / "audio")
        try:
            mount_again(kept, disk)
            yield disk
        finally:
            while disk.is_mount():
                unmount(disk)


def mount_again(kept: Path, disk: Path) -> None:
    """Mount the disk, as it was left."""
    subprocess.run(["mount", "--bind", str(kept), str(disk)], check=True)  # noqa: S607 - the system's own


def saved_before(program: Program) -> None:
    """Save three runs, and submit three more."""
    program.submit(range(1, 4))
    assert program(*RUN, "--drain").returncode == 0
    program.submit(range(4, 7))


def blocked(program: Program) -> str:
    """Return why nothing is saved, "" where something may be."""
    found = program.status()["blocked"]
    assert found is None or found["reason"] == "output_unusable"
    return "" if found is None else found["message"]


def assert_untouched(program: Program, folder: Path) -> None:
    """Assert that nothing was made in a folder, and that no run has paid for it."""
    assert list(folder.iterdir()) == []
    assert program.query("SELECT max(attempts), sum(state = 'failed') FROM runs") == [(1, 0)]


@pytest.mark.needs("mount")
@pytest.mark.parametrize("mode", ["--once", "--drain"])
def test_a_call_saves_nothing_where_the_disk_is_away(
    program: Program, simulator: Simulator, mode: str
) -> None:
    """`--once` and `--drain` end with 3 and say what is missing; with the disk they go on."""
    with on_its_disk(program) as disk:
        saved_before(program)
        unmount(disk)
        done = program(*RUN, mode)
        assert done.returncode == 3, done.stderr
        [said] = done.stderr.splitlines()
        assert f"3 files are recorded in the output folder {disk / 'audio'}, which is not" in said
        assert "ount its disk" in said
        assert_untouched(program, disk)
        assert "ount its disk" in blocked(program)
        mount_again(program.folder / "kept", disk)
        done = program(*RUN, mode)
        assert done.returncode == 0, done.stderr
        assert blocked(program) == ""
        program.assert_saved(simulator, range(1, 7))


@pytest.mark.needs("mount")
def test_a_mount_point_that_has_the_folder_as_well(program: Program, simulator: Simulator) -> None:
    """Where the mount point itself is the output folder it is told from the disk all the same."""
    with on_its_disk(program) as disk:
        program.env["DOWNLOADER_OUTPUT"] = str(disk)
        saved_before(program)
        unmount(disk)
        done = program(*RUN, "--once")
        assert done.returncode == 3
        assert f"in the output folder {disk}, which is there without them" in done.stderr
        assert_untouched(program, disk)
        mount_again(program.folder / "kept", disk)
        assert program(*RUN, "--once").returncode == 0
        program.assert_saved(simulator, range(1, 7))


@pytest.mark.needs("linux", "mount")
def test_a_daemon_that_starts_before_the_disk_is_there(
    program: Program, simulator: Simulator, tmp_path: Path
) -> None:
    """It is ready, says in its status what is missing, and goes on by itself with the disk."""
    with on_its_disk(program) as disk, listening(tmp_path, abstract=True) as told:
        saved_before(program)
        unmount(disk)
        program.env["NOTIFY_SOCKET"] = told.address
        with daemon(program) as process:
            wait_until(lambda: "READY" in told.order(), process)
            status = told.values("STATUS")[0]
            assert status.startswith("blocked (output_unusable): 3 files are recorded in")
            assert "ount its disk" in status
            assert_untouched(program, disk)
            mount_again(program.folder / "kept", disk)
            wait_until(lambda: program.status()["runs"]["done"] == 6, process)
        assert blocked(program) == ""
        program.assert_saved(simulator, range(1, 7))


@pytest.mark.needs("mount")
def test_a_disk_that_goes_away_under_a_daemon(program: Program, simulator: Simulator) -> None:
    """What comes after is not saved in its place; a retry of the block, and SIGHUP, see it too."""
    with on_its_disk(program) as disk:
        saved_before(program)
        with daemon(program) as process:
            wait_until(lambda: program.status()["runs"]["done"] == 6, process)
            unmount(disk)
            program.submit(range(7, 10))
            wait_until(lambda: blocked(program) != "", process)
            tried = "SELECT probes FROM blocks"
            [(before,)] = program.query(tried)
            wait_until(lambda: program.query(tried)[0][0] > before, process)
            process.send_signal(signal.SIGHUP)
            wait_until(
                lambda: program.query("SELECT count(*) FROM runs WHERE state = 'ready'") == [(3,)],
                process,
            )
            assert_untouched(program, disk)
            mount_again(program.folder / "kept", disk)
            wait_until(lambda: program.status()["runs"]["done"] == 9, process)
        program.assert_saved(simulator, range(1, 10))


@pytest.mark.needs("mount")
def test_a_block_ends_though_there_is_nothing_to_save(
    program: Program, simulator: Simulator
) -> None:
    """With the disk back the block is over, be there work or none, for a daemon and for a call."""
    del simulator
    with on_its_disk(program) as disk:
        program.submit(range(1, 4))
        assert program(*RUN, "--drain").returncode == 0
        unmount(disk)
        with daemon(program) as process:
            wait_until(lambda: blocked(program) != "", process)
            mount_again(program.folder / "kept", disk)
            wait_until(lambda: blocked(program) == "", process)
        unmount(disk)
        assert program(*RUN, "--once").returncode == 3
        assert blocked(program) != ""
        mount_again(program.folder / "kept", disk)
        assert program(*RUN, "--once").returncode == 0
        assert blocked(program) == ""


def test_files_that_were_moved_away(program: Program, simulator: Simulator) -> None:
    """Who takes all files away is heard as the message says: by the folder of parts."""
    with daemon(program) as process:
        program.submit(range(1, 5))
        wait_until(lambda: program.status()["runs"]["done"] == 4, process)
        for path in program.output.glob("*.[wfmo]*"):
            path.unlink()
        program.submit(range(5, 9))
        wait_until(lambda: program.status()["runs"]["done"] == 8, process)
        shutil.rmtree(program.output)
        program.submit(range(9, 13))
        wait_until(lambda: blocked(program) != "", process)
        assert str(program.output / ".partial") in blocked(program)
        assert not program.output.exists()
        (program.output / ".partial").mkdir(parents=True)
        wait_until(lambda: program.status()["runs"]["done"] == 12, process)
    for run_id in range(9, 13):
        [path] = program.output.glob(f"{run_id}.*")
        assert path.read_bytes() == simulator.audio(run_id)
    assert program.status()["runs"]["failed"] == 0


@pytest.mark.needs("mount")
def test_doctor_finds_the_disk_missing(program: Program, simulator: Simulator) -> None:
    """`doctor` says that the folder is another, what to do, and makes nothing there."""
    del simulator
    with on_its_disk(program) as disk:
        saved_before(program)
        unmount(disk)
        for arguments in ([], ["--quick"]):
            done = program("doctor", "--json", *arguments)
            assert done.returncode == 1
            [check] = [one for one in json.loads(done.stdout)["checks"] if one["name"] == "output"]
            assert check["status"] == "problem"
            assert "3 files are recorded in" in check["finding"]
            assert "ount its disk" in check["advice"]
        assert_untouched(program, disk)


@pytest.mark.needs("mount")
def test_a_disk_that_is_read_only_at_the_start(program: Program, simulator: Simulator) -> None:
    """A folder that cannot be written to yet is told with what to do, and is waited for."""
    program.submit([1])
    with mounted(program.folder / "disk", "size=8m") as disk:
        program.env["DOWNLOADER_OUTPUT"] = str(disk / "audio")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)  # noqa: S607 - the system's own
        done = program(*RUN, "--once")
        assert done.returncode == 3
        assert "Read-only file system. Mount its disk for writing" in done.stderr
        with daemon(program) as process:
            wait_until(lambda: blocked(program) != "", process)
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)  # noqa: S607 - the system's own
            wait_until(lambda: program.status()["runs"]["done"] == 1, process)
        program.assert_saved(simulator, [1])
