"""What the answers teach of the runs not asked for: which to ask for soon, which to put off.

All of it is kept by one process and learned anew by the next: within a few requests by its own
answers, and at once from what the database knows of the past. Nothing here moves a run further
than `--max-poll` from the last time it was asked for.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from downloader.rules.pace import (
    SAMPLE,
    SCOUTED,
    Lead,
    Past,
    PutOff,
    Recall,
    Sample,
    ages_of,
    eager_gap_seconds,
    generation,
    poll_gap_seconds,
    repolls_booked_until,
    repolls_wait_seconds,
    scout_gap_seconds,
    spread,
    unasked_gap_seconds,
    youngest_like,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from downloader.rules.decisions import Limits
    from downloader.rules.states import RunKey
    from downloader.store.polling import DueRun

P = ParamSpec("P")
T = TypeVar("T")

_MOST_LEADS: Final = 32
_MOST_EAGER: Final = 20_000
_MOST_SAMPLES: Final = 100
_AHEAD: Final = 0.3
"""Share of the pause within which what falls due is put off together."""

_EAGER_UP_TO: Final = 0.5
"""Share of the pause up to which runs are asked for eagerly. What was asked for more recently
is not put off."""

_SCOUTS: Final = 2 * SAMPLE
_STRONG: Final = 0.5
"""Share of a batch that is finished from which its neighbours probably are."""


@dataclass(slots=True)
class _Unasked:
    """Runs that were put off, while that lasts."""

    run_type: str
    submitted_at: datetime
    count: int
    until: datetime


def _alone(method: Callable[Concatenate[Tempo, P], T]) -> Callable[Concatenate[Tempo, P], T]:
    """Let one thread at a time into a method."""

    @functools.wraps(method)
    def locked(self: Tempo, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)

    return locked


class Tempo:
    """Decides when runs are asked for, from all answers of one process; for all threads."""

    def __init__(self, limits: Limits) -> None:
        self.lock = threading.RLock()
        self.limits = limits
        self.past: Mapping[str, Past] = {}
        self._leads: deque[Lead] = deque(maxlen=_MOST_LEADS)
        self._eager: dict[RunKey, datetime | None] = {}  # when each was last asked for eagerly
        self._scouts: dict[RunKey, datetime] = {}  # when each is asked for again
        self._settled: dict[tuple[str, int], datetime] = {}  # until when none is left to put off
        self._samples: dict[tuple[str, int], Sample] = {}
        self._unasked: list[_Unasked] = []
        self._booked_until = float("-inf")  # by requests that found nothing

    @_alone
    def first_polls(self, due: Sequence[DueRun], now: datetime) -> dict[RunKey, datetime]:
        """Return which of these due runs are too young to be asked for, and until when.

        Runs submitted together are not among them: one batch of them is worth its request, and
        tells of all the others.
        """
        together: dict[tuple[str, datetime], int] = {}
        for run in due:
            cohort = (run.key.run_type, run.submitted_at)
            together[cohort] = together.get(cohort, 0) + 1
        found: dict[RunKey, datetime] = {}
        for run in due:
            alone = together[run.key.run_type, run.submitted_at] < SAMPLE
            if alone and not run.polls and run.next_attempt_at <= run.submitted_at <= now:
                wait = min(self._past(run).first_poll_seconds(), self.limits.max_poll_seconds)
                first = run.submitted_at + timedelta(seconds=wait)
                if now < first:
                    found[run.key] = first
        return found

    @_alone
    def repolls_wait_seconds(self, now: datetime) -> float:
        """Return how long only runs that were not asked for yet are to be; 0 where any may be."""
        return repolls_wait_seconds(self._booked_until, now.timestamp())

    @_alone
    def next_leads(self, most: int) -> list[Lead]:
        """Return up to so many whose neighbours to ask for, the best first; each is given once."""
        return [self._leads.pop() for _ in range(min(most, len(self._leads)))]

    @_alone
    def read(
        self,
        runs: Sequence[DueRun],
        finished: Collection[RunKey],
        now: datetime,
        lead: Lead | None,
    ) -> list[PutOff | Recall]:
        """Learn from one answered batch; return which other runs need no asking just now, or do.

        `lead` is whose neighbours these are, None for runs that were due.
        """
        self._unasked = [one for one in self._unasked if one.until > now]
        self._note_leads(runs, finished, now, lead)
        if lead is None and not finished and any(run.polls for run in runs):
            self._booked_until = repolls_booked_until(self._booked_until, now.timestamp())
        strong = len(finished) >= len(runs) * _STRONG or (lead is not None and lead.strong)
        touched: dict[tuple[str, int], DueRun] = {}
        for run in runs:
            kind = (run.key.run_type, generation(_age(run, now)))
            # 'Not yet' of a run that was asked for just now says nothing of those that were not.
            early = run.next_attempt_at > now or run.key in self._scouts
            tells = run.key in finished or not early
            if tells and lead is None and run.key not in self._eager:
                self._samples.setdefault(kind, Sample()).add(
                    run.key.run_id, finished=run.key in finished
                )
                touched[kind] = run
            if run.key in finished:
                self._eager.pop(run.key, None)
                self._scouts.pop(run.key, None)
            elif strong:
                self._eager.setdefault(run.key, None)
        while len(self._eager) > _MOST_EAGER:  # cancelled, perhaps, or asked for by others
            self._eager.pop(next(iter(self._eager)))
        self._samples = dict(list(self._samples.items())[-_MOST_SAMPLES:])
        self._settled = {kind: until for kind, until in self._settled.items() if until > now}
        decided = [self._decide(kind, run, now) for kind, run in touched.items()]
        return [one for one in decided if one is not None]

    @_alone
    def note_put_off(self, put_off: PutOff, count: int) -> None:
        """Learn how many runs a decision of `read` has put off."""
        kind = (put_off.run_type, put_off.generation)
        if count < put_off.most // 2:  # few are left: none that falls due before that time
            self._settled[kind] = put_off.due_before
        if count:
            middle = put_off.submitted_from + (put_off.submitted_until - put_off.submitted_from) / 2
            self._unasked.append(_Unasked(put_off.run_type, middle, count, put_off.until))

    @_alone
    def delay_seconds(self, run: DueRun, now: datetime, jitter: float) -> float:
        """Return when a run that is not finished is asked for again."""
        least = self.limits.min_poll_seconds
        age = _age(run, now)
        gap = self._gap(run, now)
        if run.key in self._eager:
            asked_at = self._eager[run.key]
            since = None if asked_at is None else (now - asked_at).total_seconds()
            eager = eager_gap_seconds(age, since, least)
            if eager < gap * _EAGER_UP_TO:
                self._eager[run.key] = now
                return spread(eager, jitter)
            del self._eager[run.key]
        return spread(self._scout_gap(run, gap, now), jitter)

    def _unasked_like(self, run: DueRun, now: datetime) -> int:
        """Return how many runs of the same type and about the same age are put off."""
        return sum(one.count for one in self._unasked if self._is_like(one, run, now))

    def _is_like(self, one: _Unasked, run: DueRun, now: datetime) -> bool:
        age = (now - one.submitted_at).total_seconds()
        return one.run_type == run.key.run_type and generation(age) == generation(_age(run, now))

    def _scout_gap(self, run: DueRun, gap: float, now: datetime) -> float:
        unasked = self._unasked_like(run, now)
        shorter = scout_gap_seconds(gap, unasked, self.limits.min_poll_seconds)
        late = now - timedelta(seconds=self.limits.max_poll_seconds)
        self._scouts = {
            key: due for key, due in self._scouts.items() if due > late and key != run.key
        }
        if shorter >= gap or len(self._scouts) >= _SCOUTS:
            return gap
        self._scouts[run.key] = now + timedelta(seconds=shorter)
        return shorter

    def _decide(self, kind: tuple[str, int], run: DueRun, now: datetime) -> PutOff | Recall | None:
        """Decide about the runs of a kind that were not asked for."""
        sample, (youngest, oldest) = self._samples[kind], ages_of(kind[1])
        submitted = now - timedelta(seconds=oldest), now - timedelta(seconds=youngest)
        gap = self._gap(run, now)
        asked_before = now - timedelta(seconds=gap * _EAGER_UP_TO)
        if sample.worth_asking:
            if not self._unasked_like(run, now):
                return None
            sample.latest.clear()
            self._unasked = [one for one in self._unasked if not self._is_like(one, run, now)]
            return Recall(kind[0], *submitted, asked_before, now)
        most = sample.unasked
        if not most or now < self._settled.get(kind, now):
            return None
        unasked = gap
        if self._unasked_like(run, now) >= SCOUTED:  # those asked for in their place are enough
            unasked = unasked_gap_seconds(_age(run, now), gap, self.limits.max_poll_seconds)
        return PutOff(
            kind[0],
            *submitted,
            most,
            now + timedelta(seconds=gap * _AHEAD),
            asked_before,
            now + timedelta(seconds=unasked),
            kind[1],
        )

    def _note_leads(
        self, runs: Sequence[DueRun], finished: Collection[RunKey], now: datetime, lead: Lead | None
    ) -> None:
        """Follow what has finished to its neighbours."""
        done = sorted((run for run in runs if run.key in finished), key=lambda run: run.key.run_id)
        if not done:
            return
        strong = len(done) >= len(runs) * _STRONG
        # One of five says little of its neighbours: worth a request where many wait unasked.
        if not strong and (lead is not None or self._unasked_like(done[0], now) < SCOUTED):
            return
        ways = (False, True) if lead is None else (lead.upwards,) * (1 + (len(done) == len(runs)))
        for upwards in ways:
            end = done[-1 if upwards else 0]
            age = _age(end, now)
            quiet = eager_gap_seconds(age, None, self.limits.min_poll_seconds)
            until = now - timedelta(seconds=youngest_like(age))
            self._leads.append(Lead(end.key, upwards, strong, quiet, until))

    def _gap(self, run: DueRun, now: datetime) -> float:
        limits = self.limits
        return poll_gap_seconds(
            _age(run, now), self._past(run), limits.min_poll_seconds, limits.max_poll_seconds
        )

    def _past(self, run: DueRun) -> Past:
        return self.past.get(run.key.run_type, Past())


def _age(run: DueRun, now: datetime) -> float:
    return (now - run.submitted_at).total_seconds()
