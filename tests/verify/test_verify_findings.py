from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
from verify.verify_rig import TYPE, Rig, content, settled

from downloader.clock import utc_now
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Program, Unprivileged


def test_all_is_well(rig: Rig) -> None:
    """Where every file is what was recorded, one line says so, with exit 0 and no bar."""
    rig.save(1, 2, 3)
    rig.save(4, run_type="tts")
    done = rig.program("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "checked 4 saved files (0.0 MB read): all is well\n"
    done = rig.program("verify", "--quick", "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "checked 4 saved files (existence and size only): all is well\n"
    assert rig.verify().summary["read_bytes"] == 20_000
    assert rig.verify("--quick").summary["read_bytes"] == 0


def test_nothing_saved_yet(rig: Rig) -> None:
    """Where nothing is saved, and not even the output folder is made, it says so."""
    shutil.rmtree(rig.output)
    rig.track(1, "pending")
    assert rig.verify("--repair").code == 0
    said = rig.program("verify").stdout
    assert said == f"nothing to check: no saved run is recorded in {rig.program.database}\n"
    assert not rig.output.exists()


def _gone(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    path.write_bytes(content(2)[:4000])


def _longer(path: Path) -> None:
    path.write_bytes(content(2) + b"x")


def _other_bytes(path: Path) -> None:
    path.write_bytes(content(3))


def _link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere.wav"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: list[tuple[Callable[[Path], None], str, str]] = [
    (_gone, "missing", "2.wav is not there"),
    (_truncated, "damaged", "4000 bytes instead of 5000"),
    (_longer, "damaged", "5001 bytes instead of 5000"),
    (_other_bytes, "damaged", "5000 bytes as recorded, but not the same ones (SHA-256 "),
    (_link, "damaged", "2.wav is a symbolic link, not a file"),
    (_dangling, "damaged", "2.wav is a symbolic link, not a file"),
    (_folder, "damaged", "2.wav is a folder, not a file"),
    (_pipe, "damaged", "2.wav is a pipe, not a file"),
]


@pytest.mark.parametrize(("damage", "kind", "detail"), DAMAGES)
def test_damage_is_found_and_nothing_changed(
    rig: Rig, damage: Callable[[Path], None], kind: str, detail: str
) -> None:
    """Each damage is told of its run alone, with exit 1; without --repair nothing is touched."""
    rig.save(1, 2, 3)
    damage(rig.path(2))
    tree, rows = rig.tree(), rig.rows()
    found = rig.verify()
    assert found.kinds == {2: kind}
    [finding] = found.findings
    assert finding["path"] == str(rig.path(2))
    assert finding["run_type"] == TYPE
    assert detail in finding["detail"]
    assert finding["repair"] is None
    assert found.summary["checked"] == 3
    done = rig.program("verify")
    assert (done.returncode, done.stderr) == (1, "")
    first, summary, hint = done.stdout.splitlines()
    assert first == f"{kind} 2: {finding['detail']}"
    assert re.fullmatch(rf"checked 3 saved files \(0.0 MB read\): 1 {kind}; 0 repaired", summary)
    assert "--repair" in hint
    assert (rig.tree(), rig.rows()) == (tree, rows)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(damage, kind) for damage, kind, _ in DAMAGES if damage is not _other_bytes],
)
def test_quick_sees_all_but_other_bytes(
    rig: Rig, damage: Callable[[Path], None], kind: str
) -> None:
    """`--quick` finds what is missing, has another size, or is no file."""
    rig.save(1, 2)
    damage(rig.path(2))
    assert rig.verify("--quick").kinds == {2: kind}


def test_quick_does_not_read(rig: Rig) -> None:
    """`--quick` does not see that a file of the right size has other bytes; without it that is."""
    rig.save(1, 2)
    _other_bytes(rig.path(2))
    assert rig.verify("--quick").code == 0
    assert rig.verify().kinds == {2: "damaged"}


def test_the_findings_come_in_the_order_of_the_ids(rig: Rig) -> None:
    """However many threads read, findings are in the order of the runs' types and ids."""
    rig.save(*range(1, 40))
    rig.save(*range(1, 10), run_type="tts")
    for path in rig.output.rglob("*.wav"):
        path.write_bytes(b"damaged")
    found = rig.verify("--threads", "8").findings
    assert [(one["run_type"], one["run_id"]) for one in found] == [
        *((TYPE, run_id) for run_id in range(1, 40)),
        *(("tts", run_id) for run_id in range(1, 10)),
    ]
    assert "damaged 9 (tts): 7 bytes instead of 5000" in rig.program("verify").stdout


def test_what_cannot_be_looked_at(rig: Rig) -> None:
    """A file that cannot be reached is a finding of its own kind, which --repair leaves alone."""
    rig.save(1, 2)
    loop = rig.program.folder / "loop"
    loop.symlink_to(loop)
    rig.execute("UPDATE runs SET location = ? WHERE run_id = 2", str(loop / "2.wav"))
    rig.path(2).unlink()
    rows = rig.rows()
    found = rig.verify("--repair")
    assert found.kinds == {2: "unreadable"}
    assert "cannot be read" in found.findings[0]["detail"]
    assert found.repaired == set()
    assert rig.rows() == rows


@pytest.mark.needs("unprivileged")
def test_what_may_not_be_read_or_moved(unprivileged: Unprivileged) -> None:
    """A file without permission is unreadable; in a folder without it nothing is repaired."""
    rig = Rig(unprivileged)
    rig.save(1, 2, 3)
    unprivileged.own()
    rig.path(1).chmod(0)
    rig.path(2).write_bytes(b"damaged")
    rig.output.chmod(0o500)
    try:
        found = rig.verify("--repair")
    finally:
        rig.output.chmod(0o700)
    assert found.kinds == {1: "unreadable", 2: "damaged"}
    details = [one["detail"] for one in found.findings]
    assert details[0].endswith("cannot be read: Permission denied")
    assert details[1].endswith("; not repaired: it cannot be moved aside: Permission denied")
    assert set(rig.states().values()) == {"done"}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file whose reading is an I/O error")
def test_an_io_error(rig: Rig) -> None:
    """A file whose bytes the disk does not give is unreadable, not damaged."""
    rig.save(1, 2)
    rig.path(2).unlink()
    rig.execute("UPDATE runs SET location = '/proc/self/mem', bytes = 0 WHERE run_id = 2")
    found = rig.verify("--repair")
    assert found.kinds == {2: "unreadable"}
    assert found.findings[0]["detail"] == "/proc/self/mem cannot be read: Input/output error"
    assert rig.states() == {1: "done", 2: "done"}


STRAYS: list[tuple[str, dict[str, Any], str | None]] = [
    ("untracked", {}, "`downloader submit 7`"),
    ("pending", {}, "takes this file for it if it is equal"),
    ("pending", {"lease_seconds": 60}, "takes this file for it if it is equal"),
    ("ready", {}, "takes this file for it if it is equal"),
    ("downloading", {"lease_seconds": -1}, "takes this file for it if it is equal"),
    ("downloading", {"lease_seconds": 60}, None),
    ("failed", {}, "has failed: move it away, or `downloader retry 7`"),
    ("cancelled", {}, "was cancelled: move it away, or `downloader retry 7`"),
]


@pytest.mark.parametrize(("state", "lease", "advice"), STRAYS)
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_orphans(
    rig: Rig, state: str, lease: dict[str, float], advice: str | None, kind: str
) -> None:
    """A file that no done run has is told with what can be done; but not what is being saved."""
    rig.save(1)
    if state != "untracked":
        rig.track(7, state, **lease)
    if kind == "file":
        rig.path(7).write_bytes(b"whose?")
    elif kind == "folder":
        rig.path(7).mkdir()
    else:
        rig.path(7).symlink_to("1.wav")
    tree, rows = rig.tree(), rig.rows()
    found = rig.verify("--repair")
    assert found.kinds == ({} if advice is None else {7: "orphan"})
    if advice is not None:
        assert found.findings[0]["path"] == str(rig.path(7))
        detail = found.findings[0]["detail"]
        if kind == "file":
            assert advice in detail
        else:  # whatever the service has of the run, it is not equal to this
            assert "not a saved file: move it away" in detail
            assert "submit" not in detail
            assert "equal" not in detail
    assert (rig.tree(), rig.rows()) == (tree, rows)


def test_an_orphan_beside_a_saved_file(rig: Rig) -> None:
    """A second file of a run that is done, in another format, is not that run's."""
    rig.save(1)
    rig.path(1, "flac").write_bytes(b"whose?")
    found = rig.verify("--repair")
    assert found.kinds == {1: "orphan"}
    assert f"which is {rig.path(1)}: move it away" in found.findings[0]["detail"]
    assert rig.tree()["1.flac"] == b"whose?"


def test_orphans_of_other_types(rig: Rig) -> None:
    """The folder of another run type is looked through too, and its runs are told apart."""
    rig.save(1)
    rig.save(2, run_type="tts")
    (rig.output / "tts" / "1.mp3").write_bytes(b"whose?")
    done = rig.program("verify")
    assert done.returncode == 1
    assert done.stdout.startswith("orphan 1 (tts): ")
    assert "`downloader submit --type tts 1`" in done.stdout
    assert "1 orphan; 0 repaired" in done.stdout


def test_files_of_other_names_are_nobodys_business(rig: Rig) -> None:
    """Nothing is told of files that are not named as ours are, wherever they lie."""
    rig.save(1)
    names = ["notes.txt", "007.wav", "0.wav", "-5.wav", "7.WAV", "7.wav.bak", "7.wav.damaged-1"]
    names += [
        "99999999999999999999.wav",
        "9223372036854775808.wav",
        "7",
        "7.aac",
        "\u0667.wav",
        ".7.wav",
    ]
    for name in names:
        (rig.output / name).write_bytes(b"mine")
    (rig.output / "music").mkdir()
    (rig.output / "music" / "7.wav").write_bytes(b"mine")
    (rig.parts / "7.wav").write_bytes(b"mine")
    (rig.output / os.fsdecode(b"\xff7.wav")).write_bytes(b"mine")
    tree = rig.tree()
    assert rig.verify("--repair").code == 0
    assert rig.tree() == tree


def test_the_largest_id(rig: Rig) -> None:
    """The largest run id there can be is looked up as any other."""
    rig.save(2**63 - 1)
    assert rig.verify().code == 0


def test_a_linked_folder_of_another_type_is_not_ours(rig: Rig) -> None:
    """A link in the place of a run type's folder is not looked through."""
    rig.save(1)
    elsewhere = rig.program.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "7.wav").write_bytes(b"mine")
    (rig.output / "tts").symlink_to(elsewhere)
    assert rig.verify().code == 0


def test_stale_parts(rig: Rig) -> None:
    """Parts of runs that are over, or not tracked, are stale; --repair removes these alone."""
    rig.save(1, 2)
    rig.track(3, "failed")
    rig.track(4, "cancelled")
    for run_id, state in enumerate(("pending", "ready"), 5):
        rig.track(run_id, state)
    rig.track(7, "downloading", lease_seconds=60)
    rig.track(8, "downloading", lease_seconds=-60)
    rig.execute("UPDATE runs SET updated_at = ? WHERE run_id = 2", to_text(utc_now()))
    for run_id in (1, 2, 3, 4, 5, 6, 7, 8, 900):
        rig.part(run_id).write_bytes(b"x" * run_id)
    found = rig.verify()
    assert found.kinds == dict.fromkeys((1, 3, 4, 900), "stale_part")
    assert {one["run_id"]: one["detail"].rpartition("part, ")[2] for one in found.findings} == {
        1: "1 bytes: the run is done",
        3: "3 bytes: the run is failed",
        4: "4 bytes: the run is cancelled",
        900: "900 bytes: the run is not tracked",
    }
    rows = rig.rows()
    assert rig.verify("--repair").repaired == {1, 3, 4, 900}
    assert rig.rows() == rows
    assert {path.name for path in rig.parts.iterdir()} == {
        rig.part(run_id).name for run_id in (2, 5, 6, 7, 8)
    }
    assert rig.verify().code == 0


def test_a_part_that_is_held_is_not_stale(rig: Rig) -> None:
    """A part that another process has locked is neither reported nor removed."""
    rig.save(1)
    rig.part(1).write_bytes(b"x")
    with rig.part(1).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert rig.verify("--repair").code == 0
    assert rig.verify("--repair").repaired == {1}


def test_what_only_looks_like_a_part(rig: Rig) -> None:
    """What is not named exactly as we name parts, or is no file, is not removed."""
    names = [
        "text-to-sound-9.0123456789ab.0.part.bak",
        "text-to-sound-9.0123456789AB.0.part",
        "text-to-sound-9.0123.0.part",
        "text-to-sound-09.0123456789ab.0.part",
        "text-to-sound-9999999999999999999.0123456789ab.0.part",
        "podcast-9.0123456789ab.0.part",
        "other.part",
        ".probe-0123456789",
        "probe-01234567",
    ]
    for name in names:
        (rig.parts / name).write_bytes(b"")
        settled(rig.parts / name)
    rig.part(9).symlink_to(rig.program.folder / "home")
    rig.part(10).mkdir()
    full = rig.parts / ".probe-01234567"
    full.write_bytes(b"not empty")
    settled(full)
    tree = rig.tree()
    assert rig.verify("--repair").code == 0
    assert rig.tree() == tree


def test_probes(rig: Rig) -> None:
    """The empty file of a start that was cut off is stale, once it is a minute old."""
    old, new = rig.parts / ".probe-0123abcd", rig.parts / ".probe-4567abcd"
    for probe in (old, new):
        probe.write_bytes(b"")
    settled(old)
    found = rig.verify("--repair")
    assert [(one["run_id"], one["path"], one["repair"]) for one in found.findings] == [
        (None, str(old), "removed")
    ]
    assert list(rig.parts.iterdir()) == [new]


def test_no_database(program: Program) -> None:
    """A database that is not there is not found to be all well, nor made."""
    done = program("verify", "--database", "mistyped.sqlite3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no database at " in done.stderr
    assert not (program.folder / "mistyped.sqlite3").exists()
