"""The files of done runs: looked at several at a time, reported in order, put back if asked."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.store import verification as store
from downloader.verification.aside import set_aside
from downloader.verification.findings import Finding, Kind
from downloader.verification.looking import GONE, Trouble, look

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from downloader.store.database import Database
    from downloader.store.verification import SavedRun
    from downloader.transfer.layout import Layout
    from downloader.verification.findings import Tally
    from downloader.verification.folders import Folders

_AHEAD: Final = 256
"""How many files are given to the threads at a time: one large one does not stop the others."""

_TOGETHER: Final = 50
"""How many runs are put back in one transaction, which keeps other processes from writing."""

_TOGETHER_SECONDS: Final = 1.0
"""How long a finding may wait for others."""

_TICK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Repair:
    """What became of a run that was to be put back; nothing where somebody was faster."""

    words: str | None = None
    obstacle: str | None = None
    overtaken: bool = False


class SavedFiles:
    """Compares every done run with its file."""

    def __init__(
        self,
        database: Database,
        layout: Layout,
        folders: Folders,
        tally: Tally,
        *,
        quick: bool,
        repair: bool,
        threads: int,
        tick: Callable[[], None],
    ) -> None:
        self._database = database
        self._layout = layout
        self._folders = folders
        self._tally = tally
        self._quick = quick
        self._repair = repair
        self._threads = threads
        self._tick = tick
        self._counting = threading.Lock()
        self._over = threading.Event()

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong, put right where that was asked for.

        Raises:
            ConfigurationError: a folder of saved files has gone away meanwhile.

        """
        waiting: list[tuple[SavedRun, Trouble]] = []
        since = 0.0
        with closing(self._looked_at()) as looked_at:
            for run, trouble in looked_at:
                self._tally.checked += 1
                if trouble is not None:
                    since = since if waiting else time.monotonic()
                    waiting.append((run, trouble))
                late = time.monotonic() - since > _TOGETHER_SECONDS
                if len(waiting) >= _TOGETHER or (waiting and late):
                    yield from self._settle(waiting)
                    waiting = []
        yield from self._settle(waiting)

    def _looked_at(self) -> Generator[tuple[SavedRun, Trouble | None]]:
        """Yield every done run with what is wrong with its file, in the order of the keys."""
        ahead: deque[tuple[SavedRun, Future[Trouble | None]]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="verify")
        task = partial(look, quick=self._quick, stopped=self._over.is_set, read=self._note_read)
        try:
            for run in store.saved_runs(self._database):
                ahead.append((run, pool.submit(task, run)))
                if len(ahead) >= _AHEAD:
                    yield self._first(ahead)
            while ahead:
                yield self._first(ahead)
        finally:
            # Whoever ends this early does not wait for files that are being read.
            self._over.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _first(
        self, ahead: deque[tuple[SavedRun, Future[Trouble | None]]]
    ) -> tuple[SavedRun, Trouble | None]:
        run, answer = ahead.popleft()
        self._tick()
        while not answer.done():
            wait([answer], _TICK_SECONDS)
            self._tick()
        return run, answer.result()

    def _note_read(self, size: int) -> None:
        with self._counting:
            self._tally.read_bytes += size

    def _settle(self, waiting: list[tuple[SavedRun, Trouble]]) -> Iterator[Finding]:
        """Report what is still so, now that it is looked at again; repair it first if asked."""
        if not waiting:
            return
        self._folders.must_be_the_same(
            run.location for run, trouble in waiting if trouble.kind is Kind.MISSING
        )
        same = store.unchanged(self._database, [run for run, _ in waiting])
        waiting = [(run, trouble) for run, trouble in waiting if run.key in same]
        done = self._put_back(waiting) if self._repair else {}
        for run, trouble in waiting:
            repair = done.get(run, _Repair())
            if repair.overtaken:
                continue
            detail = trouble.detail
            if repair.obstacle is not None:
                detail += f"; not repaired: {repair.obstacle}"
            yield self._tally.count(
                Finding(trouble.kind, run.key, run.location, detail, repair.words)
            )

    def _put_back(self, waiting: list[tuple[SavedRun, Trouble]]) -> dict[SavedRun, _Repair]:
        """Put runs back to pending, and what is damaged out of the way of the file to come."""
        troubles = {
            run: trouble for run, trouble in waiting if trouble.kind in (Kind.DAMAGED, Kind.MISSING)
        }
        repairs = {run: _Repair(overtaken=True) for run in troubles}

        def make_way(run: SavedRun) -> str | None:
            """Say what goes into the history, None where the run is to be left as it is."""
            try:
                reach(At.VERIFY_REPAIRING)
                kept = _kept(run.location, troubles[run], self._layout)
            except OSError as error:
                repairs[run] = _Repair(obstacle=f"it cannot be moved aside: {error.strerror}")
                return None
            if kept is None:
                repairs[run] = _Repair(obstacle="it has changed meanwhile, verify again")
                return None
            repairs[run] = _Repair(words="put back to pending" + kept)
            return troubles[run].detail + kept

        lost = [(run, trouble.kind.value) for run, trouble in troubles.items()]
        if lost:
            store.put_back(self._database, lost, utc_now(), make_way)
        return repairs


def _kept(location: str, trouble: Trouble, layout: Layout) -> str | None:
    """Make way for a new file; say where the old one is, None where it is not the one found."""
    if trouble.kind is Kind.DAMAGED:
        path = set_aside(location, trouble.identity, layout)
        return None if path is None else f", the file is kept as {path}"
    try:
        os.lstat(location)
    except GONE:
        return ""
    except OSError:
        pass
    return None
