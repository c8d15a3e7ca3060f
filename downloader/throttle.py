"""No more requests a second to the API than `--api-rate` allows."""

from __future__ import annotations

import time
from typing import Final

import anyio

from downloader.rules.rates import booked_until

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon those who wait see that the rate has been set anew."""


class Throttle:
    """Holds every request back until it may go: at most `rate` a second, where that is given."""

    def __init__(self, rate: float | None = None) -> None:
        self._rate = rate
        self._booked_until = float("-inf")

    async def wait(self, stopping: anyio.Event) -> None:
        """Wait until a request may go, and count it; or until the service stops."""
        while not stopping.is_set() and (seconds := self._booked_until - time.monotonic()) > 0:
            with anyio.move_on_after(min(seconds, _LOOK_AGAIN_SECONDS)):
                await stopping.wait()
        if self._rate is not None:  # nobody else was asked since the last look at the time
            self._booked_until = booked_until(
                self._booked_until, 1, rate=self._rate, now=time.monotonic()
            )

    def change(self, rate: float | None) -> None:
        """Hold to another rate from now on; what was booked at the one before is let off."""
        if rate != self._rate:
            self._rate, self._booked_until = rate, float("-inf")
