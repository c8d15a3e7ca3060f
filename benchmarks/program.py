"""Our side: the whole program, as its user runs it."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import children
from benchmarks.audio import check_saved
from benchmarks.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.audio import AudioSet
    from benchmarks.children import Used
    from benchmarks.services import Api, Storage

NAME: Final = "downloader"
DATABASE: Final = "runs.sqlite3"
OUTPUT: Final = "saved"

_HASH_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """The installed program, with options that tell one variant of it from another."""

    name: str = NAME
    options: tuple[str, ...] = ()
    """More options for `run`."""

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of it."""
        return [str(Path(sys.executable).with_name("downloader")), *arguments]

    def environment(self, folder: Path, **more: str) -> dict[str, str]:
        """Return an environment with its database and its files in a folder."""
        return children.plain_environment(
            folder,
            CAMB_API_KEY="benchmark",
            DOWNLOADER_DATABASE=str(folder / DATABASE),
            DOWNLOADER_OUTPUT=str(folder / OUTPUT),
            **more,
        )

    def call(self, folder: Path, *arguments: str, codes: Sequence[int] = (0,)) -> Used:
        """Run one command of it in a folder."""
        return children.run(
            self.command(*arguments),
            folder=folder,
            environment=self.environment(folder),
            codes=codes,
        )

    def create(self, folder: Path) -> None:
        """Make an empty database in a folder."""
        self.call(folder, "db", "upgrade")

    def submit(self, folder: Path, run_ids: Iterable[int]) -> Used:
        """Track runs in the database of a folder."""
        ids = folder / "ids.txt"
        write_ids(ids, run_ids)
        return self.call(folder, "submit", "--file", str(ids))

    def run(
        self, folder: Path, storage: Storage, api_url: str, *more: str, codes: Sequence[int] = (0,)
    ) -> Used:
        """Run `downloader run`, 16 at a time, with further options."""
        return children.run(
            self.command(
                *("run", "--concurrency", "16", "--api-url", api_url), *self.options, *more
            ),
            folder=folder,
            environment=self.environment(folder, SSL_CERT_FILE=str(storage.ca_file)),
            codes=codes,
        )


@dataclass
class ProgramSide:
    """The program saving all files of a set: what is measured is `run --drain`, whole."""

    program: Program
    audio: AudioSet
    storage: Storage
    api: Api
    requests: list[int] = field(default_factory=list)
    """How often each round asked the API."""

    @property
    def name(self) -> str:
        """What it is called in the tables."""
        return self.program.name

    def prepare(self, folder: Path) -> None:
        """Submit the runs to a fresh database."""
        self.program.submit(folder, self.audio.run_ids)

    def run(self, folder: Path) -> Mapping[str, Used]:
        """Save everything."""
        before = self.api.requests()
        used = self.program.run(folder, self.storage, self.api.base(self.audio), "--drain")
        self.requests.append(self.api.requests() - before)
        return {self.name: used}

    def check(self, folder: Path) -> None:
        """Compare the record with what was served, and the files with both."""
        check_saved(folder / OUTPUT, self.audio)
        wanted = {
            run_id: ("done", self.audio.size, digest)
            for run_id, digest in zip(self.audio.run_ids, self.audio.digests, strict=True)
        }
        found = {
            row[0]: row[1:]
            for row in query(folder / DATABASE, "SELECT run_id, state, bytes, sha256 FROM runs")
        }
        if found != wanted:
            raise BenchmarkError("the database does not say that everything is done and as served")
        for run_id, digest in zip(self.audio.run_ids, self.audio.digests, strict=True):
            if _digest(folder / OUTPUT / f"{run_id}.wav") != digest:
                raise BenchmarkError(f"the file of run {run_id} is not what was served")


def write_ids(path: Path, run_ids: Iterable[int]) -> None:
    """Write run ids, one a line."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{run_id}\n" for run_id in run_ids)


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """Query a database as a person does."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
    return digest.hexdigest()
