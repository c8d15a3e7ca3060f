"""One run's transfers, one attempt after another, as the worker and the database see them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from downloader.errors import BusyDatabaseError
from downloader.rules.resume import NOTHING, Journal
from downloader.rules.states import RunKey
from downloader.transfer.engine import TransferError
from downloader.transfer.guard import Guard
from downloader.transfer.layout import PARTIAL
from downloader.transfer.output import Output
from downloader.transfer.transfer import Order, transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from downloader.rules.decisions import Problem
    from downloader.rules.steps import Published
    from downloader.simulator.server import Simulator
    from downloader.transfer.engine import Engine
    from downloader.transfer.transfer import Delivered

DEFAULT_TYPE = "text-to-sound"
RUN_1 = RunKey(DEFAULT_TYPE, 1)


def presigned(simulator: Simulator, run_id: int = 1, run_type: str = DEFAULT_TYPE) -> str:
    """Return a URL as the simulator's API hands it out."""
    return simulator._state.presigned(run_type, run_id)


@dataclass
class Bench:
    """Makes attempts at one run, and remembers between them what the database would."""

    engine: Engine
    folder: Path
    url: str
    key: RunKey = RUN_1
    journal: Journal = NOTHING
    error_code: str | None = None
    """How the last attempt ended."""
    received: int = 0
    """Bytes that progress was told of, over all attempts."""
    max_bytes: int = 10**9
    keep_lease: bool = True
    """What the database answers when the object is noted."""
    busy_database: bool = False
    """Whether it can be asked at all."""
    prepared: Output | None = None
    noted: threading.Event = field(default_factory=threading.Event)
    on_progress: Callable[[], None] = lambda: None

    def prepare(self) -> Output:
        """Prepare the folder as a process does that starts, for the next attempt."""
        self.prepared = Output(self.folder, DEFAULT_TYPE)
        self.prepared.prepare()
        return self.prepared

    def deliver(self, guard: Guard | None = None) -> Delivered:
        """Make an attempt, as a process that was just started does; the commit is left open."""
        output, self.prepared = self.prepared or self.prepare(), None
        order = Order(
            self.key,
            self.url,
            self.journal,
            self._note_object,
            self._progress,
            self.max_bytes,
            error_code=self.error_code,
        )
        return transfer(order, output, self.engine, guard or Guard(60))

    def save(self, guard: Guard | None = None) -> Published:
        """Make an attempt that succeeds, with its commit."""
        delivered = self.deliver(guard)
        delivered.part.discard()
        return delivered.step

    def problem(self) -> Problem:
        """Make an attempt that fails; return why."""
        with pytest.raises(TransferError) as raised:
            self.deliver()
        self.error_code = raised.value.problem.error_code
        return raised.value.problem

    @property
    def etag(self) -> str | None:
        """The ETag that was noted last."""
        return self.journal.etag

    @property
    def parts(self) -> list[Path]:
        """The files in the folder of parts."""
        return sorted((self.folder / PARTIAL).iterdir())

    @property
    def files(self) -> dict[str, bytes]:
        """The saved files, by name."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}

    def _note_object(self, journal: Journal) -> bool:
        self.noted.set()
        if self.busy_database:
            raise BusyDatabaseError("It is locked.")
        if self.keep_lease:
            self.journal = journal
        return self.keep_lease

    def _progress(self, received: int) -> None:
        self.received += received
        self.on_progress()
