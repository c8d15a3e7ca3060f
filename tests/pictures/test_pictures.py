from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import pytest
from inspecting.browsing import browsing
from pages import PAGES, text_of
from pictures import drawing
from pictures.film import COLUMNS, Frame, Piece, Style
from pictures.taking import FILM, FOLDER, STILL, take_film, take_still

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES: Final = 300_000
_SVG: Final = "{http://www.w3.org/2000/svg}"
_SHIFT: Final = "new DOMMatrix(getComputedStyle(document.querySelector('.strip')).transform).f"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder with a short path: a longer one would be cut on the screen."""
    path = Path(tempfile.mkdtemp(prefix="sounds-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def strip(path: Path) -> list[list[str]]:
    """Return the frames of a picture that is well-formed, as the lines that are on them."""
    svg = ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - our own
    assert {element.tag.removeprefix(_SVG) for element in svg.iter()} <= {
        *(
            "svg",
            "title",
            "style",
            "defs",
            "g",
            "use",
            "text",
            "rect",
        ),  # nothing that runs or loads
    }
    assert all(use.attrib["href"].startswith("#") for use in svg.iter(f"{_SVG}use"))
    drawn = {
        f"#{line.attrib['id']}": " ".join(text.text or "" for text in line.iter(f"{_SVG}text"))
        for line in svg.findall(f"{_SVG}defs/{_SVG}g")
    }
    frames = svg.findall(f"{_SVG}svg/{_SVG}g/{_SVG}g")
    return [[drawn[use.attrib["href"]] for use in frame] for frame in frames]


def assert_neutral(path: Path, folder: Path) -> None:
    """Assert that a picture is small, and shows no path but this folder's, and no URL."""
    content = path.read_text(encoding="utf-8")
    assert len(content) < MOST_BYTES
    shown = "\n".join(line for frame in strip(path) for line in frame)
    paths = re.findall(r"(?:^|\s)(/\S+)", shown)
    assert paths
    assert [one for one in paths if not one.startswith(f"{folder}/")] == []
    assert "://" not in shown
    assert re.search(r"signature|x-amz|x-api-key", shown, re.IGNORECASE) is None


def assert_film(path: Path, folder: Path, runs: int) -> None:
    """Assert that a film shows the session as it is typed, and what came of it."""
    assert_neutral(path, folder)
    frames = strip(path)
    assert "animation:film" in path.read_text(encoding="utf-8")
    told = [line for frame in frames for line in frame]
    assert "$ downloader sub" in told  # as it is typed
    assert f"submitted {runs} new, 0 already tracked" in told
    bars = {line for line in told if line.startswith("runs :")}
    assert len(bars) > 5  # they move
    assert any(
        re.match(rf"{runs - 1} saved \([\d.]+ MB\) in {folder}/audio, 1 failed", line)
        for line in told
    )
    last = frames[-1]
    assert any(re.fullmatch(r"failed +1", line) for line in last)
    # Where a folder's name is long, of a path the end is shown.
    listed = [line for line in last if re.search(r" (/|…)\S*/?\d+\.(wav|flac|mp3|ogg)$", line)]
    assert len(listed) >= 4  # of five, if the failed one is of them


def test_a_film_is_of_the_program(folder: Path, tmp_path: Path) -> None:
    """The script films a session, at whose end all is saved but the run that is to fail."""
    take_film(folder, tmp_path / "run.svg", runs=12, bandwidth=20_000_000)
    assert_film(tmp_path / "run.svg", folder, 12)


def test_the_film() -> None:
    """docs/run.svg is such a film: short, and of a folder that may be seen."""
    assert_film(FILM, FOLDER, 60)
    [seconds] = re.findall(r"animation:film ([\d.]+)s step-end infinite", FILM.read_text("utf-8"))
    assert 15 <= float(seconds) <= 30


def test_the_still(folder: Path, tmp_path: Path) -> None:
    """The still says what `status` says of a large job; docs/status.svg is such a one."""
    take_still(folder, tmp_path / "status.svg")
    for path, seen in ((tmp_path / "status.svg", folder), (STILL, FOLDER)):
        assert_neutral(path, seen)
        [lines] = strip(path)
        assert lines[0] == "$ downloader status"
        assert "pending 1,361" in lines
        assert any(line.startswith("all saved in ") for line in lines)
        assert "animation" not in path.read_text(encoding="utf-8")


@pytest.mark.needs("chromium")
def test_what_is_drawn_is_where_it_was(tmp_path: Path) -> None:
    """In a browser each frame has its time, its colours and its columns, in light and in dark."""
    red, plain = Style("red", bold=True), Style()
    first = Frame(0.0, ((Piece(0, "first", plain),), ()))
    line = (Piece(0, "a  <b>", plain), Piece(6, f"{'█' * (COLUMNS - 6)}", red))
    (tmp_path / "film.svg").write_text(
        drawing.film([first, Frame(2.0, (line, ()))], 8.0, "A <film>"), encoding="utf-8"
    )
    assert strip(tmp_path / "film.svg") == [["first"], [f"a <b> {line[1].text}"]]
    for watched in browsing():
        page = watched.page
        for scheme, colour in (("light", "rgb(179, 29, 40)"), ("dark", "rgb(255, 123, 114)")):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # one of its words
            page.goto((tmp_path / "film.svg").as_uri())
            seen = {}
            for seconds in (1.9, 2.1, 7.9, 8.1):
                page.evaluate(
                    "at => document.getAnimations().forEach(one => {"
                    " one.pause(); one.currentTime = at * 1000; })",
                    seconds,
                )
                seen[seconds] = page.evaluate(_SHIFT)
            assert seen == {1.9: 0, 2.1: -36, 7.9: -36, 8.1: 0}
            page.emulate_media(reduced_motion="reduce")
            assert page.evaluate("document.getAnimations().length") == 0
            assert page.evaluate(_SHIFT) == -36  # the last frame
            page.emulate_media(reduced_motion="no-preference")
            block = page.locator("text.red")
            assert block.evaluate("it => getComputedStyle(it).fill") == colour
            box = block.evaluate("it => [it.getBBox().x, it.getBBox().width]")
            assert box == pytest.approx([6 * 8.4, 74 * 8.4], abs=4.2)
        assert watched.wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_are_described(page: Path) -> None:
    """Every picture of a page is there, and says in words what it shows."""
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)
    for source, alt in re.findall(r'<img src="([^"]+)"[^>]* alt="([^"]*)"', text):
        pictures.append((alt, source))
    assert len(pictures) == len(re.findall(r"!\[|<img", text))
    for alt, source in pictures:
        assert (page.parent / source).is_file(), source
        assert len(alt) > 20, source


def test_the_readme_shows_it() -> None:
    """The film and the site are to be seen on the front page."""
    text = text_of("README.md")
    assert "](docs/run.svg)" in text
    assert '<a href="docs/inspect.md"><img src="docs/inspect.png"' in text
