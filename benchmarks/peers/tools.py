"""Command-line downloaders, each given the list of URLs for nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks import children, machine
from benchmarks.audio import check_saved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from benchmarks.audio import AudioSet
    from benchmarks.children import Used
    from benchmarks.services import Storage

AT_ONCE: Final = 16

CURL: Final = "curl --parallel"
CURL_AND_HASH: Final = "curl --parallel, then sha256sum"
CURL_AND_KEEP: Final = "curl --parallel, then SHA-256 by OpenSSL and fsync"
"""What promises of each file what the program does, but for the record."""
WGET2: Final = "wget2"
ARIA2: Final = "aria2c"

_KEEP: Final = """
import hashlib, os, sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        hashlib.file_digest(file, "sha256")
        os.fsync(file.fileno())
os.fsync(os.open(".", os.O_RDONLY))
"""

URLS: Final = "urls"
SAVED: Final = "saved"


@dataclass(frozen=True, slots=True)
class Tool:
    """A downloader: how it reads its list, and how it is called in a folder that has it."""

    name: str
    command: str
    entry: Callable[[str, str], str]
    arguments: Callable[[Path], list[str]]
    in_folders: bool = False
    """Whether it saves files in the folders of their URLs."""


def _curl_entry(url: str, name: str) -> str:
    return f'url = "{url}"\noutput = "{name}"\n'


def _aria2_entry(url: str, name: str) -> str:
    return f"{url}\n out={name}\n"


def _wget2_entry(url: str, _name: str) -> str:
    return f"{url}\n"  # the name is the URL's


def _curl_arguments(ca_file: Path) -> list[str]:
    # Connections are kept and used again; the storage speaks HTTP/1.1, so does everybody.
    return [
        *("--parallel", "--parallel-immediate", "--parallel-max", str(AT_ONCE), "--http1.1"),
        *("--silent", "--show-error", "--fail", "--cacert", str(ca_file)),
        *("--config", f"../{URLS}"),
    ]


def _wget2_arguments(ca_file: Path) -> list[str]:
    return [
        *(f"--max-threads={AT_ONCE}", f"--ca-certificate={ca_file}", "--quiet"),
        *("--cut-file-get-vars", "--no-config", "--ocsp=off", f"--input-file=../{URLS}"),
    ]


def _aria2_arguments(ca_file: Path) -> list[str]:
    return [
        *("--no-conf", "--quiet", f"-j{AT_ONCE}", "-x1", "--file-allocation=none"),
        *(f"--ca-certificate={ca_file}", f"--input-file=../{URLS}"),
    ]


TOOLS: Final = {
    tool.name: tool
    for tool in (
        Tool(CURL, "curl", _curl_entry, _curl_arguments),
        Tool(WGET2, "wget2", _wget2_entry, _wget2_arguments, in_folders=True),
        Tool(ARIA2, "aria2c", _aria2_entry, _aria2_arguments),
    )
}


@dataclass(frozen=True, slots=True)
class ToolSide:
    """One tool fetching all files of a set, 16 at a time.

    `hashed`: by sha256sum after, a figure of its own, and `kept`: hashed and forced to the disk,
    another one. `paced`: from where the storage keeps a pace.
    """

    tool: Tool
    audio: AudioSet
    storage: Storage
    hashed: bool = False
    kept: bool = False
    paced: bool = False

    @property
    def name(self) -> str:
        """What it is called in the tables."""
        return self.tool.name

    def prepare(self, folder: Path) -> None:
        """Write the list of URLs."""
        (folder / SAVED).mkdir()
        (folder / URLS).write_text(
            "".join(
                self.tool.entry(
                    self.storage.url(self.audio, run_id, paced=self.paced), f"{run_id}.wav"
                )
                for run_id in self.audio.run_ids
            ),
            "utf-8",
        )

    def run(self, folder: Path) -> Mapping[str, Used]:
        """Fetch everything."""
        command = [
            machine.find(self.tool.command) or self.tool.command,
            *self.tool.arguments(self.storage.ca_file),
        ]
        environment = children.plain_environment(folder)
        saved = folder / SAVED
        used = children.run(command, folder=saved, environment=environment)
        found = {self.name: used}
        names = [f"{run_id}.wav" for run_id in self.audio.run_ids]
        for wanted, name, command in (
            (self.kept, CURL_AND_KEEP, [sys.executable, "-c", _KEEP]),
            (self.hashed, CURL_AND_HASH, [machine.find("sha256sum") or "sha256sum"]),
        ):
            if wanted:
                then = children.run([*command, *names], folder=saved, environment=environment)
                found[name] = used.then(then)
        return found

    def check(self, folder: Path) -> None:
        """Count the files and compare their sizes."""
        saved = folder / SAVED
        check_saved(saved / self.audio.name if self.tool.in_folders else saved, self.audio)
