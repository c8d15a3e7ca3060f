"""pending → ready: claims the runs that are due, just in time for the workers, and asks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from downloader.breakers import Kind
from downloader.camb.client import CutOffError
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.inquiry import REQUESTS_AT_ONCE, Asking, Inquiries
from downloader.rules.batching import MAX_BATCH, claim_size
from downloader.rules.pace import LONGEST
from downloader.session import MOST_AHEAD, Held, Mode, SignOfLife
from downloader.store import pacing, past, polling, transfers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from downloader.breakers import Trouble
    from downloader.camb.client import ApiClient
    from downloader.recorder import Recorder
    from downloader.session import Session
    from downloader.settings import Settings
    from downloader.store.polling import ClaimedBatch

BACKLOG_PER_WORKER: Final = 2
"""URLs asked for ahead of need: one that waits in a queue is one that dies there."""

_HELD_UP_STOCK: Final = 500
"""So many URLs may wait for a storage in trouble; more would only expire."""

_EXPLORE_SECONDS: Final = 0.25
"""How often, then, a batch is asked for that may be at another storage."""

_WORTH_A_CLAIM: Final = REQUESTS_AT_ONCE * MAX_BATCH
"""For how many runs there is to be room: a claim costs the same for few as for many."""

_QUICK_SECONDS: Final = 0.05
"""An answer that comes within this is not waited for much longer than a claim."""

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon runs submitted by another process are seen."""

_LOOK_BACK_SECONDS: Final = 60.0
"""How often the past is read anew."""


class Poller:
    """Asks for results while the service runs."""

    def __init__(self, session: Session, client: ApiClient, recorder: Recorder) -> None:
        self._session = session
        self._recorder = recorder
        recorder.asker = self
        self._may_claim = self._looks = False
        self._taken = 0  # batches
        self._inquiries = Inquiries(session, client, recorder, self._is_judged)
        self._requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, "request")
        self._asking: dict[str, ClaimedBatch] = {}  # what is under way, by lease
        self._failure: BaseException | None = None  # of a request
        self._look_back_at = float("-inf")
        # While URLs enough wait for a storage in trouble:
        self._exploring = self._newest = False
        self._explored_at = float("-inf")
        self._found_elsewhere = 0
        self.trouble: Trouble | None = None
        """Why `--once` had no use of the API, beside what is known of the key."""
        self._share_of_longest = 0.0  # of the runs claimed, those still owed to the longest due
        self._no_room = False  # what was not claimed waits for workers, not for its time

    def run(self) -> None:
        """Poll until there is nothing left to ask (`--once`), or the service stops."""
        session = self._session
        try:
            while not session.stopping.is_set():
                self._poll()
                self._wait_for_answers()
                # Answers that were under way may have shown that the service goes on.
                if session.mode is not Mode.DRAIN or session.key.is_open:
                    break
        except BaseException:
            self.stop()
            raise
        finally:
            with self._recorder.between_turns():
                self._may_claim = False
            session.goes_round_no_more("polls")
            self._requests.shutdown()
            session.polling_over = True
            session.ready.set()

    @property
    def no_answer(self) -> Trouble | None:
        """Why the API gave no answer the last time; None where it did."""
        return self._inquiries.no_answer

    def adopt(self, settings: Settings) -> None:
        """Poll by other settings from now on."""
        self._inquiries.adopt(settings)

    def stop(self) -> None:
        """Cut requests off: what they would answer is asked for again another time."""
        self._inquiries.cut_off()
        self._session.room.set()

    def _wait_for_answers(self) -> None:
        while self._asking:
            self._session.goes_round("polls")
            self._session.room.wait(_LOOK_AGAIN_SECONDS)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _poll(self) -> None:
        """Claim and ask until there is nothing left to ask, or the service is blocked."""
        session = self._session
        while not session.stopping.is_set():
            self._raise_failure()
            session.goes_round("polls")
            session.call(session.key.look)
            if session.key.is_open and not self._may_probe():
                return
            if self._claim():
                continue
            if session.mode is Mode.ONCE and not self._asking and not self._any_left():
                if not self._inquiries.key_is_good:  # not one useful answer, if any at all
                    self.trouble = self._inquiries.last_failure
                return
            pause = _LOOK_AGAIN_SECONDS if self._no_room else self._pause_seconds()
            if self._exploring:
                pause = _EXPLORE_SECONDS
            session.room.wait(max(pause, min(_LOOK_AGAIN_SECONDS, self._held_back(utc_now()))))

    def _resolve(self, claimed: ClaimedBatch, life: SignOfLife) -> None:
        try:
            self._inquiries.resolve(claimed, life)
        except CutOffError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._failure = self._failure or error
        finally:
            self._asking.pop(claimed.lease, None)
            if self._failure is not None or self._exploring or not self._asking:
                self._session.room.set()  # else the turns of others have claimed what there was

    def _is_judged(self, lease: str) -> None:
        """Have others asked for in place of a batch of which all is known."""
        self._asking.pop(lease, None)

    def _any_left(self) -> bool:
        """Return whether `--once` has runs to ask for that only wait for room."""
        due = self._next_due_at()
        return due is not None and due <= self._session.started_at

    def _next_due_at(self) -> datetime | None:
        """Return when the next run is due of those that may be asked for."""
        return self._session.call(
            polling.next_due_at,
            self._session.database,
            self._types(Asking.FREELY, Asking.ONE_BATCH),
        )

    def _types(self, *asking: Asking) -> list[str]:
        """Return the run types that may be asked for so."""
        return [name for name in RUN_TYPES if self._inquiries.may_ask(name) in asking]

    def _pause_seconds(self) -> float:
        """Return how long nothing can be due: short, since other processes submit too."""
        due = self._next_due_at()
        cutoff = self._session.cutoff
        if due is None or (cutoff is not None and due > cutoff):
            return _LOOK_AGAIN_SECONDS
        return min(_LOOK_AGAIN_SECONDS, max(0.02, (due - utc_now()).total_seconds()))

    def _claim(self) -> bool:
        """Take a turn, and claim runs in it; return whether there were any."""
        session, now = self._session, utc_now()
        session.watch_clock()
        self._exploring = self._many_are_held_up(now)
        self._waiting(now)
        self._look_back()
        taken, self._may_claim, self._looks = self._taken, True, True
        self._recorder.turn()
        self._looks = False
        return self._taken > taken

    def wanted(self) -> tuple[Sequence[polling.Due | pacing.Near], polling.Room]:
        """Return what to claim in a turn: as many runs as are soon of use, and requests free for.

        Called by whoever has the turn.
        """
        session, now, waiting = self._session, utc_now(), self._session.waiting()
        if not self._may_claim or session.stopping.is_set() or waiting is None:
            return (), polling.Room()
        if (self._exploring or session.key.is_open) and not self._looks:
            return (), polling.Room()  # that is for this thread to look at, now and then
        if session.clock.settling:
            self._no_room = True  # what is asked for just now looks as if nobody did
            return (), polling.Room()
        # While the service is blocked one request shows whether it goes on.
        at_once = 1 if session.key.is_open else 2 * REQUESTS_AT_ONCE
        free = at_once - len(self._asking)
        appetite = session.concurrency.limit * BACKLOG_PER_WORKER + 2 * session.ahead
        if session.ahead:  # nothing is to wait in the database that is soon taken from there
            appetite = min(appetite, MOST_AHEAD)
        asked = sum(len(one.runs) for one in list(self._asking.values()))
        room = appetite - waiting - session.queued - asked
        if self._exploring:
            self._no_room = True
            if room <= 0 or free <= 0 or not self._explores():
                return (), polling.Room()
            return self._due(now, MAX_BATCH, 1)
        # Where an answer takes its time the requests had better follow each other closely.
        grouped = self._inquiries.answer_seconds < _QUICK_SECONDS
        least = min(_WORTH_A_CLAIM, (appetite + 1) // 2) if grouped else 1
        self._no_room = room < least or free < ((at_once + 1) // 2 if grouped else 1)
        return ((), polling.Room()) if self._no_room else self._due(now, room, free)

    def taken(self, batches: Sequence[ClaimedBatch]) -> None:
        """Ask for what was claimed."""
        if batches:
            reach(At.POLL_CLAIMED)
        for one in batches:
            self._taken += 1
            self._asking[one.lease] = one
            life = SignOfLife()
            for run in one.runs:
                self._session.hold(Held(run.key, one.lease, life))
            self._requests.submit(self._resolve, one, life)

    def _many_are_held_up(self, now: datetime) -> bool:
        """Return whether there are URLs enough that wait for a storage in trouble."""
        session = self._session
        codes = {trouble.reason for trouble in session.troubles(Kind.HOST)}
        if not codes or session.mode is Mode.ONCE:  # which asks for all
            return False
        found = session.call(transfers.count_held_up, session.database, now, codes)
        return found >= _HELD_UP_STOCK

    def _explores(self) -> bool:
        """Return whether to ask for a few more now, which may be at a storage that is well.

        Where that was so the last time it goes on at once; else from both ends by turns.
        """
        now, found = time.monotonic(), self._inquiries.found_elsewhere
        if found > self._found_elsewhere:
            self._found_elsewhere = found
            return True
        if now - self._explored_at < _EXPLORE_SECONDS:
            return False
        self._explored_at, self._newest = now, not self._newest
        return True

    def _waiting(self, now: datetime) -> int:
        """Return how many runs wait with a URL for a worker."""
        session = self._session
        known = session.waiting()
        if known is None:
            known = session.call(transfers.count_ready, session.database, now, session.cutoff)
            session.note_waiting(known)
        return known

    def _held_back(self, now: datetime) -> float:
        """Return for how many seconds no run is to be asked for again: too many found nothing."""
        session = self._session
        if session.mode is Mode.ONCE or session.settings.api_requests_per_second is not None:
            return 0.0
        return self._inquiries.tempo.repolls_wait_seconds(now)

    def _wanted(self, most: int, now: datetime) -> polling.Wanted:
        """Return which due runs to claim, up to so many."""
        self._share_of_longest = min(self._share_of_longest, 1.0) + most * LONGEST
        longest = int(self._share_of_longest)
        self._share_of_longest -= longest
        newest = self._exploring and self._newest
        only_new = newest or self._held_back(now) > 0
        return polling.Wanted(most, longest, only_new=only_new, newest=newest)

    def _due(
        self, now: datetime, room: int, free: int
    ) -> tuple[Sequence[polling.Due | pacing.Near], polling.Room]:
        """Return claims of what is likely to be finished, due or not, and of what is due."""
        session, tempo = self._session, self._inquiries.tempo
        limits, once = session.settings.limits, session.mode is Mode.ONCE
        lease_until = session.lease_until(now)
        asked = {one.batch.run_type for one in list(self._asking.values())}
        freely = self._types(Asking.FREELY)
        one_batch = [[name] for name in self._types(Asking.ONE_BATCH) if name not in asked]
        most = 0 if once else min(free // 2, -(-room // MAX_BATCH))
        leads = [one for one in tempo.next_leads(most) if one.key.run_type in freely]
        near = [pacing.Near(session.owner, leads, now, lease_until)] if leads else []
        size = claim_size(room, free * MAX_BATCH)
        due = [
            polling.Due(
                session.owner,
                run_types,
                self._wanted(MAX_BATCH if run_types in one_batch else size, now),
                now,
                session.cutoff or now,
                limits.min_poll_seconds if once else limits.max_poll_seconds,
                lease_until,
                None if once else tempo.first_polls,
            )
            for run_types in (freely, *one_batch)
            if run_types
        ]
        return (*near, *due), polling.Room(room, free)

    def _look_back(self) -> None:
        """Learn now and then from the database how long runs have taken, of whatever process."""
        now = time.monotonic()
        if now < self._look_back_at:
            return
        self._look_back_at = now + _LOOK_BACK_SECONDS
        session = self._session
        self._inquiries.tempo.past = session.call(past.past_durations, session.database)

    def _may_probe(self) -> bool:
        """Wait until a blocked service is to be tried again; False where this call ends instead."""
        session = self._session
        while session.mode is Mode.FOREVER and not session.stopping.is_set():
            if not session.key.is_open or session.call(session.key.take_probe):
                return True
            session.room.wait(_LOOK_AGAIN_SECONDS)
            session.goes_round("polls")
            session.call(session.key.look)
        return False
