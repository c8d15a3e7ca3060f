"""Files that are named as ours are, but which no done run has; those that are ours are adopted.

The proof that a file is ours is its part: a second name of the same file (see transfer/part.py).
Whatever has no such proof is reported, and left to a person or to the next transfer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.rules.states import RunKey, State
from downloader.rules.steps import Published
from downloader.store import verification as store
from downloader.transfer.files import lock_existing, opened_folder
from downloader.transfer.layout import PARTIAL, run_id_of
from downloader.transfer.part import parts_in, published_as
from downloader.transfer.unusable import advice
from downloader.verification.findings import Finding, Kind
from downloader.verification.looking import GONE, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from downloader.rules.audio import AudioFormat
    from downloader.store.database import Database
    from downloader.store.verification import Tracked
    from downloader.transfer.files import Hashed
    from downloader.transfer.layout import Layout
    from downloader.verification.findings import Tally

_TOGETHER: Final = 500
"""How many files are looked up in the database at a time."""


@dataclass(frozen=True, slots=True)
class _Stray:
    """A file that no done run has, and where the run that it is named after stands."""

    key: RunKey
    path: Path
    found: os.stat_result
    run: Tracked | None


class Orphans:
    """Looks through the folders of saved files."""

    def __init__(self, database: Database, layout: Layout, tally: Tally, *, repair: bool) -> None:
        self._database = database
        self._layout = layout
        self._tally = tally
        self._repair = repair

    def findings(self) -> Iterator[Finding]:
        """Yield the files that are nobody's, those adopted among them."""
        for run_type in RUN_TYPES:
            folder = self._layout.folder_of(run_type)
            try:
                with self._layout.opened(folder) as descriptor:
                    yield from self._in_folder(run_type, folder, descriptor)
            except GONE:
                continue
            except OSError as error:
                if folder != self._layout.folder and os.path.islink(folder):  # noqa: PTH114 - of one that may not be searched too
                    continue  # somebody's link, not the folder of a run type
                words = f"{folder} cannot be listed: {error.strerror}.{advice(folder, error.errno)}"
                words = words.removesuffix(".")
                yield self._tally.count(Finding(Kind.UNREADABLE, None, str(folder), words))

    def _in_folder(self, run_type: str, folder: Path, descriptor: int) -> Iterator[Finding]:
        with os.scandir(descriptor) as entries:
            named = (
                (RunKey(run_type, run_id), folder / entry.name)
                for entry in entries
                if (run_id := run_id_of(entry.name)) is not None
            )
            while some := list(itertools.islice(named, _TOGETHER)):
                yield from self._judge(self._strays(some, descriptor), descriptor)

    def _strays(self, files: Sequence[tuple[RunKey, Path]], folder: int) -> list[_Stray]:
        """Return those files that are nobody's, asked twice.

        A file that was published, or moved aside, between the listing and the first question
        has by the second one a row that says so, or is not there any more.
        """
        suspects = self._unaccounted(files, folder)
        there = []
        for key, path in suspects:
            with contextlib.suppress(OSError):
                there.append((key, path, os.stat(path.name, dir_fd=folder, follow_symlinks=False)))
        left = self._unaccounted([(key, path) for key, path, _ in there], folder)
        return [
            _Stray(key, path, found, left[key, path])
            for key, path, found in there
            if (key, path) in left
        ]

    def _unaccounted(
        self, files: Sequence[tuple[RunKey, Path]], folder: int
    ) -> dict[tuple[RunKey, Path], Tracked | None]:
        """Return those files of which the database does not say that they are where they are."""
        if not files:
            return {}
        now = utc_now()
        tracked = store.tracked(self._database, [key for key, _ in files])
        found: dict[tuple[RunKey, Path], Tracked | None] = {}
        for key, path in files:
            run = tracked.get(key)
            if run is None or not (_is_saving(run, now) or _is_at(run, path, folder)):
                found[key, path] = run
        return found

    def _judge(self, strays: Sequence[_Stray], folder: int) -> Iterator[Finding]:
        """Report strays; those with a proof are adopted first if that was asked for."""
        parts = self._parts_of([stray for stray in strays if _may_be_ours(stray)])
        for stray in strays:
            part = parts.get(stray.path)
            if part is None:
                yield self._found(Kind.ORPHAN, stray, _told(stray))
                continue
            detail = f"{stray.path} was saved whole but not recorded: the run is {_state(stray)}"
            size = self._adopt(stray, part) if self._repair else None
            if size is not None:
                yield self._found(Kind.UNRECORDED, stray, detail, f"recorded, {size} bytes")
            elif not self._repair:
                yield self._found(Kind.UNRECORDED, stray, detail)
            elif self._strays([(stray.key, stray.path)], folder):  # nobody was faster
                detail += "; not repaired: it cannot be read, or another process holds its part"
                yield self._found(Kind.UNRECORDED, stray, detail)

    def _found(self, kind: Kind, stray: _Stray, detail: str, repair: str | None = None) -> Finding:
        return self._tally.count(Finding(kind, stray.key, str(stray.path), detail, repair))

    def _parts_of(self, strays: Sequence[_Stray]) -> dict[Path, str]:
        """Return the names of the parts that are the same files as these."""
        if not strays:
            return {}
        wanted = {
            (stray.key, stray.found.st_dev, stray.found.st_ino): stray.path for stray in strays
        }
        keys = {stray.key for stray in strays}
        parts = {}
        with (
            contextlib.suppress(OSError),
            opened_folder(self._layout.folder / PARTIAL) as partial,
        ):
            for name, key in parts_in(partial):
                if key not in keys:
                    continue
                with contextlib.suppress(FileNotFoundError):  # it has just been removed
                    found = os.stat(name, dir_fd=partial, follow_symlinks=False)
                    path = wanted.get((key, found.st_dev, found.st_ino))
                    if path is not None:
                        parts[path] = name
        return parts

    def _adopt(self, stray: _Stray, part: str) -> int | None:
        """Record a file that is proved to be ours; return its bytes, None where that cannot be."""
        with (
            contextlib.suppress(OSError),
            opened_folder(self._layout.folder / PARTIAL) as partial,
        ):
            held = lock_existing(part, partial)
            if held is None:
                return None
            try:
                file = published_as(self._layout, stray.key, held.descriptor)
                reach(At.VERIFY_REPAIRING)
                if file is None or not self._record(stray.key, *file):
                    return None
                with contextlib.suppress(OSError):  # then it is stale, and goes another time
                    os.unlink(part, dir_fd=partial)
                return file[2].bytes
            finally:
                os.close(held.descriptor)
        return None

    def _record(self, key: RunKey, final: Path, form: AudioFormat, hashed: Hashed) -> bool:
        file = Published(str(final), hashed.bytes, hashed.sha256, form.value, None, adopted=True)
        return store.adopt(self._database, key, file, utc_now())


def _is_saving(run: Tracked, now: datetime) -> bool:
    """Return whether a process holds a run, and may be about to give its file a name."""
    ends_at = run.lease_expires_at
    return run.state is State.DOWNLOADING and ends_at is not None and ends_at >= now


def _is_at(run: Tracked, path: Path, folder: int) -> bool:
    """Return whether a done run's file is this one; the folder may have been reached otherwise."""
    if run.state is not State.DONE or run.location is None:
        return False
    if run.location == str(path):
        return True
    try:
        recorded = os.lstat(run.location)
        here = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return os.path.samestat(recorded, here)


def _may_be_ours(stray: _Stray) -> bool:
    """Return whether a file may have been published without its commit."""
    return (
        stray.run is not None
        and (stray.run.state in store.ADOPTABLE or stray.run.state is State.DOWNLOADING)
        and stat.S_ISREG(stray.found.st_mode)
        and stray.found.st_nlink > 1
    )


def _state(stray: _Stray) -> str:
    return "not tracked" if stray.run is None else stray.run.state.value


def _told(stray: _Stray) -> str:
    """Say of a file that is nobody's what a person can do."""
    run, run_id = stray.run, stray.key.run_id
    named = "" if stray.key.run_type == next(iter(RUN_TYPES)) else f" --type {stray.key.run_type}"
    if not stat.S_ISREG(stray.found.st_mode):  # whatever the service has, it is not equal to this
        again = ""
        if run is not None and run.state in (State.FAILED, State.CANCELLED):
            again = f"; `downloader retry{named} {run_id}` then has the run's file saved here"
        return f"{stray.path} is {kind_of(stray.found)}, not a saved file: move it away{again}"
    if run is None:
        return (
            f"{stray.path} is of no tracked run: if it is no other database's, move it away, or "
            f"`downloader submit{named} {run_id}` to have it compared with what the service has"
        )
    match run.state:
        case State.DONE:
            return f"{stray.path} is not this run's file, which is {run.location}: move it away"
        case State.FAILED | State.CANCELLED:
            if run.error_code == "name_taken":  # it has been compared, and is another
                return (
                    f"{stray.path} is not what the service has of this run: move it away, then "
                    f"`downloader retry{named} {run_id}`"
                )
            over = "has failed" if run.state is State.FAILED else "was cancelled"
            return (
                f"{stray.path} is of a run that {over}: move it away, or "
                f"`downloader retry{named} {run_id}` to have it compared with what the service has"
            )
        case _:
            return (
                f"{stray.path} is of a run that is {run.state}: the next `downloader run` fetches "
                "it again, and takes this file for it if it is equal"
            )
