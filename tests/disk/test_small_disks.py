"""Real file systems that fill up: the service stops in time, loses nothing, and goes on."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from disk.small_disks import daemon, mounted
from harness import wait_until
from metrics.scraping import address, scrape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Program, StartSimulator

    from downloader.simulator.server import Simulator

MB = 1_000_000


@pytest.fixture
def simulator(start_simulator: StartSimulator, program: Program) -> Simulator:
    """Serve files of one megabyte."""
    simulator = start_simulator(min_size=MB, max_size=MB + 100)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    return simulator


@contextlib.contextmanager
def on_small_disk(program: Program, options: str) -> Iterator[Path]:
    """Have the program save to a small disk of its own, the database beside the files."""
    with mounted(program.folder / "disk", options) as disk:
        program.env["DOWNLOADER_DATABASE"] = str(disk / "runs.sqlite3")
        program.env["DOWNLOADER_OUTPUT"] = str(disk / "audio")
        yield disk


def remount(disk: Path, options: str) -> None:
    """Change the size or the mode of a small disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)  # noqa: S607 - the system's own


def free(disk: Path) -> int:
    """Return the free bytes of a disk."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@pytest.mark.needs("mount")
def test_a_daemon_stops_before_the_last_bytes_and_goes_on_by_itself(
    program: Program, simulator: Simulator
) -> None:
    """`--min-free` bytes stay free, no run fails or spends an attempt, and room ends the block."""
    min_free = 8 * MB
    with on_small_disk(program, "size=48m") as disk:
        program.submit(range(1, 21))
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(free(disk) - min_free - 6 * MB))
        with program.start("run", "--min-free", str(min_free)) as process:
            wait_until(lambda: program.status()["blocked"] is not None, process)
            blocked = program.status()
            assert blocked["blocked"]["reason"] == "disk_full"
            assert "--min-free" in blocked["blocked"]["message"]
            assert blocked["runs"]["failed"] == 0
            assert 0 < blocked["runs"]["done"] < 20
            assert free(disk) > min_free - MB  # less what the database has written meanwhile
            assert program("submit", "21").returncode == 0
            ballast.unlink()
            wait_until(lambda: program.status()["runs"]["done"] == 21, process)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate()
        assert process.returncode == 0, err
        assert err.count('"disk_full"') + err.count("disk_full") >= 1
        program.assert_saved(simulator, range(1, 22))
        assert program.status()["blocked"] is None


@pytest.mark.needs("mount")
@pytest.mark.parametrize("database", ["on the same disk", "elsewhere"])
def test_a_disk_that_is_full_to_the_last_byte(
    program: Program, simulator: Simulator, database: str
) -> None:
    """Without `--min-free` a drain runs into the wall, says so with exit 3, and loses nothing."""
    with on_small_disk(program, "size=12m") as disk:
        if database == "elsewhere":
            program.env["DOWNLOADER_DATABASE"] = str(program.database)
        program.submit(range(1, 21))
        for _ in range(2):
            done = program("run", "--drain", "--min-free", "0", "--lease", "2s")
            assert done.returncode == 3, done.stderr
            assert "full" in done.stderr
            assert "Traceback" not in done.stderr
        assert program.runs("failed") == []
        remount(disk, "size=64m")
        done = program("run", "--drain", "--min-free", "0", "--lease", "2s")
        assert done.returncode == 0, done.stderr
        program.assert_saved(simulator, range(1, 21))
        assert list((disk / "audio" / ".partial").iterdir()) == []


@pytest.mark.needs("mount")
def test_a_daemon_waits_for_the_disk_of_its_database(
    program: Program, simulator: Simulator
) -> None:
    """A daemon whose database cannot grow waits, says so, and goes on where there is room."""
    with on_small_disk(program, "size=4m") as disk:
        program.env["DOWNLOADER_OUTPUT"] = str(program.output)
        not_yet = {"runs": "*", "where": "api", "fault": {"kind": "pending"}}
        simulator.set_rules([not_yet])
        program.submit(range(1, 11))
        ballast = disk / "ballast"
        arguments = ("run", "--min-free", "0", "--min-poll", "0.2s", "--metrics-port", "0")
        with program.start(*arguments) as process:
            url = address(process)
            wait_until(lambda: all(row["polls"] for row in program.runs("pending")), process)
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            simulator.set_rules([])
            assert process.stderr is not None
            heard = next(line for line in process.stderr if "service.blocked" in line)
            assert "disk_full" in heard
            wait_until(lambda: scrape(url)("blocked", scope="database") == 1, process)
            ballast.unlink()
            wait_until(lambda: program.status()["runs"]["done"] == 10, process)
            assert scrape(url)("blocked") == 0
            process.send_signal(signal.SIGTERM)
            process.communicate()
        assert process.returncode == 0
        program.assert_saved(simulator, range(1, 11))


@pytest.mark.needs("mount")
def test_a_disk_with_no_room_for_a_file_more(program: Program, simulator: Simulator) -> None:
    """A shortage of inodes blocks as a full disk does, and is told for what it is."""
    with on_small_disk(program, "size=200m,nr_inodes=16") as disk:
        program.env["DOWNLOADER_DATABASE"] = str(program.database)
        program.submit(range(1, 21))
        done = program("run", "--drain", "--min-free", "0")
        assert done.returncode == 3
        assert "no more files (inodes)" in done.stderr
        assert program.runs("failed") == []
        remount(disk, "size=200m,nr_inodes=200")
        assert program("run", "--drain", "--min-free", "0").returncode == 0
        program.assert_saved(simulator, range(1, 21))


@pytest.mark.needs("mount")
def test_a_disk_that_becomes_read_only(program: Program, simulator: Simulator) -> None:
    """A disk that turns read-only blocks a daemon, which goes on when it can be written to."""
    with on_small_disk(program, "size=64m") as disk:
        program.env["DOWNLOADER_DATABASE"] = str(program.database)
        with daemon(program) as process:
            program.submit(range(1, 5))
            wait_until(lambda: program.status()["runs"]["done"] == 4, process)
            remount(disk, "ro")
            program.submit(range(5, 9))
            wait_until(lambda: program.status()["blocked"] is not None, process)
            assert program.status()["blocked"]["reason"] == "output_unusable"
            assert "Read-only file system" in program.status()["blocked"]["message"]
            remount(disk, "rw")
            wait_until(lambda: program.status()["runs"]["done"] == 8, process)
        program.assert_saved(simulator, range(1, 9))


def test_a_limit_on_the_size_of_files(program: Program, start_simulator: StartSimulator) -> None:
    """A file larger than the process may write fails its run alone, which says why."""
    simulator = start_simulator(
        rules=[{"runs": [2], "where": "storage", "fault": {"kind": "slow", "seconds": 0}}],
        min_size=1_000,
        max_size=2_000_000,
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    run_ids = range(1, 13)
    program.submit(run_ids)
    limit = 1_000_000
    large = {run_id for run_id in run_ids if len(simulator.audio(run_id)) > limit}
    assert 0 < len(large) < len(run_ids)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with program.start("run", "--drain", "--min-free", "0", preexec_fn=limited) as process:
        _, err = process.communicate()
    assert process.returncode == 1, err
    failed = program.runs("failed")
    assert {row["run_id"] for row in failed} == large
    assert {row["error_code"] for row in failed} == {"too_large"}
    program.assert_saved(simulator, [i for i in run_ids if i not in large])


def test_too_few_open_files(program: Program, start_simulator: StartSimulator) -> None:
    """A limit on open files blocks, spends no attempt, and is told with what can be done."""
    simulator = start_simulator(storage_latency=0.3)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 101))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

    arguments = ("run", "--drain", "--concurrency", "64", "--min-free", "0", "--lease", "5s")
    with program.start(*arguments, preexec_fn=limited) as process:
        _, err = process.communicate()
    assert process.returncode in (2, 3), err  # 2 where it is the database that finds none left
    assert "ulimit -n" in err
    assert program.runs("failed") == []
    assert program("run", "--drain", "--concurrency", "8", "--min-free", "0").returncode == 0
    program.assert_saved(simulator, range(1, 101))
    assert program.query("SELECT max(attempts) FROM runs") == [(1,)]


def test_files_larger_than_allowed(program: Program, start_simulator: StartSimulator) -> None:
    """`--max-file-size` fails what is announced larger, and cuts what has no end."""
    simulator = start_simulator(
        rules=[{"runs": [2], "where": "storage", "fault": {"kind": "framing", "form": "close"}}],
        min_size=600_000,
        max_size=700_000,
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 3))
    done = program("run", "--drain", "--min-free", "0", "--max-file-size", "500K")
    assert done.returncode == 1, done.stderr
    failed = program.runs("failed")
    assert {row["error_code"] for row in failed} == {"too_large"}
    assert all("--max-file-size" in row["error_message"] for row in failed)
    assert list((program.output / ".partial").iterdir()) == []
