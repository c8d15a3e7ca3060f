from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from downloader.errors import ConfigurationError
from downloader.store.migrate import open_database
from downloader.verification.verification import Options, Verification

if TYPE_CHECKING:
    from pathlib import Path

    from verify.verify_rig import Rig


def _mount_point(rig: Rig) -> None:
    """Leave what is there when a disk is not mounted: a folder with nothing in it."""
    rig.output.rename(rig.program.folder / "unmounted")
    rig.output.mkdir()


@pytest.mark.parametrize("options", [(), ("--quick",), ("--repair",), ("--repair", "--json")])
def test_a_folder_that_is_gone_is_not_damage(rig: Rig, options: tuple[str, ...]) -> None:
    """Without the folder of its files a run is not missing: exit 2, and nothing is changed."""
    rig.save(1, 2, 3)
    rows = rig.rows()
    rig.output.rename(rig.program.folder / "unmounted")
    done = rig.program("verify", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"The folder {rig.output} (3 saved files) is not there" in done.stderr
    assert "mount it" in done.stderr
    assert "--all-missing" in done.stderr
    assert rig.rows() == rows
    assert not rig.output.exists()


def test_a_file_in_the_place_of_the_folder(rig: Rig) -> None:
    """A folder whose name a file has is gone as well."""
    former = rig.program.folder / "former"
    rig.save(1, folder=former)
    shutil.rmtree(former)
    former.write_text("not a folder")
    done = rig.program("verify", "--repair")
    assert done.returncode == 2
    assert "(1 saved file) is not there" in done.stderr
    assert rig.states() == {1: "done"}


def test_an_empty_mount_point_is_not_repaired(rig: Rig) -> None:
    """With none of its files in a folder, they are told to be missing but not put back."""
    rig.save(1, 2, 3)
    rows = rig.rows()
    _mount_point(rig)
    assert rig.verify().kinds == dict.fromkeys((1, 2, 3), "missing")
    done = rig.program("verify", "--repair")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"The folder {rig.output} (3 saved files) is there, but without a single" in done.stderr
    assert "verify --repair --all-missing" in done.stderr
    assert rig.rows() == rows


@pytest.mark.parametrize("gone", [True, False])
def test_all_missing(rig: Rig, gone: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """`--all-missing` puts runs back though their folder is gone, or empty."""
    rig.save(1, 2, 3)
    _mount_point(rig)
    if gone:
        rig.output.rmdir()
    assert rig.verify("--all-missing").kinds == dict.fromkeys((1, 2, 3), "missing")
    assert rig.verify("--repair", "--all-missing").repaired == {1, 2, 3}
    assert rig.states() == dict.fromkeys((1, 2, 3), "pending")
    assert rig.verify("--repair").code == 0


def test_one_folder_of_several(rig: Rig) -> None:
    """One folder without its files keeps every repair from being made; it alone is named."""
    rig.save(1, 2)
    rig.save(3, 4, run_type="tts")
    rig.save(5, folder=rig.program.folder / "former")
    rig.path(1).unlink()
    (rig.program.folder / "former" / "5.wav").unlink()
    rows = rig.rows()
    done = rig.program("verify", "--repair")
    assert done.returncode == 2
    assert f"The folder {rig.program.folder / 'former'} (1 saved file) is there" in done.stderr
    assert str(rig.output) not in done.stderr
    assert rig.rows() == rows
    shutil.rmtree(rig.output / "tts")
    shutil.rmtree(rig.program.folder / "former")
    done = rig.program("verify")
    assert (done.returncode, done.stdout) == (2, "")
    assert "The folders " in done.stderr
    assert f"{rig.output / 'tts'} (2 saved files)" in done.stderr


def test_one_file_that_is_left_is_enough(rig: Rig) -> None:
    """A folder with one saved file left, be it damaged, is mounted: the others are put back."""
    rig.save(*range(1, 30))
    for run_id in range(1, 29):
        rig.path(run_id).unlink()
    rig.path(29).write_bytes(b"damaged")
    assert rig.verify("--repair").repaired == set(range(1, 30))


def test_an_output_folder_that_is_not_there(rig: Rig) -> None:
    """Where the files are recorded in another folder, a wrong --output is told, with exit 2."""
    rig.save(1)
    done = rig.program("verify", "--output", "mistyped")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"The output folder {rig.program.folder / 'mistyped'} is not there" in done.stderr
    assert f"{rig.output} (1 saved file) is where saved files are recorded" in done.stderr


def test_files_recorded_in_several_folders(rig: Rig) -> None:
    """A run's file is looked for where it was recorded, whichever folder is the output now."""
    former = rig.program.folder / "former"
    rig.save(1)
    rig.save(2, 3, folder=former)
    assert rig.verify().code == 0
    (former / "2.wav").write_bytes(b"damaged")
    assert rig.verify("--repair").repaired == {2}
    assert (former / "2.wav.damaged-1").read_bytes() == b"damaged"


def test_a_folder_that_has_moved(rig: Rig) -> None:
    """With a symbolic link in its old place a moved output folder is verified and repaired."""
    rig.save(1, 2, 3)
    moved = rig.program.folder / "moved"
    rig.output.rename(moved)
    rig.output.symlink_to(moved)
    assert rig.verify().code == 0
    assert rig.verify("--output", str(moved)).code == 0
    for run_id, output in ((1, rig.output), (2, moved)):
        (moved / f"{run_id}.wav").write_bytes(b"damaged")
        assert rig.verify("--repair", "--output", str(output)).repaired == {run_id}
        assert (moved / f"{run_id}.wav.damaged-1").read_bytes() == b"damaged"


def test_nothing_is_renamed_through_a_link(rig: Rig) -> None:
    """In a linked folder that is not the output folder damage is reported, not repaired."""
    elsewhere = rig.program.folder / "elsewhere"
    linked = rig.program.folder / "linked"
    rig.save(1)
    rig.save(2, folder=linked)
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    (elsewhere / "2.wav").write_bytes(b"damaged")
    found = rig.verify("--repair")
    assert found.kinds == {2: "damaged"}
    assert found.repaired == set()
    assert "its folder is a symbolic link, name it with --output" in found.findings[0]["detail"]
    assert [path.name for path in elsewhere.iterdir()] == ["2.wav"]
    assert rig.states() == {1: "done", 2: "done"}


@pytest.mark.parametrize("replaced", [True, False])
def test_a_disk_that_goes_away_meanwhile(rig: Rig, tmp_path: Path, replaced: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A folder that vanishes, or is suddenly another, ends it all: no run is put back."""
    rig.save(*range(1, 401))
    rig.path(1).unlink()

    def unmount() -> None:
        if not (tmp_path / "unmounted").exists():
            rig.output.rename(tmp_path / "unmounted")
            if replaced:
                rig.output.mkdir()

    with closing(open_database(rig.program.database)) as database:
        verification = Verification(database, rig.output, Options(repair=True), unmount)
        with (
            closing(verification.findings()) as findings,
            pytest.raises(ConfigurationError, match="is another than when the verification began"),
        ):
            list(findings)
    assert set(rig.states().values()) == {"done"}
