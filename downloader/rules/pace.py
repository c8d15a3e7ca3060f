"""When to ask for a run that is not finished: when it has had a fair chance to finish since.

What is known is its age since it was submitted, how long runs of its type have taken before, and
what the answers say of its neighbours. All durations are in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, floor, inf, log, sqrt
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

REPOLLS_PER_SECOND: Final = 20.0
"""How many requests a second may find nothing, of those for runs asked for before, unless
`--api-rate` says how many there may be at all. So 30,000 runs that never finish are still asked for
every five minutes, and 100,000 of them every quarter of an hour, for a tenth of a processor."""

_SAVED_UP_SECONDS: Final = 5.0

LONGEST: Final = 1 / 5
"""Share of the runs asked for that goes to those due the longest of those asked for before: what is
not likely to be finished waits longer where not all can be asked for in time, but not for ever."""

ENOUGH_PAST: Final = 16
"""Below so many runs of the past nothing is concluded from them."""

_FIRST: Final = 1 / 16
_CAUTION: Final = 0.75
"""First polls come a little before the first few are expected: one that takes less time than
all before could else never show it."""

SURE: Final = 16
"""So many answers 'not yet' without a 'finished' among them say the same of the runs not asked for:
were one in five finished, so many would have missed it with a chance of 3 %."""


_LATEST: Final = 10
_ENOUGH_FINISHED: Final = 3
"""Of so many latest answers, from which on others that were put off are worth asking for."""

_UNASKED: Final = 9
"""Runs that are put off unasked for each one that was asked for."""

MOST_UNASKED: Final = 5_000
"""Rows that one UPDATE moves: some 30 ms."""

SAMPLE: Final = 5
"""Of those put off, so many stay due, evenly spread: one batch."""

SCOUTED: Final = 50
"""From so many unasked runs on, a few of them are asked for more often than the others."""

_UNASKED_AGE: Final = 0.75
"""Share of their age for which runs are put off unasked: three times as long as a poll would."""

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


def unasked_gap_seconds(age: float, gap: float, maximum: float) -> float:
    """Return for how long runs of this age, polled each `gap` seconds, are put off unasked.

    Longer than a poll would put them off: those asked in their place tell when that is over.
    """
    return min(max(gap, age * _UNASKED_AGE), max(gap, maximum))


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

    latest: deque[tuple[int, bool]] = field(default_factory=lambda: deque(maxlen=_LATEST))
    """The latest answers: of which run, and whether it was finished."""

    def add(self, run_id: int, *, finished: bool) -> None:
        """Learn from one answer."""
        self.unfinished = self.unfinished // 2 if finished else self.unfinished + 1
        self.latest.append((run_id, finished))

    @property
    def unasked(self) -> int:
        """How many due runs of the kind may be put off unasked: 0 while it may be worth asking."""
        return min(self.unfinished * _UNASKED, MOST_UNASKED) if self.unfinished >= SURE else 0

    @property
    def worth_asking(self) -> bool:
        """Whether those put off are worth a poll after all: many of their kind have finished.

        Where all that are finished have lower ids than the others, or higher ones, they finish in
        order: then their neighbours are worth asking for, and those far away are not.
        """
        found = [finished for _, finished in sorted(self.latest)]
        changes = sum(one != other for one, other in pairwise(found))
        return sum(found) >= _ENOUGH_FINISHED and changes != 1


def generation(age: float) -> int:
    """Return which runs a run of this age is like: those of about the same age."""
    return min(floor(log(max(age, 1.0), _AGE_FACTOR)), _OLDEST)


def youngest_like(age: float) -> float:
    """Return from what age on a run may be finished because one of this age is."""
    return max(age, 0.0) / _AGE_FACTOR


def ages_of(number: int) -> tuple[float, float]:
    """Return between which ages, in seconds, the runs of a generation are."""
    return (0.0 if number <= 0 else _AGE_FACTOR**number, _AGE_FACTOR ** (number + 1))


def repolls_booked_until(booked_until: float, now: float) -> float:
    """Return until when requests that find nothing are booked after one more, in seconds.

    What was not used of the last seconds may be used at once. A clock set back forgets the rest.
    """
    earliest = now - _SAVED_UP_SECONDS
    if booked_until > now + _SAVED_UP_SECONDS:
        booked_until = earliest
    return max(booked_until, earliest) + 1 / REPOLLS_PER_SECOND


def repolls_wait_seconds(booked_until: float, now: float) -> float:
    """Return how long no run is to be asked for again, as too many such requests found nothing."""
    left = booked_until - now
    return left if 0 < left <= _SAVED_UP_SECONDS else 0.0


def lateness(pause_seconds: float, overdue_seconds: float) -> float:
    """Return how late a run is against others: its delay in parts of the pause before its poll.

    When that pause is over, each has the same chance to have finished; from then on that of one
    whose pause was short grows faster. Without a pause, as of a run never asked for: infinite.
    """
    return overdue_seconds / pause_seconds if pause_seconds > 0 else inf


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
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Recall:
    """Runs of one type and about one age that were put off, and may well be finished."""

    run_type: str
    submitted_from: datetime
    submitted_until: datetime
    asked_before: datetime
    now: datetime
