"""When to ask for a run that is not finished: when it has had a fair chance to finish since.

What is known is its age since it was submitted, how long runs of its type have taken before, and
what the answers say of its neighbours. All durations are in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import ceil, floor, log, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from downloader.rules.states import RunKey

CHANCE: Final = 1 / 5
"""How likely a run shall be to have finished when it is asked for: a poll costs a fifth of a
request, so that to find a finished run costs about one."""

EAGER: Final = 0.03
"""Share of its age after which a run is asked for whose neighbours have finished."""

_EAGER_FACTOR: Final = 1.6

ENOUGH_PAST: Final = 16
"""Below so many runs of the past nothing is concluded from them."""

_FIRST: Final = 1 / 16
_CAUTION: Final = 0.75
"""First polls come a little before the first few are expected: one that takes less time than
all before could else never show it."""

SURE: Final = 16
"""So many answers 'not yet' without a 'finished' among them say the same of the runs not asked for:
were one in five finished, so many would have missed it with a chance of 3 %."""


_UNASKED: Final = 9
"""Runs that are put off unasked for each one that was asked for."""

MOST_UNASKED: Final = 5_000
"""Rows that one UPDATE moves: some 30 ms."""

SAMPLE: Final = 5
"""Of those put off, so many stay due, evenly spread: one batch."""

SCOUTED: Final = 50
"""From so many unasked runs on, a few of them are asked for more often than the others."""

_MOST_OFTEN: Final = 0.15
_AGE_FACTOR: Final = 1.5
_OLDEST: Final = 48  # nine years and more: no calendar ends there


@dataclass(frozen=True, slots=True)
class Past:
    """How long runs of one type have taken from submission to the answer with the URL, ascending.

    One that was finished when it was first asked for counts as 0: how long it took is not known.
    """

    durations: tuple[float, ...] = ()

    def first_poll_seconds(self) -> float:
        """Return at what age a run is first worth asking for; 0 where the past does not tell."""
        if len(self.durations) < ENOUGH_PAST:
            return 0.0
        return _CAUTION * self.durations[int(len(self.durations) * _FIRST)]

    def wait_seconds(self, age: float) -> float:
        """Return until when one in five of the runs that are unfinished at this age will finish.

        Where the past does not tell, runs are taken to go on for about as long as they have.
        """
        longer = self.durations[bisect_right(self.durations, age) :]
        if len(self.durations) < ENOUGH_PAST or len(longer) < 1 / CHANCE:
            return max(age, 0.0) * CHANCE / (1 - CHANCE)
        return longer[ceil(len(longer) * CHANCE) - 1] - age


def poll_gap_seconds(age: float, past: Past, minimum: float, maximum: float) -> float:
    """Return the pause between two polls of a run of this age.

    However long runs took before, it at most doubles the age: this one may be of another kind.
    """
    gap = min(past.wait_seconds(age), max(age, minimum))
    return min(max(gap, minimum), maximum)


def eager_gap_seconds(age: float, since_seconds: float | None, minimum: float) -> float:
    """Return the pause before a run whose neighbours have finished is asked for again.

    A small share of its age; growing where it was asked for eagerly `since_seconds` ago already.
    """
    gap = max(age * EAGER, minimum)
    return gap if since_seconds is None else max(gap, since_seconds * _EAGER_FACTOR)


def scout_gap_seconds(gap: float, unasked: int, minimum: float) -> float:
    """Return the pause between two polls of a run that is asked for in place of `unasked` others.

    What a poll is worth grows with how many it speaks for: the pause shrinks with the root of
    that, as in every trade of a fixed cost against a growing one.
    """
    if unasked < SCOUTED:
        return gap
    return max(gap * max(_MOST_OFTEN, sqrt(SCOUTED / unasked)), minimum)


@dataclass(slots=True)
class Sample:
    """What the latest answers about runs of one kind say of those not asked for."""

    unfinished: int = 0
    """Answers 'not yet'; each 'finished' has taken half of those before it away."""

    def add(self, *, finished: bool) -> None:
        """Learn from one answer."""
        self.unfinished = self.unfinished // 2 if finished else self.unfinished + 1

    @property
    def unasked(self) -> int:
        """How many due runs of the kind may be put off unasked: 0 while it may be worth asking."""
        return min(self.unfinished * _UNASKED, MOST_UNASKED) if self.unfinished >= SURE else 0


def generation(age: float) -> int:
    """Return which runs a run of this age is like: those of about the same age."""
    return min(floor(log(max(age, 1.0), _AGE_FACTOR)), _OLDEST)


def youngest_like(age: float) -> float:
    """Return from what age on a run may be finished because one of this age is."""
    return max(age, 0.0) / _AGE_FACTOR


def ages_of(number: int) -> tuple[float, float]:
    """Return between which ages, in seconds, the runs of a generation are."""
    return (0.0 if number <= 0 else _AGE_FACTOR**number, _AGE_FACTOR ** (number + 1))


def spread(seconds: float, jitter: float) -> float:
    """Shorten a pause by up to a fifth, so that batches submitted together come apart."""
    return seconds * (0.8 + 0.2 * min(max(jitter, 0.0), 1.0))


@dataclass(frozen=True, slots=True)
class Lead:
    """A finished run whose neighbours, above or below its id, may well be finished too."""

    key: RunKey
    upwards: bool
    strong: bool
    quiet_seconds: float
    """Neighbours that were asked for since are left alone."""
    submitted_until: datetime
    """And so are those that are much younger."""


@dataclass(frozen=True, slots=True)
class PutOff:
    """Due runs of one type and about one age that need no asking just now."""

    run_type: str
    submitted_from: datetime
    submitted_until: datetime
    most: int
    due_before: datetime
    asked_before: datetime
    until: datetime
