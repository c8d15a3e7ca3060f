"""Output folders without hard links, locks or fsync: what can be done without is done without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from disk.poor_folders import KINDS, NUMBERS, poor
from disk.small_disks import mounted

if TYPE_CHECKING:
    from harness import Program, StartSimulator

    from downloader.simulator.server import Simulator

RUN_IDS = range(1, 9)
CALLS = ("fsync_file", "fsync_folder", "flock", "link")
RUN = ("run", "--drain", "--min-free", "0")


@pytest.fixture
def simulator(start_simulator: StartSimulator, program: Program) -> Simulator:
    """Serve what the program asks for."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    return simulator


def checked(program: Program) -> dict[str, str]:
    """Return what `doctor` says of each thing that it finds wrong with the folder."""
    checks = json.loads(program("doctor", "--json", "--min-free", "0").stdout)["checks"]
    about = ("output", "hard_links", "file_locks", "forced_writes", "output_disk")
    return {
        one["name"]: f"{one['status']}: {one['finding']}"
        for one in checks
        if one["name"] in about and one["status"] != "ok"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_saving_on_a_kind_of_file_system(program: Program, simulator: Simulator, kind: str) -> None:
    """Every file is saved, fetched once, and nothing of it is left in the folder of parts."""
    poor(program, KINDS[kind])
    program.submit(RUN_IDS)
    done = program(*RUN)
    assert done.returncode == 0, done.stderr
    program.assert_saved(simulator, RUN_IDS)
    assert simulator.stats()["storage"]["requests"] == len(RUN_IDS)
    assert list((program.output / ".partial").iterdir()) == []
    assert {path.name.split(".")[1] for path in program.output.iterdir()} <= {
        *("partial", "wav", "flac", "mp3", "ogg")
    }
    verified = program("verify")
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize("turn", range(0, len(NUMBERS), len(CALLS)))
def test_saving_where_there_is_nothing_of_it(
    program: Program, simulator: Simulator, turn: int
) -> None:
    """By whatever number it is said that there are no locks, links and fsync: files are saved.

    Each number is said by one of them; `test_durable.py` has each by each.
    """
    numbers = (NUMBERS + NUMBERS)[turn : turn + len(CALLS)]
    poor(program, dict(zip(CALLS, numbers, strict=True)))
    program.submit(RUN_IDS)
    done = program(*RUN)
    assert done.returncode == 0, done.stderr
    program.assert_saved(simulator, RUN_IDS)
    assert simulator.stats()["storage"]["requests"] == len(RUN_IDS)
    found = checked(program)
    assert {name: said.split(":")[0] for name, said in found.items()} == dict.fromkeys(
        ("hard_links", "file_locks", "forced_writes"), "warning"
    )


@pytest.mark.parametrize(
    ("call", "number"),
    [
        *(("fsync_file", "EIO"), ("fsync_folder", "ENOSPC"), ("link", "EROFS")),
        *(("flock", "EDQUOT"), ("fsync_file", "ESTALE")),
    ],
)
def test_a_disk_that_fails(program: Program, simulator: Simulator, call: str, number: str) -> None:
    """A disk that fails, is full or read-only is told as that, and before anything is fetched."""
    poor(program, {call: number})
    program.submit(RUN_IDS)
    for _ in range(2):
        done = program(*RUN)
        assert done.returncode == 3, done.stderr
        assert "full" in done.stderr or "quota" in done.stderr or "written to" in done.stderr
    assert simulator.stats()["storage"]["requests"] == 0
    assert program.query("SELECT max(attempts), sum(state = 'failed') FROM runs") == [(0, 0)]
    del program.env["POOR"]
    assert program(*RUN).returncode == 0
    program.assert_saved(simulator, RUN_IDS)


def test_trouble_that_only_saving_a_file_shows(program: Program, simulator: Simulator) -> None:
    """A folder that was of no use is tried with one file at a time by whatever starts next."""
    poor(program, {"link_of_saved": "EIO"})
    program.submit(RUN_IDS)
    assert program(*RUN).returncode == 3
    asked = simulator.stats()["storage"]["requests"]
    for mode in ("--drain", "--once"):
        done = program("run", mode, "--min-free", "0")
        assert done.returncode == 3
        assert "Input/output error" in done.stderr
        assert simulator.stats()["storage"]["requests"] == asked + 1
        asked += 1
    del program.env["POOR"]
    assert program(*RUN).returncode == 0
    program.assert_saved(simulator, RUN_IDS)
    assert program.status()["blocked"] is None


def test_a_folder_that_is_well_again_with_nothing_to_save(program: Program) -> None:
    """What a folder was blocked for is over when a call finds it well, and has nothing to save."""
    poor(program, {"fsync_folder": "EIO"})
    program.submit([1])
    program("cancel", "1")
    assert program(*RUN).returncode == 3
    assert program.status()["blocked"]["reason"] == "output_unusable"
    del program.env["POOR"]
    assert program(*RUN).returncode == 0
    assert program.status()["blocked"] is None


@pytest.mark.needs("mount")
def test_a_disk_that_does_not_tell_its_room(program: Program, simulator: Simulator) -> None:
    """A file system that has zeros for its size, as a tmpfs without a limit, is not full."""
    with mounted(program.folder / "disk", "size=0") as disk:
        program.env["DOWNLOADER_OUTPUT"] = str(disk / "audio")
        program.submit(RUN_IDS)
        done = program("run", "--drain", "--min-free", "1M")
        assert done.returncode == 0, done.stderr
        program.assert_saved(simulator, RUN_IDS)
        assert checked(program) == {}


@pytest.mark.needs("mount")
def test_a_folder_of_parts_that_is_another_mount(program: Program, simulator: Simulator) -> None:
    """Where the parts are on a disk of their own, files are copied to where they are saved."""
    program.output.mkdir()
    with mounted(program.output / ".partial", "size=64m"):
        program.submit(RUN_IDS)
        done = program(*RUN)
        assert done.returncode == 0, done.stderr
        program.assert_saved(simulator, RUN_IDS)
        assert {path.suffix for path in program.output.iterdir()} <= {
            *(".partial", "", ".wav", ".flac", ".mp3", ".ogg")
        }
        assert list((program.output / ".partial").iterdir()) == []
