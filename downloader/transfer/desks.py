"""Desks: no more transfers are at work at a time than there are processors.

Python runs one thread at a time, and each one more that has something to do makes it dearer to hand
that turn on: 16 transfers of small files on two processors take a fifth longer without desks. What
waits, for the network, the disk or a limit of our own, needs none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Desks:
    """So many desks, for all transfers of a process; a context in which one is taken."""

    def __init__(self, number: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(number):
            self._free.put(None)

    def take(self) -> None:
        """Take a desk, once there is one."""
        self._free.get()

    def leave(self) -> None:
        """Leave it to another."""
        self._free.put(None)

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.leave()


class Away:
    """A context in which a transfer waits for something, and has left its desk, if it has one.

    `at_desk` is the context in which it has. A desk that was forfeited meanwhile, by a thread that
    hangs, is another's: it is not given back a second time.
    """

    def __init__(self, desks: Desks | None) -> None:
        self._desks = desks
        self._lock = threading.Lock()
        self._sits = self._forfeited = False
        self.waits_for_desk = False

    @contextlib.contextmanager
    def at_desk(self) -> Iterator[None]:
        """Have a desk, once there is one."""
        self._sit()
        try:
            yield
        finally:
            self._rise()

    def forfeit(self) -> None:
        """Give the desk to others for good, whatever its thread still does."""
        self._rise(forfeit=True)

    def __enter__(self) -> None:
        self._rise()

    def __exit__(self, *_: object) -> None:
        self._sit()

    def _sit(self) -> None:
        if self._desks is None or self._forfeited:
            return
        self.waits_for_desk = True
        self._desks.take()
        self.waits_for_desk = False
        with self._lock:
            self._sits = not self._forfeited
        if not self._sits:
            self._desks.leave()

    def _rise(self, *, forfeit: bool = False) -> None:
        with self._lock:
            sat, self._sits = self._sits, False
            self._forfeited = self._forfeited or forfeit
        if sat and self._desks is not None:
            self._desks.leave()


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
