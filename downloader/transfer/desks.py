"""Desks: no more transfers are at work at a time than there are processors.

Python runs one thread at a time, and each one more that has something to do makes it dearer to hand
that turn on: 16 transfers of small files on two processors take a fifth longer without desks. What
waits, for the network, the disk or a limit of our own, needs none.
"""

from __future__ import annotations

import os
from queue import SimpleQueue


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
    """A context in which a transfer waits for something, and has left its desk, if it has one."""

    def __init__(self, desks: Desks | None) -> None:
        self._desks = desks

    def __enter__(self) -> None:
        if self._desks is not None:
            self._desks.leave()

    def __exit__(self, *_: object) -> None:
        if self._desks is not None:
            self._desks.take()


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
