"""A transfer's permission to go on: withdrawn from outside, or ended with the lease."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from downloader.transfer.desks import Away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from downloader.transfer.desks import Desks


class Interrupted(Exception):  # noqa: N818 - not an error: somebody said stop
    """The transfer was told to stop; what it holds stays for a resume."""


class Guard:
    """Tells one transfer, in its thread, whether it may go on.

    The lease's end is kept on the monotonic clock: a process that was frozen past it finds
    that out here, before it publishes, whatever the wall clock did.

    `away` is a context for whatever the transfer waits for: others may be at work meanwhile.
    """

    def __init__(self, lease_seconds: float, desks: Desks | None = None) -> None:
        self.away = Away(desks)
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self._cancelled = threading.Event()
        self.extend(lease_seconds)

    def extend(self, lease_seconds: float) -> None:
        """Note that the lease now ends `lease_seconds` from now."""
        self._ends_at = time.monotonic() + lease_seconds

    def cancel(self) -> None:
        """Tell the transfer to stop, and wake it where it waits for bytes."""
        with self._lock:
            self._cancelled.set()
            if self._wake is not None:
                self._wake()

    @property
    def cancelled(self) -> bool:
        """Whether the transfer must stop."""
        return self._cancelled.is_set() or time.monotonic() >= self._ends_at

    def check(self) -> None:
        """Raise `Interrupted` where the transfer must stop."""
        if self.cancelled:
            raise Interrupted

    def pause(self, seconds: float) -> None:
        """Wait so long; raise `Interrupted` as soon as the transfer must stop."""
        over_at = time.monotonic() + seconds
        self.check()
        if seconds <= 0:
            return
        with self.away:
            while (left := over_at - time.monotonic()) > 0:
                # The lease may end meanwhile, or be extended.
                self._cancelled.wait(min(left, max(0.0, self._ends_at - time.monotonic())))
                self.check()

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have `cancel` call `wake`, from its own thread, while this context lasts."""
        with self._lock:
            self._wake = wake
            if self._cancelled.is_set():
                wake()
        try:
            yield
        finally:
            with self._lock:
                self._wake = None
