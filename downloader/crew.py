"""Threads that do one job after another, and tell in groups what has come of them.

A way through the event loop and back costs more than a small file: so what a job comes to is
judged in its own thread, and whoever asks is told of all that have ended since it asked last.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio

from downloader.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

Job = TypeVar("Job")
Ended = TypeVar("Ended")

_MOST_ABANDONED: Final = 64
"""Threads that may hang at a time with others in their places: each has memory and a file open."""


class Crew(Generic[Job, Ended]):
    """At most `limit` threads; `work` does one job, and returns how it ended.

    The threads are daemons: one that a disk or a name server never lets go of keeps nobody.
    """

    def __init__(self, work: Callable[[Job], Ended]) -> None:
        self._work = work
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._ended: deque[Ended | BaseException] = deque()
        self._bell = Bell()
        self._rung = False
        self._lock = threading.Lock()  # of what follows, and of the bell as it is closed
        self._threads = 0  # those that are to go not counted
        self._leaving = 0
        self._closed = False
        self._at_work: list[Job] = []
        self._abandoned: list[Job] = []  # whose threads do not come back, or later
        self.begun = 0
        """Jobs that were begun, and not taken by `take_ended` or `take_back`."""

    @property
    def queued(self) -> int:
        """How many jobs wait for a thread, about."""
        return self._jobs.qsize()

    @property
    def active(self) -> int:
        """How many jobs are being done, or have ended and are not taken yet."""
        return max(0, self.begun - self.queued)

    @property
    def running(self) -> int:
        """How many jobs are being done just now, about."""
        return max(0, self.active - len(self._ended))

    def limit(self, threads: int) -> None:
        """Have no more threads than so many, as soon as those above have done their job."""
        with self._lock:
            self._leaving += max(0, self._threads - threads)
            self._threads = min(self._threads, threads)
            wanted = min(threads, self.begun) - self._threads
            staying = min(self._leaving, max(0, wanted))
            self._leaving -= staying
            self._threads += max(0, wanted)
        for _ in range(wanted - staying):
            threading.Thread(target=self._run, name="transfer", daemon=True).start()

    def begin(self, job: Job) -> None:
        """Have a thread do this job, after those begun before; `limit` says how many there are."""
        self.begun += 1
        self._jobs.put(job)

    def take_ended(self) -> list[Ended | BaseException]:
        """Return how the jobs ended that have done so since the last time.

        An exception is what the work raised, which it is meant not to.
        """
        self._rung = False  # before the look: what ends behind it rings again
        ended: list[Ended | BaseException] = []
        while self._ended:
            ended.append(self._ended.popleft())
        self.begun -= len(ended)
        return ended

    def take_back(self) -> list[Job]:
        """Return the jobs that no thread has begun to do; none will."""
        jobs: list[Job] = []
        with contextlib.suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    jobs.append(job)
        self.begun -= len(jobs)
        return jobs

    def abandon(self, job: Job) -> bool:
        """Have another thread in the place of one that does not get done with this job.

        How it ends, if ever, is of no interest then. False where it is not being done any more, or
        too many hang already: then its place stays taken.
        """
        with self._lock:
            if len(self._abandoned) >= _MOST_ABANDONED or job not in self._at_work:
                return False
            self._at_work.remove(job)
            self._abandoned.append(job)
            self._threads -= 1
        self.begun -= 1
        return True

    async def wait_ended(self) -> None:
        """Wait until a job has ended since the last `take_ended`, or may have."""
        await anyio.wait_readable(self._bell.descriptor)
        self._bell.hush()

    def close(self) -> None:
        """Send the threads home, those at work as soon as they have done their job."""
        self.limit(0)
        with self._lock:
            leaving = self._leaving
            self._closed = True
            self._bell.close()
        for _ in range(leaving):
            self._jobs.put(None)  # for those that wait

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if self._is_to_leave():
                if job is not None:
                    self._jobs.put(job)  # for another
                return
            if job is None:
                continue
            with self._lock:
                self._at_work.append(job)
            ended: Ended | BaseException
            try:
                ended = self._work(job)
            except BaseException as error:  # noqa: BLE001 - handed to whom it matters
                ended = error
            with self._lock:
                if abandoned := job in self._abandoned:
                    self._abandoned.remove(job)
                else:
                    self._at_work.remove(job)
                    self._ended.append(ended)
            if abandoned:
                return  # another is here in its place
            del job, ended  # not kept alive while the next is waited for
            if not self._rung:
                self._rung = True
                self._tell()

    def _is_to_leave(self) -> bool:
        if not self._leaving:
            return False
        with self._lock:
            leaves = self._leaving > 0
            self._leaving -= leaves
            return leaves

    def _tell(self) -> None:
        with self._lock:
            if not self._closed:
                self._bell.ring()
