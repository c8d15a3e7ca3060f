"""Where saved files and parts are: the paths, and nothing on the disk."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from downloader.rules.audio import AudioFormat
from downloader.rules.states import MAX_RUN_ID
from downloader.transfer.files import opened_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from downloader.rules.states import RunKey

PARTIAL: Final = ".partial"

# As `Layout.final` writes it and no other way: no leading zeros, lower case.
_SAVED: Final = re.compile(rf"([1-9][0-9]{{0,18}})\.({'|'.join(AudioFormat)})", re.ASCII)


class Layout:
    """The folder that saved files go to, and the names in it."""

    def __init__(self, folder: Path, default_run_type: str) -> None:
        self.folder = folder.absolute()
        self._default_run_type = default_run_type

    def folder_of(self, run_type: str) -> Path:
        """Return where the files of a run type are: other types have a folder of their own."""
        return self.folder if run_type == self._default_run_type else self.folder / run_type

    def final(self, key: RunKey, audio_format: str) -> Path:
        """Return the path of a run's saved file."""
        return self.folder_of(key.run_type) / f"{key.run_id}.{audio_format}"

    @contextlib.contextmanager
    def opened(self, folder: Path) -> Iterator[int]:
        """Open a folder of saved files; the output folder itself may be a link to one."""
        with opened_folder(folder, may_be_link=folder == self.folder) as descriptor:
            yield descriptor


def run_id_of(name: str) -> int | None:
    """Return the run id that a saved file's name tells, None where no saved file is named so."""
    match = _SAVED.fullmatch(name)
    if match is None or int(match[1]) > MAX_RUN_ID:
        return None
    return int(match[1])
