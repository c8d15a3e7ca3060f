"""Threads for calls that may block, used again, and replaced where they hang."""

from __future__ import annotations

import math
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from downloader.transfer.guard import Guard

MOST_HUNG: Final = 64
"""Threads that may hang at a time with others in their places: each has memory and a file open."""

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon it is seen that a thread hangs while calls wait."""


class ThreadPool:
    """At most `threads` daemon threads, begun as they are needed.

    Each call is of one transfer. A thread whose transfer hangs (see `Guard.is_hung`) has another in
    its place as soon as a call waits for one, up to `MOST_HUNG`; it ends when its call does.
    """

    def __init__(self, name: str, threads: float = math.inf) -> None:
        self._name = name
        self._limit = threads
        self._calls: SimpleQueue[tuple[Callable[[], None], Guard] | None] = SimpleQueue()
        self._lock = threading.Lock()  # of all that follows
        self._threads = 0  # without those that were replaced
        self._pending = 0  # calls that wait for a thread, or have one that was not replaced
        self._running: dict[int, Guard] = {}  # by thread, without those that were replaced
        self._hung = 0
        self._watched = False
        self._closed = False

    def submit(self, call: Callable[[], None], guard: Guard) -> None:
        """Have a thread make this call, which raises nothing; returns at once."""
        guard.queue()
        with self._lock:
            if not self._closed:
                self._pending += 1
                self._calls.put((call, guard))
                self._start_threads()
                return
        # What hung before the pool was closed may come to its end yet.
        threading.Thread(target=call, name=self._name, daemon=True).start()

    def close(self) -> None:
        """End the threads once all calls are made."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._end_idle()

    def _start_threads(self) -> None:
        while self._threads < min(self._limit, self._pending):
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
            self._threads += 1
        if self._pending > self._threads and not self._watched:
            self._watched = True
            threading.Thread(target=self._watch, name=f"{self._name}-watch", daemon=True).start()

    def _end_idle(self) -> None:
        if self._closed and not self._pending:
            for _ in range(self._threads):
                self._calls.put(None)

    def _run(self) -> None:
        me = threading.get_ident()
        while (given := self._calls.get()) is not None:
            call, guard = given
            with self._lock:
                self._running[me] = guard
            guard.begin()
            call()
            del given, call, guard  # not kept alive while the next one is waited for
            with self._lock:
                if self._running.pop(me, None) is None:  # replaced meanwhile
                    self._hung -= 1
                    return
                self._pending -= 1
                self._end_idle()

    def _watch(self) -> None:
        """Replace the threads that hang, for as long as calls wait."""
        pause = threading.Event()
        while True:
            pause.wait(_LOOK_AGAIN_SECONDS)
            with self._lock:
                for thread in [one for one, guard in self._running.items() if guard.is_hung]:
                    if self._hung < MOST_HUNG:
                        del self._running[thread]
                        self._hung += 1
                        self._pending -= 1
                        self._threads -= 1
                self._watched = self._pending > self._threads
                if not self._watched:
                    return
                self._start_threads()
