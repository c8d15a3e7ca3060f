"""Simulated time: the program's own code runs as it is, and waiting costs nothing.

The monotonic clock and the wall clock are one simulated clock. What is waited for happens in the
thread that waits: it goes on to the next event, and the next, until it is woken.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import deque
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from downloader import clock
from downloader.session import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STARTED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)


class SimulatedTime:
    """A clock that starts at 0 on the monotonic side and at `STARTED_AT` on the wall."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Have this be the time."""
        with ExitStack() as patches:
            patches.enter_context(patch.object(time, "monotonic", lambda: self.seconds))
            patches.enter_context(patch.object(random, "random", random.Random(1).random))  # noqa: S311 - the same jitter in each call
            patches.enter_context(patch.object(clock, "_wall", self._wall))
            yield

    def _wall(self) -> float:
        return STARTED_AT.timestamp() + self.seconds

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        """Have something happen at a time."""
        heapq.heappush(self._events, (seconds, next(self._numbers), event))

    def go_on(self, until: float, is_over: Callable[[], bool]) -> None:
        """Let happen what does until some time, or until it is over."""
        while not is_over():
            if not self._events or self._events[0][0] > until:
                self.seconds = max(self.seconds, until)
                return
            at, _, event = heapq.heappop(self._events)
            self.seconds = max(self.seconds, at)
            event()


class SimulatedSignal(Signal):
    """A signal that is waited for in this time."""

    def __init__(self, simulated: SimulatedTime) -> None:
        super().__init__()
        self._time = simulated

    def wait(self, at_most_seconds: float) -> None:
        """Go on until it is set, at most so long."""
        self._time.go_on(self._time.seconds + at_most_seconds, self._event.is_set)
        self._event.clear()


class SimulatedPool:
    """Stands in for a pool of threads whose jobs each take so many seconds, and end then."""

    def __init__(self, simulated: SimulatedTime, job_seconds: float, threads: int) -> None:
        self._time = simulated
        self._job_seconds = job_seconds
        self._free = threads
        self._jobs: deque[Callable[[], object]] = deque()
        self._under_way = 0

    def submit(self, call: Callable[..., object], *values: object) -> None:
        """Have a job done."""
        self._jobs.append(partial(call, *values))
        self._under_way += 1
        self._begin()

    def shutdown(self) -> None:
        """Go on until all is done."""
        self._time.go_on(math.inf, lambda: not self._under_way)

    def _begin(self) -> None:
        while self._free and self._jobs:
            self._free -= 1
            self._time.at(
                self._time.seconds + self._job_seconds, partial(self._end, self._jobs.popleft())
            )

    def _end(self, job: Callable[[], object]) -> None:
        job()
        self._under_way -= 1
        self._free += 1
        self._begin()
