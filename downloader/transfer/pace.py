"""How fast a body comes, over the time that was spent on waiting for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from downloader.transfer.problems import too_slow

if TYPE_CHECKING:
    from downloader.transfer.engine import Sink, Timing


class Pace:
    """Hands a body on to its sink, as long as it comes at the floor speed or faster.

    The sink's own time, be it spent on a slow disk or on keeping to a limit, is not the
    storage's. `silent_since` is when the last bytes had been taken (monotonic clock).
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._started = self.silent_since = time.monotonic()
        self._received = 0

    def push(self, sink: Sink, chunk: bytes) -> bool:
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
        wanted = sink.write(chunk)
        self.silent_since = time.monotonic()
        self._started += self.silent_since - now
        return wanted
