"""Turns at the database: what has ended, what the API has said, and what is claimed, together.

Whoever has the turn, a thread of the poller's or that of the transfers, records all that waits: so
whatever comes while one transaction runs goes into the next, and nobody waits for a turn whose
work another has done.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.rules.steps import PollFailed, UrlReceived
from downloader.store import pacing, polling, transfers
from downloader.store.turn import Done, Turn, take_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from downloader.rules.states import RunKey
    from downloader.rules.steps import PollStep, TransferStep
    from downloader.session import Session


@dataclass(slots=True)
class Outcome:
    """What a transfer came to.

    `then` is called, in a thread, when it is committed; it must not fail. `held` says, once it
    has been looked at, whether the lease still was: nothing is written where it was lost.
    """

    key: RunKey
    lease: str
    step: TransferStep
    then: Callable[[], None] | None = None
    held: bool = False


@dataclass(slots=True)
class Judged:
    """What is known of one run after a poll; `held` is None until it has been looked at."""

    key: RunKey
    lease: str
    step: PollStep
    held: bool | None = None


class Wanted(NamedTuple):
    """Which runs to take up in a turn: others that have a URL, and those that have it just now."""

    ready: transfers.Claim | None = None
    begun: polling.Begun | None = None


class Taker(Protocol):
    """Who takes up runs that have a URL; its methods are called by whoever has the turn."""

    def wanted(self, judged: Sequence[Judged]) -> Wanted:
        """Return what to claim in this turn, in which these judgements are recorded."""

    def taken(self, wanted: Wanted, done: Done) -> None:
        """Begin what was claimed."""

    def settle(self, outcome: Outcome) -> None:
        """Let go of what has been recorded."""


class Asker(Protocol):
    """Who asks for runs; its methods are called by whoever has the turn."""

    def wanted(self) -> tuple[Sequence[polling.Due | pacing.Near], polling.Room]:
        """Return what to claim in this turn, and how much of it."""

    def taken(self, batches: Sequence[polling.ClaimedBatch]) -> None:
        """Ask for what was claimed."""


class Recorder:
    """Commits outcomes and judgements, and claims for `taker` and `asker`; for all threads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = threading.Lock()
        self._outcomes: deque[Outcome] = deque()
        self._judged: deque[Judged] = deque()
        self._wanted = Wanted()  # in the last turn
        self.taker: Taker | None = None
        self.asker: Asker | None = None

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Have outcomes committed by the next turn."""
        self._outcomes.extend(outcomes)

    @property
    def waiting(self) -> set[str]:
        """The leases whose outcome is yet to be committed."""
        return {one.lease for one in list(self._outcomes)}

    def between_turns(self) -> AbstractContextManager[object]:
        """Return a context in which nobody has a turn."""
        return self._turn

    def record(self, judged: Sequence[Judged]) -> None:
        """Commit what is known of runs that were asked for; each says whether it was held."""
        self._judged.extend(judged)
        with self._turn:
            if any(one.held is None for one in judged):
                self._take_turn(self.taker, self.asker)

    def turn(self) -> int | None:
        """Commit what waits and claim runs with a URL; return how many of these were found.

        None: there was no place for any, so that nobody has looked.
        """
        with self._turn:
            done = self._take_turn(self.taker, self.asker)
            return None if self._wanted.ready is None else done.ready.found

    def flush(self) -> None:
        """Commit what waits; what cannot be committed goes on waiting."""
        with self._turn:
            self._take_turn(None, None)

    def _take_turn(self, taker: Taker | None, asker: Asker | None) -> Done:
        session = self._session
        outcomes, judged = list(self._outcomes), list(self._judged)
        wanted = self._wanted = Wanted() if taker is None else taker.wanted(judged)
        due, room = ((), polling.Room()) if asker is None else asker.wanted()
        done = session.call(
            self._commit,
            outcomes,
            Turn(
                [(one.key, one.lease, one.step) for one in outcomes],
                [(one.key, one.lease, one.step) for one in judged],
                wanted.begun,
                wanted.ready,
                due,
                room,
            ),
        )
        for waiting, ended in ((self._outcomes, outcomes), (self._judged, judged)):
            for _ in ended:
                waiting.popleft()
        for one, held in zip(judged, done.judged, strict=True):
            one.held = held
        if taker is not None:
            # First of all: whoever is cut off gives back what was begun.
            taker.taken(wanted, done)
        if asker is not None:
            asker.taken(done.batches)
        self._tell(judged, done)
        for outcome in outcomes:
            if self.taker is not None:
                self.taker.settle(outcome)
        if outcomes or done.ready.failed or any(isinstance(one.step, PollFailed) for one in judged):
            session.owed.set()
        return done

    def _commit(self, outcomes: Sequence[Outcome], turn: Turn) -> Done:
        done = take_turn(self._session.database, turn, utc_now())
        if outcomes:
            reach(At.RECORD_COMMITTED)
        for outcome, held in zip(outcomes, done.outcomes, strict=True):
            outcome.held = held
            if held and outcome.then is not None:
                outcome.then()
        return done

    def _tell(self, judged: Sequence[Judged], done: Done) -> None:
        """Count the URLs that wait now."""
        urls = sum(
            bool(one.held)
            and isinstance(one.step, UrlReceived)
            and one.step.next_attempt_at is None
            for one in judged
        ) - len(done.begun)
        self._session.note_urls(urls)
