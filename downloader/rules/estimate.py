"""How fast runs are being saved, and when all will be, from what was saved of late."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

WINDOWS: Final = (600.0, 86400.0)
"""Over how many seconds to look back: the second where the first has too little to tell."""

ENOUGH: Final = 3
"""From how many files on there is a rate to speak of."""

_LONGEST: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Recent:
    """What was saved since a moment: the first that was, or the start of a window."""

    seconds: float
    runs: int
    bytes: int

    @property
    def runs_per_second(self) -> float | None:
        """Return how many files a second; None where that would be a guess."""
        return self.runs / self.seconds if self.runs >= ENOUGH and self.seconds > 0 else None

    @property
    def bytes_per_second(self) -> float | None:
        """Return how many bytes a second; None where that would be a guess."""
        return self.bytes / self.seconds if self.runs >= ENOUGH and self.seconds > 0 else None


def recent(first_done_at: datetime | None, runs: int, size: int, now: datetime) -> Recent:
    """Return what was saved from the first of these files until now.

    Until now, not until the last of them: where nothing comes any more the rate goes down.
    """
    if first_done_at is None:
        return Recent(0.0, 0, 0)
    return Recent(max(0.0, (now - first_done_at).total_seconds()), runs, size)


def all_saved_at(unfinished: int, of_late: Recent, now: datetime) -> datetime | None:
    """Return when all unfinished runs will be saved if it goes on as of late; None: not known."""
    rate = of_late.runs_per_second
    if not unfinished or rate is None:
        return None
    left = unfinished / rate
    return now + timedelta(seconds=left) if left < _LONGEST.total_seconds() else None
