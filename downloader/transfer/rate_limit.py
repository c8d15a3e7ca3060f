"""`--max-rate`: what all transfers of a process receive together, held to a rate."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from downloader.rules.rates import booked_until

if TYPE_CHECKING:
    from downloader.transfer.guard import Guard


_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon those who `pause` see that there is another rate."""


class RateLimit:
    """So many bytes a second for all threads together, first come, first served.

    Bytes are counted when they have arrived, whoever has use for them: bodies of refusals too.
    Whoever received some then waits until they are paid for. Meanwhile the network's own flow
    control keeps the sender waiting. None is no limit.
    """

    def __init__(self, bytes_per_second: float | None) -> None:
        self._bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self.changes = 0
        """How often the rate was changed: who waits need not wait on."""
        self._until = float("-inf")

    def change(self, bytes_per_second: float | None) -> None:
        """Hold to another rate from now on; what was booked at the one before is let off."""
        with self._lock:
            if bytes_per_second != self._bytes_per_second:
                self._bytes_per_second, self._until = bytes_per_second, float("-inf")
                self.changes += 1

    def book(self, size: int) -> float:
        """Count bytes that have arrived; return how many seconds to wait before taking more."""
        with self._lock:
            if self._bytes_per_second is None:
                return 0.0
            now = time.monotonic()
            self._until = booked_until(self._until, size, rate=self._bytes_per_second, now=now)
            return max(0.0, self._until - now)

    def pause(self, seconds: float, guard: Guard) -> None:
        """Wait as long as `book` has said, or until there is another rate."""
        over_at, changes = time.monotonic() + seconds, self.changes
        while (left := over_at - time.monotonic()) > 0 and self.changes == changes:
            guard.pause(min(left, _LOOK_AGAIN_SECONDS))

    @property
    def reached(self) -> bool:
        """Whether transfers wait because of this limit."""
        return self._until > time.monotonic()
