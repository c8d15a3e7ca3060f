"""The scripts that people would write: beside the tools, they ask the API themselves."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import children
from benchmarks.audio import check_saved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.audio import AudioSet
    from benchmarks.children import Used
    from benchmarks.services import Api, Storage

ASYNCIO: Final = "asyncio + httpx script"
SDK: Final = "official SDK in a loop"

SCRIPTS: Final = {ASYNCIO: "asyncio_httpx.py", SDK: "sdk_loop.py"}

_SAVED: Final = "saved"


@dataclass(frozen=True, slots=True)
class ScriptSide:
    """One script fetching all files of a set."""

    name: str
    audio: AudioSet
    storage: Storage
    api: Api

    def prepare(self, folder: Path) -> None:
        """Make the folder for the files."""
        (folder / _SAVED).mkdir()

    def run(self, folder: Path) -> Mapping[str, Used]:
        """Run the script, with the program's own interpreter and packages."""
        script = Path(__file__).with_name(SCRIPTS[self.name])
        base = self.api.base(self.audio)
        command = [sys.executable, str(script), base, str(self.audio.count), _SAVED]
        environment = children.plain_environment(
            folder, SSL_CERT_FILE=str(self.storage.ca_file), CAMB_API_KEY="benchmark"
        )
        return {self.name: children.run(command, folder=folder, environment=environment)}

    def check(self, folder: Path) -> None:
        """Count the files and compare their sizes."""
        check_saved(folder / _SAVED, self.audio)
