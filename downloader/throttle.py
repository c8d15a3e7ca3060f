"""One pace for every request to the API: a 429 slows them all, not just the one it answers."""

from __future__ import annotations

import time
from typing import Final

import anyio

from downloader.rules.backoff import attempt_delay_seconds
from downloader.rules.rates import booked_until

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon those who wait see that the rate has been set anew."""

_MOST_SECONDS: Final = 60.0
"""The longest pause of our own choice; a Retry-After may ask for more."""


class Throttle:
    """Holds every request back until it may go.

    Answers without use in a row slow the requests down more and more, so that an API that is
    down is not hammered; the first useful one ends that. At no time do more than `rate` a second
    go out, where that is given (`--api-rate`).
    """

    def __init__(self, rate: float | None = None) -> None:
        self._rate = rate
        self._booked_until = float("-inf")
        self._not_before = 0.0
        self._failed_at = float("-inf")
        self.failures = 0

    async def wait(self, stopping: anyio.Event) -> None:
        """Wait until a request may go, and count it; or until the service stops."""
        while not stopping.is_set() and (seconds := self._seconds_left()) > 0:
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

    def _seconds_left(self) -> float:
        return max(self._not_before, self._booked_until) - time.monotonic()

    def succeeded(self) -> None:
        """Note a useful answer."""
        self.failures = 0

    def failed(
        self, asked_at: float, retry_after_seconds: float | None, *, slow_all: bool, jitter: float
    ) -> float:
        """Note an answer without use; return how many seconds all requests now wait.

        `asked_at` is by the monotonic clock: many that are under way at once fail as one.
        """
        if asked_at >= self._failed_at:
            self.failures += 1
            self._failed_at = time.monotonic()
        seconds = 0.0
        if slow_all or self.failures > 1:
            seconds = min(attempt_delay_seconds(self.failures, jitter), _MOST_SECONDS)
        if slow_all:
            seconds = max(seconds, retry_after_seconds or 0.0)
        self._not_before = max(self._not_before, time.monotonic() + seconds)
        return seconds
