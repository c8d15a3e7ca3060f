"""Runs that have ended and whose hook is yet to be run: any number, in bounded memory.

The first ones are kept in memory. Where hooks are slower than transfers the others go into a
database of SQLite's own on the disk, which nobody else sees and which goes with the process.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from downloader.logger import get_logger
from downloader.rules.states import RunKey, State
from downloader.store.schema import from_text, to_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

_log = get_logger(__name__)

MOST_IN_MEMORY: Final = 1000
_CACHE_KIB: Final = 256

_MAKE: Final = "CREATE TABLE ended (place INTEGER PRIMARY KEY, run_type, run_id, state, at)"
_ADD: Final = "INSERT INTO ended (run_type, run_id, state, at) VALUES (?, ?, ?, ?)"
_FIRST: Final = "SELECT place, run_type, run_id, state, at FROM ended ORDER BY place LIMIT ?"
_FORGET: Final = "DELETE FROM ended WHERE place <= ?"


class EndedRun(NamedTuple):
    """A run that this process has recorded as done or failed, and when."""

    key: RunKey
    state: State
    at: datetime


class Backlog:
    """A queue of ended runs, those of some states; first in, first out. For one thread."""

    def __init__(self, states: Collection[State]) -> None:
        self._states = frozenset(states)
        self._first: deque[EndedRun] = deque()
        self._others: sqlite3.Connection | None = None
        self._on_disk = 0
        self.lost = 0
        """How many could not be kept, for want of room on the disk."""

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._first) + self._on_disk

    def add(self, runs: Sequence[EndedRun]) -> None:
        """Have runs wait, those whose state has a hook."""
        wanted = [run for run in runs if run.state in self._states]
        if not self._on_disk:
            room = MOST_IN_MEMORY - len(self._first)
            self._first += wanted[:room]
            wanted = wanted[room:]
        if wanted:
            self._spill(wanted)

    def take(self) -> EndedRun | None:
        """Return the run that has waited longest, None where none does."""
        if not self._first and self._on_disk:
            self._fetch()
        return self._first.popleft() if self._first else None

    def close(self) -> None:
        """Free what is on the disk."""
        if self._others is not None:
            self._others.close()

    def _spill(self, runs: Sequence[EndedRun]) -> None:
        rows = [(*run.key, run.state.value, to_text(run.at)) for run in runs]
        self._on_disk += len(rows)
        try:
            if self._others is None:
                self._others = sqlite3.connect("", isolation_level=None, check_same_thread=False)
                self._others.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                self._others.execute("PRAGMA journal_mode = OFF")
                self._others.execute(_MAKE)
            self._others.execute("BEGIN")
            self._others.executemany(_ADD, rows)
            self._others.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(error)

    def _fetch(self) -> None:
        if self._others is None:
            return
        try:
            rows = self._others.execute(_FIRST, [MOST_IN_MEMORY]).fetchall()
            self._others.execute(_FORGET, [rows[-1][0]])
        except (sqlite3.Error, IndexError) as error:
            self._give_up(error)
            return
        self._on_disk -= len(rows)
        self._first += (
            EndedRun(RunKey(run_type, run_id), State(state), from_text(at))
            for _, run_type, run_id, state, at in rows
        )

    def _give_up(self, error: Exception) -> None:
        """Go on without what was on the disk: the history shows whose hook was not run."""
        _log.warning("hooks.backlog_lost", runs=self._on_disk, message=str(error))
        self.lost += self._on_disk
        self._on_disk = 0
        if self._others is not None:
            with contextlib.suppress(sqlite3.Error):
                self._others.close()
            self._others = None
