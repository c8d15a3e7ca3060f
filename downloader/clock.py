"""The one place that reads the wall clock, and that notices when somebody has set it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

_wall = time.time  # tests put a clock here that is set while the program runs

NOTICED_SECONDS: Final = 5.0
"""A step of the wall clock below this changes nothing that matters here."""

_SETTLING_SECONDS: Final = 5.0
"""Each process looks at the clock at least once a second, and then extends what it holds."""


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.fromtimestamp(_wall(), UTC)


class ClockWatch:
    """Notices steps of the wall clock: one that is set, or a machine that was suspended.

    The monotonic clock goes on evenly through the first and stands still in the second (Linux
    and macOS), so both show as the wall clock's moving against it.
    """

    def __init__(self) -> None:
        self._offset = _wall() - time.monotonic()
        self._forward_at = float("-inf")
        self.stepped_at = float("-inf")
        """When a step was last noticed, on the monotonic clock."""

    def look(self) -> float:
        """Return by how many seconds the clock has been set since the last look; 0 for not."""
        now = time.monotonic()
        step = _wall() - now - self._offset
        self._offset += step
        if abs(step) < NOTICED_SECONDS:
            return 0.0
        self.stepped_at = now
        if step > 0:
            self._forward_at = now
        return step

    @property
    def settling(self) -> bool:
        """Whether claims that look as if they had run out may only look so.

        After a step forward each process needs a moment to extend its own.
        """
        return time.monotonic() - self._forward_at < _SETTLING_SECONDS
