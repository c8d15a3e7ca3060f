"""The saved files as the player gets them: by run type and run id, never by a path of a request."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from downloader.camb.run_types import DEFAULT_RUN_TYPE
from downloader.rules.audio import AudioFormat
from downloader.rules.states import MAX_RUN_ID, RunKey, is_run_type
from downloader.transfer.layout import Layout

MEDIA_TYPES: Final = {
    AudioFormat.WAV: "audio/wav",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.OGG: "audio/ogg",
}

PATH: Final = r"^/-/audio/(?P<run_type>[a-z0-9-]{1,64})/(?P<run_id>[0-9]{1,19})$"
"""Where the player asks."""


def address(key: RunKey) -> str:
    """Return the path that the player asks for a run's file."""
    return f"/-/audio/{key.run_type}/{key.run_id}"


def asked_for(run_type: str, run_id: str) -> RunKey | None:
    """Return the run that a path names, None where there can be none."""
    key = RunKey(run_type, int(run_id))
    return key if is_run_type(run_type) and 0 < key.run_id <= MAX_RUN_ID else None


class Recording(NamedTuple):
    """A saved file that may be played."""

    path: Path
    media_type: str
    found: os.stat_result


class Recordings:
    """The output folder, and which files in it are saved ones.

    A row may have been edited to name any file of this machine. So what it says is only believed
    where that is the very name that this program gives to the run's file, with all links followed:
    `<output>/<run_id>.<format>`, or `<output>/<type>/…` for runs of another type.
    """

    def __init__(self, output: Path) -> None:
        self._output = output

    def find(self, key: RunKey, location: object, audio_format: object) -> Recording | None:
        """Return the file that a `done` row names, None where it is none of ours, or is gone."""
        if not isinstance(location, str) or not isinstance(audio_format, str):
            return None
        try:
            saved_as = AudioFormat(audio_format)
            # The folder itself may be a link, or have become one: files are where it leads.
            layout = Layout(self._output.resolve(), DEFAULT_RUN_TYPE)
            path = layout.final(key, saved_as)
            if Path(location).resolve(strict=True) != path:
                return None
            found = path.lstat()
        except (
            OSError,
            ValueError,
            RuntimeError,
        ):  # gone; a null byte, no format; links in a circle
            return None
        if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
            return None
        return Recording(path, MEDIA_TYPES[saved_as], found)
