"""Limits on a rate: what is taken is booked one after the other, and each booking has its time.

Nothing is lost by a sleep that ends late: the next booking counts from when the last one was
due, not from when it was used. What is not used within `CATCH_UP_SECONDS` is gone, so that a
pause is never followed by a flood.
"""

from __future__ import annotations

from typing import Final

CATCH_UP_SECONDS: Final = 0.25
"""The most that may ever come at once, in seconds' worth of the rate."""


def booked_until(until: float, amount: float, *, rate: float, now: float) -> float:
    """Return until when all is booked after `amount` more, at `rate` a second.

    `until` is the last answer, minus infinity at first; times are seconds of one clock.
    """
    return max(until, now - CATCH_UP_SECONDS) + amount / rate
