"""Parts after the machine was restarted: only bytes that were synced are continued."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from downloader.rules.states import RunKey
from downloader.transfer import part as part_module
from downloader.transfer.output import Output

if TYPE_CHECKING:
    from pathlib import Path

KEY = RunKey("text-to-sound", 7)
ETAG = '"object-1"'
DATA = bytes(range(256)) * 1000


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("let_go", [False, True])
def test_what_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, restarted: bool, let_go: bool
) -> None:
    """A part that its process let go of is continued, one it died on only in the same boot."""
    output = Output(tmp_path / "audio", KEY.run_type)
    output.prepare()
    monkeypatch.setattr(part_module, "boot_id", lambda: "the first")
    with closing(output.open_part(KEY, None, None)) as part:
        part.belongs_to(ETAG, 10**6)
        part.write(DATA)
        if let_go:
            part.let_go()
    if restarted:
        monkeypatch.setattr(part_module, "boot_id", lambda: "the second")
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        assert part.size == (0 if restarted and not let_go else len(DATA))
        part.write(DATA)


def test_what_was_appended_to_a_synced_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that was synced once and then written to is no longer one that was synced."""
    output = Output(tmp_path / "audio", KEY.run_type)
    output.prepare()
    monkeypatch.setattr(part_module, "boot_id", lambda: "the first")
    with closing(output.open_part(KEY, None, None)) as part:
        part.belongs_to(ETAG, 10**6)
        part.write(DATA)
        part.let_go()
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        part.write(DATA)
    monkeypatch.setattr(part_module, "boot_id", lambda: "the second")
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        assert part.size == 0
