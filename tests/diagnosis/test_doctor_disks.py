from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from disk.small_disks import mounted

from downloader.diagnosis import disks

if TYPE_CHECKING:
    from cli.calling import Caller
    from diagnosis.conftest import Doctor
    from harness import StartSimulator

MB = 1_000_000


@pytest.fixture(autouse=True)
def _asked_api(call: Caller, start_simulator: StartSimulator) -> None:
    """Have an API that is well."""
    call.set(DOWNLOADER_API_URL=start_simulator().api_url)


def names(folder: Path) -> set[str]:
    """Return all that is in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_an_output_folder(call: Caller, doctor: Doctor) -> None:
    """A folder that can be written to is told so, and nothing of the probe is left in it."""
    partial = call.folder / "audio" / ".partial"
    partial.mkdir(parents=True)
    for arguments in ([], ["--quick"]):
        found = doctor(*arguments)
        assert found.statuses == {}
        assert "can be written to" in found.finding("output")
    assert "two names" in doctor().finding("hard_links")
    assert names(call.folder / "audio") == {".partial"}


@pytest.mark.parametrize("place", ["audio", "audio/.partial"])
def test_a_file_in_the_place_of_a_folder(call: Caller, doctor: Doctor, place: str) -> None:
    """What is no folder cannot be written to."""
    (call.folder / place).parent.mkdir(exist_ok=True)
    (call.folder / place).write_bytes(b"")
    for arguments in ([], ["--quick"]):
        found = doctor(*arguments)
        assert found.statuses == {"output": "problem"}
        assert "not a folder" in found.finding("output")
        assert "--output" in found.finding("output")


def test_a_folder_of_no_links(
    call: Caller, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file cannot have two names, a warning says what follows from that."""
    (call.folder / "audio").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    found = doctor()
    assert found.statuses == {"hard_links": "warning"}
    assert "renamed instead" in found.finding("hard_links")
    assert names(call.folder / "audio") == set()


@pytest.mark.needs("mount")
def test_a_disk_that_is_mounted_read_only(call: Caller, doctor: Doctor) -> None:
    """What is on a disk that is read-only is found by root as well, and nothing is tried there."""
    with mounted(call.folder / "disk", "size=4m") as disk:
        (disk / "audio").mkdir()
        (disk / "runs.sqlite3").write_bytes(call.database.read_bytes())
        (disk / "runs.sqlite3").chmod(0o600)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)  # noqa: S607 - the system's own
        here = ("--min-free", "1M")
        for arguments in ([*here], [*here, "--quick"]):
            found = doctor("--output", disk / "audio", *arguments)
            assert found.statuses == {"output": "problem"}
            found = doctor("--output", disk / "new", *arguments)
            assert found.statuses == {"output": "problem"}
            assert "cannot be created" in found.finding("output")
            found = doctor("--database", disk / "runs.sqlite3", "--output", call.folder, *arguments)
            assert found.statuses == {"database": "problem"}
            assert "Read-only file system" in found.finding("database")
            found = doctor("--database", disk / "new.sqlite3", "--output", call.folder, *arguments)
            assert found.statuses == {"database": "problem"}


@pytest.mark.needs("mount")
def test_a_disk_that_is_full(call: Caller, doctor: Doctor) -> None:
    """A disk with less left than --min-free is a problem for what is on it, even where it is 0."""
    with mounted(call.folder / "disk", "size=8m") as disk:
        output = ("--output", disk / "audio")
        found = doctor(*output, "--quick")
        assert found.statuses == {"output_disk": "problem"}
        assert "500 MB are to stay free (--min-free)" in found.finding("output_disk")
        assert doctor(*output, "--quick", "--min-free", "1M").statuses == {}
        (disk / "audio").mkdir()
        with (
            contextlib.suppress(OSError),
            (disk / "ballast").open("wb", buffering=0) as file,
        ):
            while file.write(bytes(4096)):
                pass
        for arguments in ([], ["--quick"]):
            found = doctor(*output, *arguments, "--min-free", "0")
            assert found.statuses == {"output_disk": "problem"}
        assert names(disk) == {"audio", "ballast"}


@pytest.mark.needs("mount")
def test_a_disk_without_inodes(call: Caller, doctor: Doctor) -> None:
    """Room for bytes is none where there is no room for one file more."""
    with mounted(call.folder / "disk", "size=8m,nr_inodes=40") as disk:
        output = ("--output", disk / "audio", "--min-free", "1M", "--quick")
        found = doctor(*output)
        assert found.statuses == {"output_disk": "warning"}
        assert "inodes" in found.finding("output_disk")
        with contextlib.suppress(OSError):
            for number in range(1000):
                (disk / str(number)).touch()
        assert doctor(*output).statuses == {"output_disk": "problem"}


@pytest.mark.parametrize("type_", ["nfs4", "cifs", "smb3", "fuse.sshfs"])
def test_network_file_systems(
    call: Caller, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, type_: str
) -> None:
    """A database there is a problem, files there are a warning; both name the file system."""
    real = os.path.realpath(call.folder)
    mounts = call.folder / "mountinfo"
    mounts.write_text(
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        f"40 22 0:50 / {real}/far rw,relatime shared:1 - {type_} server:/far rw\n"
    )
    monkeypatch.setattr(disks, "_MOUNTS", mounts)
    (call.folder / "far").mkdir()
    assert doctor().statuses == {}
    found = doctor("--output", call.folder / "far" / "audio")
    assert found.statuses == {"output_file_system": "warning"}
    assert f"({type_}, mounted at {real}/far)" in found.finding("output_file_system")
    found = doctor("--database", call.folder / "far" / "runs.sqlite3", "--output", call.folder)
    assert found.statuses == {"database_file_system": "problem"}
    assert "WAL does not work" in found.finding("database_file_system")


def test_where_mounts_are_not_told(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a system that lists no mounts the kind of a file system is not known, and is told so."""
    monkeypatch.setattr(disks, "_MOUNTS", tmp_path / "none")
    found = doctor()
    assert found.statuses == {}
    assert "not known" in found.finding("database_file_system")


def test_this_machine(doctor: Doctor) -> None:
    """The file system of this machine's own folder for temporary files is found."""
    if Path("/proc/self/mountinfo").exists():
        assert "mounted at /" in doctor().finding("output_file_system")
