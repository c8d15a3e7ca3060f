"""Who is to blame for a refusal: the run that was refused, or the place that refuses all of them.

A place is an endpoint of the API or a host of the storage. Whether it serves others tells: a run
is to blame where others were served since it was refused before. Several runs that are refused,
with none served meanwhile, show that the place is in trouble: two where refusals are rare, more
where many runs are bad, and some follow each other by chance. Where nothing can be told yet,
nothing is charged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from downloader.rules.states import RunKey

_MOST_KNOWN: Final = 4096
"""Of how many runs it is remembered that they were refused: memory is bounded."""

_CHANCE: Final = 0.01
"""So unlikely it has to be that as many bad runs as were refused have met by chance."""

_WEIGHT: Final = 1 / 16
"""What the newest judgement counts for in the share of bad runs."""

_MOST_BAD: Final = 0.9
"""The largest share that is reckoned with: more than 44 in a row are never waited for."""


class Blame(Enum):
    """Whose fault a refusal is, as far as can be told."""

    RUN = auto()
    """The run's: others are served there."""
    PLACE = auto()
    """The place's: several runs are refused, and none is served."""
    UNKNOWN = auto()
    """Others that are under way, or come next, will tell."""
    ALONE = auto()
    """It is the only run there; time will tell."""


@dataclass(slots=True)
class _Refusal:
    code: str
    at: float
    blamed: bool = False


@dataclass(slots=True)
class Evidence:
    """What one place has done with the runs that came to it; times are of one monotonic clock."""

    _served: list[tuple[RunKey, float]] = field(default_factory=list)  # the last two runs'
    _refused: dict[RunKey, _Refusal] = field(default_factory=dict)
    _bad: float = 0.0  # the share of bad runs among the last ones

    def served(self, key: RunKey, at: float) -> None:
        """Note that a run got there what it asked for."""
        self._bad -= self._bad * _WEIGHT
        self._refused.pop(key, None)
        self._served = [(other, then) for other, then in self._served if other != key][-1:]
        self._served.append((key, at))

    def forget(self, key: RunKey) -> None:
        """Leave out a run that has ended."""
        self._refused.pop(key, None)

    @property
    def last_served_at(self) -> float:
        """When a run was served the last time; -inf where none was."""
        return max((at for _, at in self._served), default=float("-inf"))

    def serves_others(self, key: RunKey, since: float) -> bool:
        """Return whether another run was served at that time or later."""
        return any(other != key and at >= since for other, at in self._served)

    def refused(
        self, key: RunKey, code: str, began_at: float, at: float, *, others: bool = False
    ) -> Blame:
        """Note that a run was refused, for the reason `code`; return whose fault that is.

        The try began at `began_at` and ended at `at`. `others` says that other runs are under way
        at the same place.
        """
        before = self._refused.pop(key, None)
        since = began_at if before is None else before.at
        last_served = self.last_served_at
        refusal = self._refused[key] = _Refusal(code, at)
        if len(self._refused) > _MOST_KNOWN:
            del self._refused[next(iter(self._refused))]
        if self.serves_others(key, since):
            refusal.blamed = True
            self._bad += (1 - self._bad) * _WEIGHT
            return Blame.RUN
        suspects = sum(
            other != key and one.at > last_served and not one.blamed
            for other, one in self._refused.items()
        )
        if suspects:
            by_chance = before is None and suspects + 1 < self._telling
            return Blame.UNKNOWN if by_chance else Blame.PLACE
        if before is not None and before.blamed and before.code == code:
            refusal.blamed = True  # as it was while others were served
            return Blame.RUN
        return Blame.UNKNOWN if others and before is None else Blame.ALONE

    @property
    def _telling(self) -> int:
        """How many different runs that are refused in a row are too many for chance."""
        bad = min(self._bad, _MOST_BAD)
        return 2 if bad < math.sqrt(_CHANCE) else math.ceil(math.log(_CHANCE) / math.log(bad))
