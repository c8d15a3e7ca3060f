from __future__ import annotations

import html
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from inspecting.conftest import SAVED
from inspecting.looking import Site, inspected
from store.driving import OTHER_TYPE, TYPE, Driver

from downloader.cli import words
from downloader.rules.steps import Published
from downloader.store.database import Database, database_url
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from harness import Program

CONTENT: Final = bytes(range(256)) * 8


def audio(run_id: int, run_type: str = TYPE) -> str:
    """Return where the player asks."""
    return f"/-/audio/{run_type}/{run_id}"


def recorded(site: Site, run_id: int) -> bytes:
    """Return the bytes of a run's saved file."""
    [(location,)] = site.program.query("SELECT location FROM runs WHERE run_id = ?", run_id)
    return Path(location).read_bytes()


@pytest.mark.parametrize("run_id", SAVED)
def test_a_saved_file_is_streamed(site: Site, run_id: int) -> None:
    """The player gets the saved file, whole, as what it is."""
    answer = site.ask(audio(run_id))
    assert (answer.status, answer.headers["content-type"]) == (200, "audio/wav")
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.content == recorded(site, run_id)
    head = site.ask(audio(run_id), "HEAD")
    assert (head.status, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-", slice(0, None)),
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-199", slice(100, 200)),
        ("bytes=1000-99999999999", slice(1000, None)),
        ("bytes=-50", slice(-50, None)),
    ],
)
def test_a_part_of_it(site: Site, asked: str, part: slice) -> None:
    """A player that seeks gets just the part that it asks for."""
    whole = recorded(site, 1)
    answer = site.ask(audio(1), Range=asked)
    assert (answer.status, answer.content) == (206, whole[part])
    begin, end, _ = part.indices(len(whole))
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(whole)}"


def test_a_part_that_is_not_there(site: Site) -> None:
    """A part behind the end is refused with the length that there is."""
    answer = site.ask(audio(1), Range="bytes=99999999-")
    assert answer.status == 416
    assert answer.headers["content-range"].endswith(f"*/{len(recorded(site, 1))}")


@pytest.mark.parametrize(
    "path",
    [
        *(audio(run_id) for run_id in (0, 999, 2**63, 10**18)),
        *(audio(run_id) for run_id in (100, 201, 204, 501, 504, 508)),  # no file of ours; not done
        *(
            audio(1, run_type)
            for run_type in ("tts", "sound", "..", "text_to_sound", "TEXT-TO-SOUND")
        ),
        "/-/audio/1",
        "/-/audio/text-to-sound/1.wav",
        "/-/audio/text-to-sound/-1",
        "/-/audio/text-to-sound/..%2F..%2Fetc%2Fpasswd",
        "/-/audio/text-to-sound/../../runs.sqlite3",
        "/-/audio/../../../../etc/passwd",
        "/-/audio/text-to-sound//etc/passwd",
        "/-/static/..%2F..%2F..%2Fetc%2Fpasswd",
        "/-/static/../../../../../../../../etc/passwd",
    ],
)
def test_nothing_else_is_streamed(site: Site, path: str) -> None:
    """What is not a saved run's file is not there, whatever the path says."""
    answer = site.ask(path)
    assert answer.status in (302, 404)
    assert b"root:" not in answer.content
    assert not answer.headers.get("content-type", "").startswith("audio/")


class Own:
    """A site whose rows and files a test changes as it likes."""

    def __init__(self, site: Site, driver: Driver, output: Path) -> None:
        self.site = site
        self.driver = driver
        self.output = output

    def save(self, run_id: int, path: Path, run_type: str = TYPE, audio_format: str = "wav") -> str:
        """Record a run as saved at a path."""
        self.driver.ready(run_id, run_type=run_type)
        [claim] = self.driver.claim_ready().claimed
        step = Published(str(path), len(CONTENT), f"{run_id:064x}", audio_format, None)
        assert self.driver.end([claim], step) == [True]
        return audio(run_id, run_type)

    def file(self, name: str) -> Path:
        """Write a file into the output folder."""
        path = self.output / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(CONTENT)
        return path

    def edit(self, run_id: int, **columns: Any) -> None:  # noqa: ANN401 - any value
        """Edit a row by hand."""
        for column, value in columns.items():
            self.driver.execute(f"UPDATE runs SET {column} = ? WHERE run_id = ?", value, run_id)  # noqa: S608 - our own

    def status(self, path: str) -> int:
        """Return the status of an answer; nothing of a strange file may be in it."""
        answer = self.site.ask(path)
        assert answer.content == CONTENT if answer.status == 200 else b"root:" not in answer.content
        return answer.status


@pytest.fixture
def own(program: Program, output: Path) -> Any:  # noqa: ANN401 - a generator of it
    """Serve a database of the test's own."""
    open_database(program.database).close()
    with (
        closing(Database(database_url(program.database))) as database,
        inspected(program, "--output", str(output)) as site,
    ):
        yield Own(site, Driver(database), output)


@pytest.mark.parametrize(
    ("audio_format", "media_type"),
    [("wav", "audio/wav"), ("flac", "audio/flac"), ("mp3", "audio/mpeg"), ("ogg", "audio/ogg")],
)
def test_each_format_has_its_type(own: Own, audio_format: str, media_type: str) -> None:
    """Each format is announced as what it is, also of the type that has a folder of its own."""
    path = own.save(1, own.file(f"1.{audio_format}"), audio_format=audio_format)
    assert own.site.ask(path).headers["content-type"] == media_type
    own.file(f"{OTHER_TYPE}/2.{audio_format}")
    path = own.save(2, own.output / OTHER_TYPE / f"2.{audio_format}", OTHER_TYPE, audio_format)
    assert own.site.ask(path).headers["content-type"] == media_type
    assert own.status(path) == 200


def test_rows_that_name_other_files(own: Own, tmp_path: Path) -> None:
    """A row that was edited to name a file of the machine, or of another run, plays nothing."""
    path = own.save(1, own.file("1.wav"))
    other = own.file("2.wav")
    strange = own.file("strange.wav")
    outside = tmp_path / "1.wav"
    outside.write_bytes(CONTENT)
    hidden = own.file(".partial/1.wav")
    assert own.status(path) == 200
    for location in (
        *("/etc/passwd", "/etc/../etc/passwd", "/dev/zero", "/proc/self/environ", "", "1.wav", "/"),
        *(other, strange, outside, hidden, own.output, f"{own.output}/../../../../etc/passwd"),
        *(
            f"{own.output}/1.wav\0",
            f"{own.output}/x\n1.wav",
            f"{own.output}/gone/1.wav",
            "x" * 9999,
        ),
        *(own.site.program.database, f"file://{own.output}/1.wav"),
    ):
        own.edit(1, location=str(location))
        assert own.status(path) == 404, location
    own.edit(1, location=f"{own.output}/sub/../1.wav")
    assert own.status(path) == 404, "sub is not there"
    own.edit(1, location=str(own.output / "1.wav"))
    assert own.status(path) == 200
    for audio_format in ("flac", "passwd", "", "../1.wav", "wav/"):
        own.edit(1, audio_format=audio_format)
        assert own.status(path) == 404, audio_format


def test_links_out_of_the_folder(own: Own, tmp_path: Path) -> None:
    """A link in place of a file or of a type's folder is not followed; nor is a folder played."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "3.wav").write_bytes(CONTENT)
    (own.output / "1.wav").symlink_to("/etc/passwd")
    assert own.status(own.save(1, own.output / "1.wav")) == 404
    (own.output / "2.wav").symlink_to(own.file("4.wav"))
    assert own.status(own.save(2, own.output / "2.wav")) == 404
    (own.output / OTHER_TYPE).symlink_to(outside)
    assert own.status(own.save(3, own.output / OTHER_TYPE / "3.wav", OTHER_TYPE)) == 404
    (own.output / "5.wav").mkdir()
    assert own.status(own.save(5, own.output / "5.wav")) == 404
    (own.output / "6.wav").symlink_to("6.wav")
    assert own.status(own.save(6, own.output / "6.wav")) == 404


def test_a_folder_that_has_moved(own: Own, tmp_path: Path) -> None:
    """Where the folder has moved and a link is in its place, as `verify` wants it, all plays."""
    path = own.save(1, own.file("1.wav"))
    shutil.move(own.output, tmp_path / "moved")
    assert own.status(path) == 404
    own.output.symlink_to(tmp_path / "moved")
    assert own.status(path) == 200


def test_a_folder_of_another_name(own: Own, tmp_path: Path) -> None:
    """Files in another folder than --output are not played, but where --output is it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.wav").write_bytes(CONTENT)
    path = own.save(1, elsewhere / "1.wav")
    assert own.status(path) == 404
    with inspected(own.site.program, "--output", str(elsewhere)) as site:
        assert site.ask(path).content == CONTENT


def test_the_newest_file_is_the_first(site: Site) -> None:
    """The menu's saved files are those that were saved, the last one first, with their sum."""
    [path] = re.findall(r'href="([^"]+)">Saved files</a></li>', site.ask("/").text)
    page = site.ask(html.unescape(path)).text
    times = re.findall(r'<td class="col-done_at[^>]*>([^<]+)</td>', page)
    [(files, size, last)] = site.program.query(
        "SELECT count(*), sum(bytes), max(done_at) FROM runs WHERE state = 'done'"
    )
    assert len(times) == files
    assert times == sorted(times, reverse=True)
    assert times[0] == last
    heading = f"Saved files: {files} files, {words.size(size)}, the newest first"
    assert heading in page
    # With a filter beside, the sum would be one of other files.
    assert "Saved files: " not in site.ask(f"{html.unescape(path)}&run_type=tts").text
    plan = site.rows(f"EXPLAIN QUERY PLAN {_statement(site, html.unescape(path))}")
    assert "ix_runs_done" in str(plan)


def _statement(site: Site, path: str) -> str:
    asked: str = site.ask(path.replace("/runs?", "/runs.json?")).json["query"]["sql"]
    return asked


def test_players_stand_beside_saved_runs(site: Site) -> None:
    """Tables, rows and questions have a player where a row tells of a saved run, and only there."""
    source = re.compile(r'<audio controls preload="none" src="(/-/audio/[^"]+)"')
    saved = {
        audio(run_id, run_type)
        for run_type, run_id in site.program.query(
            "SELECT run_type, run_id FROM runs WHERE state = 'done'"
        )
    }
    assert set(source.findall(site.ask("/downloader/runs?_size=max").text)) == saved
    assert set(source.findall(site.ask("/downloader/ask-largest").text)) == saved
    assert source.findall(site.ask("/downloader/runs/text-to-sound,1").text) == [audio(1)]
    assert source.findall(site.ask("/downloader/runs/text-to-sound,201").text) == []
    hand = site.ask("/downloader?sql=select+location+from+runs+where+state='done'")
    assert (hand.status, source.findall(hand.text)) == (200, []), "whose it is, is not said"
