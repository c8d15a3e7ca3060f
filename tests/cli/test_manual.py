"""The manual pages: those that are committed are the commands' own help, and read well."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from needs import needed

from downloader.cli import manual
from downloader.cli.main import _COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "docs/man"
PAGES: Final = sorted(FOLDER.glob("*"))


def read(page: Path) -> str:
    """Return a page as it is read at 80 columns."""
    command = [needed("man"), "--local-file", "--no-hyphenation", str(page)]
    environment = {"MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "PAGER": "cat"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return re.sub(".\b", "", done.stdout)


def test_the_pages_are_current() -> None:
    """The pages are those of the commands as they are.

    `python -m downloader.cli.manual docs/man` makes them so.
    """
    made = manual.pages()
    assert [path.name for path in PAGES] == sorted(made)
    for path in PAGES:
        assert path.read_text(encoding="utf-8") == made[path.name], path.name
    names = {f"downloader-{name}.1" for name in _COMMANDS}
    below = {f"downloader-db-{name}.1" for name in ("upgrade", "current", "backup")}
    assert set(made) == names | below | {"downloader.1"}


def test_writing_them(tmp_path: Path) -> None:
    """Writing them makes every page anew, and removes that of a command that is no more."""
    (tmp_path / "downloader-gone.1").touch()
    (tmp_path / "another.1").touch()
    manual.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*manual.pages(), "another.1"}


def complaints(command: list[str]) -> Iterator[str]:
    """Yield what a formatter finds wrong."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in (done.stdout if "lint" in command else done.stderr).splitlines():
        # A page has the date of its release, and this one is of a version.
        if "missing date" not in line:
            yield line


@pytest.mark.needs("groff", "mandoc")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_formatters_find_nothing(page: Path) -> None:
    """Neither groff nor mandoc has anything to complain of."""
    found = complaints([needed("mandoc"), "-T", "lint", "-W", "warning", str(page)])
    assert list(found) == []
    assert list(complaints([needed("groff"), "-man", "-ww", "-Tutf8", str(page)])) == []


@pytest.mark.needs("man")
def test_what_a_page_says() -> None:
    """A page has the command's synopsis, its options with what they take, and its example."""
    text = read(FOLDER / "downloader-run.1")
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "downloader run [OPTIONS]" in flat
    assert "--max-rate SIZE The most bytes a second for all transfers together" in flat
    assert "EXAMPLES downloader run --drain --output audio --concurrency 16" in flat
    assert "How much at a time" in flat
    text = " ".join(read(FOLDER / "downloader-db.1").split())
    for name in ("upgrade", "current", "backup"):
        assert f"Example: downloader db {name}" in text
    text = read(FOLDER / "downloader-simulate.1")
    assert '{"runs": {"modulo": 7}, "where": "api", "fault": {"kind": "word"' in text


def test_exit_codes() -> None:
    """The exit codes of the page are those of the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for code, meaning in manual._EXIT_CODES:
        shown = re.search(rf"^\| {code} \| (.+) \|$", readme, re.MULTILINE)
        assert shown
        assert shown[1].replace("`--", "--").replace("`", "") == meaning.replace("`", "")
