"""A transfer's permission to go on: withdrawn from outside, or ended with the lease."""

from __future__ import annotations

import math
import threading
import time
from typing import Final

HUNG_SECONDS: Final = 5.0
"""A thread that was told to stop and gives no sign of life for so long has its place taken."""


class Interrupted(Exception):  # noqa: N818 - not an error: somebody said stop
    """The transfer was told to stop; what it holds stays for a resume."""


class Guard:
    """Tells one transfer, in whatever thread works on it, whether it may go on.

    The lease's end is kept on the monotonic clock: a process that was frozen past it finds
    that out here, before it publishes, whatever the wall clock did.

    The lease is extended only while the transfer is `alive`: a thread that hangs, on a disk that
    does not answer for instance, loses it as a process does that was killed.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._alive_at = time.monotonic()
        self.queue()
        self._cancelled_at = math.inf
        self._cancelled = threading.Event()
        self.extend(lease_seconds)

    def extend(self, lease_seconds: float) -> None:
        """Note that the lease now ends `lease_seconds` from now."""
        self._ends_at = time.monotonic() + lease_seconds

    def queue(self) -> None:
        """Note that the transfer waits for a thread, and gives no sign of life until it has one."""
        self._allowed_until = math.inf

    def begin(self) -> None:
        """Note that the transfer has a thread, which is to give signs of life from now on."""
        self._alive_at = self._allowed_until = time.monotonic()

    def allow(self, seconds: float) -> None:
        """Expect no sign of life for so long: the transfer waits for what ends by then."""
        self._allowed_until = time.monotonic() + seconds

    def is_alive(self, since: float) -> bool:
        """Return whether it has done anything since then (monotonic clock), or waits as it may."""
        return max(self._alive_at, self._allowed_until) >= since

    @property
    def is_hung(self) -> bool:
        """Whether it was to stop some seconds ago, and has given no sign of life since."""
        told_at = min(self._cancelled_at, self._ends_at)
        now = time.monotonic()
        return now - told_at >= HUNG_SECONDS and not self.is_alive(now - HUNG_SECONDS)

    def cancel(self) -> None:
        """Tell the transfer to stop, which it hears within a tenth of a second."""
        self._cancelled_at = min(self._cancelled_at, time.monotonic())
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the transfer must stop."""
        return self._cancelled.is_set() or time.monotonic() >= self._ends_at

    def check(self) -> None:
        """Raise `Interrupted` where the transfer must stop; a sign of life of its thread."""
        self._alive_at = time.monotonic()
        if self.cancelled:
            raise Interrupted

    def pause(self, seconds: float) -> None:
        """Wait so long; raise `Interrupted` as soon as the transfer must stop."""
        over_at = time.monotonic() + seconds
        self.check()
        if seconds <= 0:
            return
        self.allow(seconds)
        while (left := over_at - time.monotonic()) > 0:
            # The lease may end meanwhile, or be extended.
            self._cancelled.wait(min(left, max(0.0, self._ends_at - time.monotonic())))
            self.check()
