"""How many transfers at a time: more while more helps, fewer where the storage or memory suffers.

Three things decide, in this order:

- trouble halves the number. It then comes back by one a round, to what was borne before;
- trials: for a short while more are tried, or fewer, and what came in a second is compared. The
  higher number stays where it helped, the lower one where it did not matter;
- patience: a trial that changed nothing is repeated after a pause, longer each time.

The first trial needs no proof: double the start, as fast as transfers end. A service that answers
slowly and a job that is over in seconds have no time to lose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FILE_WORTH_BYTES: Final = 64 * 1024
"""What a whole file counts in the comparison beyond its bytes: of small ones the number matters."""

HELPS: Final = 0.3
"""More transfers help where throughput grows with at least this power of their number."""

FIRST_REST_SECONDS: Final = 10.0
MAX_REST_SECONDS: Final = 300.0
"""How long a number is kept before another is tried."""

_FALL_SECONDS: Final = 0.5
"""Trouble within this time of a fall is the same trouble."""

_CALM_SECONDS: Final = 1.0
"""How long after a fall nothing is regained."""

_ROUND_SECONDS: Final = 2.0
"""A round is over when as many transfers have ended as there may be, or at the latest by then."""

_STEP_SECONDS: Final = 0.25
"""A trial upwards grows by one a transfer that ends, and by one each so many seconds."""

_WINDOW_SECONDS: Final = (1.0, 4.0)
_WINDOW_ROUNDS: Final = 3
"""A comparison takes so many rounds, within these bounds of time."""

_TALLY_FEWEST: Final = 20
_TALLY_SECONDS: Final = 60.0
_BUSY_ENOUGH: Final = 2
"""One 503 now and then is the weather; two in a score of transfers are a request."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What happened in the `seconds` since the last one.

    `files` were saved; `busy` transfers were answered 429 or 503, `broken` ones reset, timed out
    or cut short, of those that had begun since the last fall. `running` are under way now. `full`
    says that no more could have run for want of work, `throttled` that a limit of our own on
    bytes holds them back.
    """

    seconds: float
    running: int
    received_bytes: int = 0
    files: int = 0
    busy: int = 0
    broken: int = 0
    full: bool = True
    throttled: bool = False
    memory_low: bool = False


class Concurrency:
    """The number of transfers at a time: `limit`, from 1 to `maximum`; and `why` it is that."""

    def __init__(self, maximum: int, start: int) -> None:
        self._maximum = max(1, maximum)
        self._wanted_start = start
        self._start = max(1, min(start, self._maximum))
        self._level = self._start  # what is gone back to after a trial or a fall
        self._goal = self._level  # differs while another number is tried
        self._reference: float | None = None  # throughput at the level
        self._proven = True  # no trial upwards has failed yet: the next one doubles
        self._up = _Rest(0.0)
        self._down = _Rest(FIRST_REST_SECONDS)
        self._window = _Window()
        self._tally = _Tally()
        self._round_files = 0
        self._round_seconds = 0.0
        self._since_fall = math.inf
        self._regained = True  # whether there was growth since the last fall
        self.limit = self._level
        self.why = "start"
        self.fell = False
        """Whether it was the last observation that asked for fewer."""

    def observe(self, seen: Observation) -> int:
        """Take what happened since the last time; return how many transfers there may be now."""
        self._since_fall += seen.seconds
        self._tally.add(seen)
        trouble = self._trouble(seen)
        self.fell = trouble is not None
        if trouble is not None:
            self._fall(trouble)
        elif seen.full and not seen.memory_low:
            self._round_files += seen.files
            self._round_seconds += seen.seconds
            self._go_on(seen)
        return self.limit

    def bound(self, maximum: int) -> None:
        """Have no more than this from now on; a higher one than before is soon tried."""
        before, self._maximum = self._maximum, max(1, maximum)
        self._start = max(1, min(self._wanted_start, self._maximum))
        if self._maximum > before:
            self._up.until(0.0)
        if max(self._level, self._goal) > self._maximum:
            self._level = self._goal = min(self._level, self._maximum)
            self._reference = None
        if self.limit > self._maximum:
            self._set(self._maximum, "maximum")

    def _trouble(self, seen: Observation) -> str | None:
        """Return what asks for fewer transfers now, if anything does."""
        if self._since_fall < _FALL_SECONDS:
            return None
        if seen.memory_low and seen.running <= self.limit and self._since_fall >= _ROUND_SECONDS:
            return "memory_low"  # and not as long as the last fall is yet to help
        return self._tally.verdict(self.limit)

    def _fall(self, why: str) -> None:
        if self._goal > self._level:  # it was the trial: what was borne before still is
            self._up.again(2.0, FIRST_REST_SECONDS)
        elif self._regained:
            self._level = max(1, min(self._level, self.limit * 3 // 4))
            self._up.again(1.0, FIRST_REST_SECONDS)
        self._proven = self._regained = False
        self._goal = self._level
        self._set(max(1, min(self.limit // 2, self._level)), why)
        self._since_fall = 0.0
        self._reference = None

    def _go_on(self, seen: Observation) -> None:
        if self._goal == self._level and self.limit < self._level:
            self._regain()
        elif self.limit < self._goal:
            self._grow(seen)
        elif seen.running <= self.limit:  # else what was begun before is yet to end
            rate = self._window.add(seen, self.limit)
            if rate is not None and self._goal != self._level:
                self._judge_trial(rate)
            elif rate is not None:
                known = self._reference
                self._reference = rate if known is None else (known + rate) / 2
            if self._goal == self._level:
                self._up.rested += seen.seconds
                self._down.rested += seen.seconds
                self._try_another(seen)

    def _regain(self) -> None:
        """Grow by one a round, once it has been calm for a while."""
        over = self._round_files >= self.limit or self._round_seconds >= _ROUND_SECONDS
        if over and self._since_fall >= _CALM_SECONDS:
            self._regained = True
            self._set(self.limit + 1, "calm")

    def _grow(self, seen: Observation) -> None:
        """Go up to what is to be tried as fast as transfers end."""
        if seen.throttled:
            self._give_trial_up("max_rate")
            return
        steps = seen.files
        if self._round_seconds >= _STEP_SECONDS:
            steps += 1
        if steps:
            self._set(min(self._goal, self.limit + steps), "trying more")

    def _try_another(self, seen: Observation) -> None:
        """Begin a trial, where it is time for one."""
        level, measured = self._level, self._reference is not None
        if (
            level < self._maximum
            and self._up.is_over
            and not seen.throttled
            and (measured or self._proven)
        ):
            self._goal = min(self._maximum, level + (level if self._proven else max(1, level // 3)))
            self._grow(seen)
        elif level > self._start and self._down.is_over and measured:
            self._goal = max(self._start, level * 3 // 4)
            self._set(self._goal, "trying fewer")

    def _judge_trial(self, rate: float) -> None:
        """Stay with what was tried, or go back."""
        known, more = self._reference, self._goal > self._level
        if known is None or (more and self._goal <= self._start):
            more_helps = True  # there is nothing to prove it by, or nothing to be proven
        else:
            low, high = (known, rate) if more else (rate, known)
            number = max(self._goal, self._level) / min(self._goal, self._level)
            more_helps = high >= low * number**HELPS
        if more != more_helps:
            self._give_trial_up("more did not help" if more else "fewer did worse")
            return
        self._level, self._reference = self._goal, rate
        # It goes on in this direction; the other one is wrong for a while.
        if more:
            self._up.until(0.0)
            self._down.until(FIRST_REST_SECONDS if known is None else MAX_REST_SECONDS / 5)
            self._set(self._level, "more helped")
        else:
            self._down.until(0.0)
            self._up.until(max(self._up.seconds, 2 * FIRST_REST_SECONDS))
            self._set(self._level, "fewer did as well")

    def _give_trial_up(self, why: str) -> None:
        if self._goal > self._level:
            self._proven = False
            self._up.again(2.0, FIRST_REST_SECONDS)
        else:
            self._down.again(3.0, 2 * FIRST_REST_SECONDS)
        self._goal = self._level
        self._set(self._level, why)

    def _set(self, limit: int, why: str) -> None:
        self.limit, self.why = limit, why
        self._window = _Window()
        self._round_files, self._round_seconds = 0, 0.0


class _Rest:
    """How long a number is kept before another is tried; seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rested = 0.0

    @property
    def is_over(self) -> bool:
        return self.rested >= self.seconds

    def until(self, seconds: float) -> None:
        """Rest so long from now."""
        self.seconds, self.rested = min(seconds, MAX_REST_SECONDS), 0.0

    def again(self, factor: float, at_least: float) -> None:
        """Rest anew, longer than the last time."""
        self.until(max(at_least, factor * self.seconds))


class _Window:
    """Throughput at one number of transfers, measured once all have begun under it."""

    def __init__(self) -> None:
        self._warm = False
        self._clear()

    def _clear(self) -> None:
        self._seconds = self._score = 0.0
        self._files = 0

    def add(self, seen: Observation, limit: int) -> float | None:
        """Return what came in a second, once that can be told; then begin anew."""
        shortest, longest = _WINDOW_SECONDS
        self._seconds += seen.seconds
        self._files += seen.files
        self._score += seen.received_bytes + seen.files * FILE_WORTH_BYTES
        if not self._warm:
            if self._files >= limit or self._seconds >= shortest:
                self._warm = True
                self._clear()
            return None
        enough = self._seconds >= shortest and self._files >= _WINDOW_ROUNDS * limit
        if not enough and self._seconds < longest:
            return None
        rate = self._score / self._seconds
        self._clear()
        return rate


class _Tally:
    """How the last transfers have ended."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._ended = self._busy = self._broken = 0
        self._seconds = 0.0

    def add(self, seen: Observation) -> None:
        """Count what has ended."""
        self._seconds += seen.seconds
        self._ended += seen.files + seen.busy + seen.broken
        self._busy += seen.busy
        self._broken += seen.broken

    def verdict(self, limit: int) -> str | None:
        """Return what asks for fewer transfers than `limit`; then begin anew."""
        why = None
        if self._busy >= _BUSY_ENOUGH:
            why = "storage_busy"
        elif self._broken >= max(2, math.ceil(0.4 * limit)):
            why = "connections_broke"
        over = self._ended >= max(_TALLY_FEWEST, 2 * limit) or self._seconds >= _TALLY_SECONDS
        if why is not None or over:
            self._clear()
        return why
