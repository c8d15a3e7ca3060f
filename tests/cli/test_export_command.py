from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from store.driving import OTHER_TYPE, Driver

if TYPE_CHECKING:
    from pathlib import Path

    from cli.calling import Caller


def test_csv(call: Caller, driver: Driver) -> None:
    """A manifest in CSV has a heading, and a row for each saved file in the order of run ids."""
    driver.done(30)
    driver.done(4)
    driver.submit(5)
    answer = call("export")
    assert (answer.code, answer.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert [row["run_id"] for row in rows] == ["4", "30"]
    assert rows[0] == {
        "run_type": "text-to-sound",
        "run_id": "4",
        "location": "/audio/4.wav",
        "bytes": "1000",
        "sha256": f"{4:064x}",
        "audio_format": "wav",
        "submitted_at": "2026-03-01 12:00:00.000000",
        "done_at": "2026-03-01 12:00:00.000000",
    }


def test_json_lines(call: Caller, driver: Driver) -> None:
    """A manifest in JSON lines has one object for each saved file."""
    driver.done(4, 30)
    lines = call("export", "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == [4, 30]


def test_playlist(call: Caller, driver: Driver, tmp_path: Path) -> None:
    """A playlist names each file, absolute or seen from where the playlist is."""
    driver.done(4, 30)
    path = tmp_path / "lists" / "all.m3u8"
    path.parent.mkdir()
    assert call("export", "--format", "m3u", "--file", path).out == ""
    assert path.read_text() == (
        "#EXTM3U\n#EXTINF:-1,text-to-sound 4\n/audio/4.wav\n"
        "#EXTINF:-1,text-to-sound 30\n/audio/30.wav\n"
    )
    driver.execute("UPDATE runs SET location = ? || run_id || '.wav'", f"{tmp_path}/audio/")
    call("export", "--format", "m3u", "--file", path, "--relative")
    assert "\n../audio/4.wav\n" in path.read_text()


def test_check_sums(call: Caller, driver: Driver, tmp_path: Path) -> None:
    r"""sha256sum --check takes the manifest, also with a \ and a line break in a path."""
    folder = tmp_path / "a\\b\nc"
    folder.mkdir()
    driver.done(4, 30)
    for run_id in (4, 30):
        path = folder / f"{run_id}.wav"
        path.write_bytes(b"audio %d" % run_id)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        driver.execute(
            "UPDATE runs SET location = ?, sha256 = ? WHERE run_id = ?", str(path), digest, run_id
        )
    assert call("export", "--format", "sha256", "--file", "sums").code == 0
    check = ["sha256sum", "--check", "--strict", "--quiet", "sums"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (folder / "4.wav").write_bytes(b"other")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1
    answer = call("export", "--format", "m3u", "--file", "list.m3u")
    assert answer.code == 2
    assert "run 4 has a line break" in answer.err
    assert not (tmp_path / "list.m3u").exists()


def test_which_files(call: Caller, driver: Driver) -> None:
    """A manifest can be of one type, and of what was submitted since or before."""
    driver.done(4)
    driver.submit(5, run_type=OTHER_TYPE)

    def count(*arguments: str) -> int:
        return len(call("export", "--format", "jsonl", *arguments).out.splitlines())

    assert count() == 1
    assert count("--type", OTHER_TYPE) == 0
    assert count("--older-than", "0") == 1
    assert count("--newer-than", "1s") == 0
    assert count("--older-than", "3650d") == 0


def test_a_manifest_is_replaced_whole(call: Caller, driver: Driver, tmp_path: Path) -> None:
    """What was there before is replaced at the end; where that cannot be it stays as it was."""
    driver.done(4)
    path = tmp_path / "manifest.csv"
    path.write_text("before")
    assert call("export", "--file", path).code == 0
    assert "/audio/4.wav" in path.read_text()
    before = path.read_text()
    driver.execute("UPDATE runs SET location = 'a' || char(10) || 'b'")
    assert call("export", "--format", "m3u", "--file", path).code == 2
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir() if "manifest" in one.name] == ["manifest.csv"]
    answer = call("export", "--file", tmp_path / "nowhere" / "manifest.csv")
    assert answer.code == 2
    assert "manifest.csv cannot be written: No such file or directory." in answer.err
    assert call("export", "--file", tmp_path).code == 2


@pytest.mark.parametrize("arguments", [["--format", "xml"], ["--older-than", "x"], ["4"]])
def test_bad_arguments(call: Caller, arguments: list[str]) -> None:
    """A format, an age or an argument that there is not ends in 2, and shows nothing."""
    answer = call("export", *arguments)
    assert (answer.code, answer.out) == (2, "")
