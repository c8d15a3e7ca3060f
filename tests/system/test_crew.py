"""Threads that do one job after another."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
from harness import wait_until

from downloader.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def crew_of(work: Callable[[int], int]) -> Iterator[Crew[int, int]]:
    """Make a crew, and send it home in the end."""
    crew = Crew(work)
    try:
        yield crew
    finally:
        crew.close()


class Desk:
    """Work that waits until it is told to end; knows how much is under way, and was at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._go = threading.Semaphore(0)
        self.under_way = 0
        self.most = 0

    def work(self, job: int) -> int:
        """Do a job."""
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self._go.acquire()
        with self._lock:
            self.under_way -= 1
        if job < 0:
            raise ValueError(job)
        return job * 10

    def let_end(self, jobs: int) -> None:
        """Let so many jobs end."""
        self._go.release(jobs)


def all_ended(crew: Crew[int, int], count: int) -> list[int | BaseException]:
    """Return how jobs ended, once so many have."""
    found: list[int | BaseException] = []

    def enough() -> bool:
        found.extend(crew.take_ended())
        return len(found) >= count

    wait_until(enough)
    return found


def test_as_many_as_allowed() -> None:
    """There are never more threads than allowed; what is begun beyond waits, and is done later."""
    desk = Desk()
    with crew_of(desk.work) as crew:
        for job in range(10):
            crew.begin(job)
        crew.limit(3)
        wait_until(lambda: desk.under_way == 3)
        assert (crew.begun, crew.queued, crew.active) == (10, 7, 3)
        desk.let_end(10)
        assert sorted(map(str, all_ended(crew, 10))) == sorted(str(job * 10) for job in range(10))
        assert desk.most == 3
        assert (crew.begun, crew.queued, crew.active) == (0, 0, 0)


def test_fewer_then_more() -> None:
    """A lower limit holds once those above have done their job; a higher one at once."""
    desk = Desk()
    with crew_of(desk.work) as crew:
        for job in range(4):
            crew.begin(job)
        crew.limit(4)
        wait_until(lambda: desk.under_way == 4)
        crew.limit(1)
        desk.let_end(4)
        all_ended(crew, 4)
        desk.most = 0
        for job in range(4):
            crew.begin(job)
        crew.limit(1)
        desk.let_end(4)
        all_ended(crew, 4)
        assert desk.most == 1
        for job in range(5):
            crew.begin(job)
        crew.limit(5)
        wait_until(lambda: desk.under_way == 5)
        desk.let_end(5)
        all_ended(crew, 5)


def test_what_is_not_begun_is_taken_back() -> None:
    """Jobs that wait can be had back, and are not done."""
    desk = Desk()
    with crew_of(desk.work) as crew:
        for job in range(5):
            crew.begin(job)
        crew.limit(2)
        wait_until(lambda: desk.under_way == 2)
        assert crew.take_back() == [2, 3, 4]
        assert crew.begun == 2
        desk.let_end(2)
        assert sorted(map(str, all_ended(crew, 2))) == ["0", "10"]
        assert desk.most == 2


def test_an_error_is_handed_on() -> None:
    """What the work raises comes out with what ended well, and costs no thread."""
    desk = Desk()
    desk.let_end(3)
    with crew_of(desk.work) as crew:
        for job in (1, -1, 2):
            crew.begin(job)
        crew.limit(1)
        first, error, last = all_ended(crew, 3)
        assert (first, last) == (10, 20)
        assert isinstance(error, ValueError)


def test_whoever_waits_is_told() -> None:
    """The end of a job wakes a task, also where it came before the wait."""
    desk = Desk()

    async def wait_for_two() -> list[int | BaseException]:
        found: list[int | BaseException] = []
        while len(found) < 2:
            await crew.wait_ended()
            found += crew.take_ended()
            desk.let_end(1)
        return found

    with crew_of(desk.work) as crew:
        crew.begin(1)
        crew.begin(2)
        crew.limit(1)
        desk.let_end(1)
        assert anyio.run(wait_for_two) == [10, 20]


def test_what_has_ended_is_not_running() -> None:
    """Jobs that have ended and wait to be taken are active, and not running."""
    desk = Desk()
    with crew_of(desk.work) as crew:
        for job in range(4):
            crew.begin(job)
        crew.limit(2)
        wait_until(lambda: desk.under_way == 2)
        assert (crew.active, crew.running) == (2, 2)
        desk.let_end(1)
        wait_until(lambda: (crew.active, crew.running) == (3, 2))
        desk.let_end(3)
        assert len(all_ended(crew, 4)) == 4
        assert (crew.active, crew.running) == (0, 0)


def test_a_job_that_hangs_leaves_its_place_to_another() -> None:
    """A thread that does not come back is replaced; how its job ends in the end is not told."""
    desk = Desk()
    with crew_of(desk.work) as crew:
        crew.begin(1)
        crew.begin(2)
        crew.limit(1)
        wait_until(lambda: desk.under_way == 1)
        assert not crew.abandon(2)  # no thread has begun it
        assert crew.abandon(1)
        assert not crew.abandon(1)
        crew.limit(1)
        wait_until(lambda: desk.under_way == 2)
        desk.let_end(2)
        assert all_ended(crew, 1) == [20]
        wait_until(lambda: desk.under_way == 0)
        assert (crew.begun, crew.take_ended()) == (0, [])
