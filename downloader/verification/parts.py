"""What is left in the folder of parts of transfers that are over."""

from __future__ import annotations

import contextlib
import itertools
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.rules.states import FINISHED, State
from downloader.store import verification as store
from downloader.transfer.files import lock_existing
from downloader.transfer.layout import PARTIAL
from downloader.transfer.part import KEPT_SECONDS, part_of
from downloader.transfer.trial import LEFT_BEHIND, is_of_a_trial
from downloader.transfer.unusable import advice
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


class StaleParts:
    """Looks through the folder of parts."""

    def __init__(self, database: Database, layout: Layout, tally: Tally, *, repair: bool) -> None:
        self._database = database
        self._layout = layout
        self._tally = tally
        self._repair = repair

    def findings(self) -> Iterator[Finding]:
        """Yield what is stale, removed where that was asked for."""
        partial = self._layout.folder / PARTIAL
        for folder in dict.fromkeys((partial, *map(self._layout.folder_of, RUN_TYPES))):
            try:
                with self._layout.opened(folder) as opened, os.scandir(opened) as entries:
                    while names := [one.name for one in itertools.islice(entries, _TOGETHER)]:
                        copies = "" if folder == partial else "."
                        yield from self._stale(_named(names, copies), folder, opened)
                        for name in filter(LEFT_BEHIND.fullmatch, names):
                            yield from self._trial(folder / name, opened)
            except GONE:
                continue
            except OSError as error:
                if folder != partial:
                    continue  # that is told with the saved files
                words = f"{folder} cannot be listed: {error.strerror}.{advice(folder, error.errno)}"
                words = words.removesuffix(".")
                yield self._tally.count(Finding(Kind.UNREADABLE, None, str(folder), words))

    def _stale(self, parts: dict[str, RunKey], folder: Path, opened: int) -> Iterator[Finding]:
        runs = store.tracked(self._database, set(parts.values()))
        for name, key in parts.items():
            if not _is_over(runs.get(key)):
                continue
            finding = self._examine(folder / name, key, opened)
            if finding is not None:
                yield finding

    def _examine(self, path: Path, key: RunKey, folder: int) -> Finding | None:
        """Look at a part under its lock: from then on no transfer can take it up."""
        held = lock_existing(path.name, folder)
        if held is None:
            return None  # somebody is at it, or it is gone
        try:
            run = store.tracked(self._database, [key]).get(key)
            found = os.fstat(held.descriptor)
            if not held.may_go or not _is_over(run) or _proves(run, found):
                return None
            why = "not tracked" if run is None else run.state.value
            words = f"{path}, {found.st_size} bytes: the run is {why}"
            return self._remove(path, key, words, folder)
        finally:
            os.close(held.descriptor)

    def _trial(self, path: Path, folder: int) -> Iterator[Finding]:
        """Report the little file by which a start finds out whether it can save files here."""
        with contextlib.suppress(OSError):
            found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
            age = utc_now().timestamp() - found.st_mtime
            if age > SETTLED_SECONDS and is_of_a_trial(path.name, folder):
                words = f"{path}, left by a start that was cut off"
                yield self._remove(path, None, words, folder)

    def _remove(self, path: Path, key: RunKey | None, words: str, folder: int) -> Finding:
        """Return the finding on a leftover, removed if that was asked for."""
        repair = None
        if self._repair:
            try:
                reach(At.VERIFY_REPAIRING)
                os.unlink(path.name, dir_fd=folder)
                repair = "removed"
            except OSError as error:
                words += f"; not repaired: it cannot be removed: {error.strerror}"
        return self._tally.count(Finding(Kind.STALE_PART, key, str(path), words, repair))


def _named(names: list[str], before: str) -> dict[str, RunKey]:
    """Return the parts among these names, each with `before` before it, with the run of each."""
    keys = {name: part_of(name[len(before) :]) for name in names if name.startswith(before)}
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
