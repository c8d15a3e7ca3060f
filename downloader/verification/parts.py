"""What is left in the folder of parts of transfers that are over."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.rules.states import FINISHED, State
from downloader.store import verification as store
from downloader.transfer.files import lock_existing, opened_folder
from downloader.transfer.layout import PARTIAL
from downloader.transfer.part import KEPT_SECONDS, part_of
from downloader.verification.findings import Finding, Kind
from downloader.verification.looking import GONE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from downloader.rules.states import RunKey
    from downloader.store.database import Database
    from downloader.store.verification import Tracked
    from downloader.transfer.layout import Layout
    from downloader.verification.findings import Tally

SETTLED_SECONDS: Final = 60.0
"""How long a run must have been over: its process removes the part a moment after the commit."""

_TOGETHER: Final = 500
_PROBE: Final = re.compile(r"\.probe-[0-9a-f]{8}", re.ASCII)


class StaleParts:
    """Looks through the folder of parts."""

    def __init__(self, database: Database, layout: Layout, tally: Tally, *, repair: bool) -> None:
        self._database = database
        self._folder: Path = layout.folder / PARTIAL
        self._tally = tally
        self._repair = repair

    def findings(self) -> Iterator[Finding]:
        """Yield what is stale, removed where that was asked for."""
        try:
            with opened_folder(self._folder) as partial, os.scandir(partial) as entries:
                while names := [entry.name for entry in itertools.islice(entries, _TOGETHER)]:
                    yield from self._stale(_named(names), partial)
                    for name in filter(_PROBE.fullmatch, names):
                        yield from self._probe(name, partial)
        except GONE:
            return
        except OSError as error:
            words = f"{self._folder} cannot be listed: {error.strerror}"
            yield self._tally.count(Finding(Kind.UNREADABLE, None, str(self._folder), words))

    def _stale(self, parts: dict[str, RunKey], partial: int) -> Iterator[Finding]:
        runs = store.tracked(self._database, set(parts.values()))
        for name, key in parts.items():
            if not _is_over(runs.get(key)):
                continue
            finding = self._examine(name, key, partial)
            if finding is not None:
                yield finding

    def _examine(self, name: str, key: RunKey, partial: int) -> Finding | None:
        """Look at a part under its lock: from then on no transfer can take it up."""
        descriptor = lock_existing(name, partial)
        if descriptor is None:
            return None  # somebody is at it, or it is gone
        try:
            run = store.tracked(self._database, [key]).get(key)
            found = os.fstat(descriptor)
            if not _is_over(run) or _proves(run, found):
                return None
            why = "not tracked" if run is None else run.state.value
            words = f"{self._folder / name}, {found.st_size} bytes: the run is {why}"
            return self._remove(name, key, words, partial)
        finally:
            os.close(descriptor)

    def _probe(self, name: str, partial: int) -> Iterator[Finding]:
        """Report the empty file by which a start finds out whether it can write here."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=partial, follow_symlinks=False)
            age = utc_now().timestamp() - found.st_mtime
            if stat.S_ISREG(found.st_mode) and not found.st_size and age > SETTLED_SECONDS:
                words = f"{self._folder / name}, left by a start that was cut off"
                yield self._remove(name, None, words, partial)

    def _remove(self, name: str, key: RunKey | None, words: str, partial: int) -> Finding:
        """Return the finding on a leftover, removed if that was asked for."""
        repair = None
        if self._repair:
            try:
                reach(At.VERIFY_REPAIRING)
                os.unlink(name, dir_fd=partial)
                repair = "removed"
            except OSError as error:
                words += f"; not repaired: it cannot be removed: {error.strerror}"
        path = str(self._folder / name)
        return self._tally.count(Finding(Kind.STALE_PART, key, path, words, repair))


def _named(names: list[str]) -> dict[str, RunKey]:
    """Return the parts among these names with the run of each."""
    keys = {name: part_of(name) for name in names}
    return {name: key for name, key in keys.items() if key and key.run_type in RUN_TYPES}


def _is_over(run: Tracked | None) -> bool:
    """Return whether nobody will come back to a run's parts; those not tracked have nobody.

    `retry` goes on with a failed run's.
    """
    if run is None:
        return True
    seconds = KEPT_SECONDS if run.state is State.FAILED else SETTLED_SECONDS
    settled = timedelta(seconds=seconds)
    return run.state in FINISHED and run.updated_at + settled < utc_now()


def _proves(run: Tracked | None, part: os.stat_result) -> bool:
    """Return whether a part may be the proof by which a failed run's file is adopted."""
    return run is not None and run.state is State.FAILED and part.st_nlink > 1
