"""How fast a body comes, over the time that was spent on waiting for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from downloader.transfer.problems import too_slow

if TYPE_CHECKING:
    from downloader.transfer.engine import Fetch, Timing


class Pace:
    """Hands a body on, as long as it comes at the floor speed or faster.

    The time that is spent on a slow disk, or on keeping to a limit, is not the storage's.
    `silent_since` is when the last bytes had been taken (monotonic clock).
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._started = self.silent_since = time.monotonic()
        self._received = 0

    def push(self, fetch: Fetch, chunk: bytes) -> bool:
        """Hand on bytes that have just come; False says that no more are wanted.

        Raises:
            TransferError: they come too slowly.

        """
        now = time.monotonic()
        self._received += len(chunk)
        seconds = now - self._started
        if (
            seconds > self._timing.floor_after_seconds
            and self._received < seconds * self._timing.floor_bytes_per_second
        ):
            raise too_slow(self._timing, seconds)
        self.silent_since = now
        wanted = fetch.write(chunk)
        self.excuse(time.monotonic() - now)
        return wanted

    def excuse(self, seconds: float) -> None:
        """Leave out a time in which nothing was waited for."""
        self._started += seconds
        self.silent_since += seconds
