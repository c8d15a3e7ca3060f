"""No more requests a second to the API than `--api-rate` allows."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from downloader.rules.rates import booked_until

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon those who wait see that the rate has been set anew."""


class Throttle:
    """Holds every request back until it may go: at most `rate` a second, where that is given."""

    def __init__(self, rate: float | None = None) -> None:
        self._rate = rate
        self._booked_until = float("-inf")
        self._lock = threading.Lock()

    def wait(self, stopping: threading.Event, looking: Callable[[], None] = lambda: None) -> None:
        """Wait until a request may go, and count it; or until the service stops.

        `looking` is called at each look whether it may.
        """
        while not stopping.is_set():
            looking()
            with self._lock:
                now = time.monotonic()
                seconds = self._booked_until - now
                if seconds <= 0:
                    if self._rate is not None:
                        self._booked_until = booked_until(
                            self._booked_until, 1, rate=self._rate, now=now
                        )
                    return
            stopping.wait(min(seconds, _LOOK_AGAIN_SECONDS))

    def change(self, rate: float | None) -> None:
        """Hold to another rate from now on; what was booked at the one before is let off."""
        with self._lock:
            if rate != self._rate:
                self._rate, self._booked_until = rate, float("-inf")
