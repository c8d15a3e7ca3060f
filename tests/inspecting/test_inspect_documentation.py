from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from inspecting.browsing import WIDTH
from inspecting.looking import inspected
from inspecting.screenshot import HEIGHT, PICTURE, take
from pages import command

from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Program


def test_the_command(program: Program) -> None:
    """The documented command serves the site, where the page says."""
    called = command("docs/inspect.md", "inspect")
    assert called == "downloader inspect --port 8001"
    open_database(program.database).close()
    with inspected(program) as site:  # at a free port: 8001 may be taken here
        assert site.url.startswith("http://127.0.0.1:")
        assert site.ask("/").status == 200
    assert "[default: 8001" in program("inspect", "--help").stdout


@pytest.mark.needs("chromium")
def test_the_picture(tmp_path: Path) -> None:
    """The picture of the page is one that its script makes: of this size, and small."""
    take(tmp_path, tmp_path / "made.png")
    for path in (PICTURE, tmp_path / "made.png"):
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", content[16:24]) == (WIDTH, HEIGHT)
        assert len(content) < 200_000
