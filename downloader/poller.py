"""pending → ready: claims the runs that are due, just in time for the workers, and asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio

from downloader.breakers import Kind
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.errors import BusyDatabaseError, FullDatabaseError
from downloader.failpoints import At, reach
from downloader.inquiry import REQUESTS_AT_ONCE, Asking, Inquiries
from downloader.rules.batching import MAX_BATCH, claim_size
from downloader.rules.pace import LONGEST
from downloader.session import Held, Mode
from downloader.store import pacing, past, polling, transfers

if TYPE_CHECKING:
    from datetime import datetime

    from anyio.abc import TaskGroup

    from downloader.breakers import Trouble
    from downloader.camb.client import ApiClient
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

    def __init__(self, session: Session, client: ApiClient) -> None:
        self._session = session
        self._inquiries = Inquiries(session, client)
        self._asking: dict[str, ClaimedBatch] = {}  # what is under way, by lease
        self._scope = anyio.CancelScope()
        self._look_back_at = float("-inf")
        # While URLs enough wait for a storage in trouble:
        self._exploring = self._newest = False
        self._explored_at = float("-inf")
        self._found_elsewhere = 0
        self.trouble: Trouble | None = None
        """Why `--once` had no use of the API, beside what is known of the key."""
        self._share_of_longest = 0.0  # of the runs claimed, those still owed to the longest due
        self._no_room = False  # what was not claimed waits for workers, not for its time

    async def run(self) -> None:
        """Poll until there is nothing left to ask (`--once`), or the service stops."""
        session = self._session
        with self._scope:
            while not session.stopping.is_set():
                async with anyio.create_task_group() as requests:
                    await self._poll(requests)
                # Answers that were under way may have shown that the service goes on.
                if session.mode is not Mode.DRAIN or session.key.is_open:
                    break
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
        self._scope.cancel()

    async def _poll(self, requests: TaskGroup) -> None:
        """Claim and ask until there is nothing left to ask, or the service is blocked."""
        session = self._session
        while not session.stopping.is_set():
            await session.in_thread(session.key.look)
            if session.key.is_open and not await self._may_probe():
                return
            batches = await self._claim()
            for one in batches:
                requests.start_soon(self._resolve, one)
            if batches:
                continue
            if session.mode is Mode.ONCE and not self._asking and not await self._any_left():
                if not self._inquiries.key_is_good:  # not one useful answer, if any at all
                    self.trouble = self._inquiries.last_failure
                return
            pause = _LOOK_AGAIN_SECONDS if self._no_room else await self._pause_seconds()
            if self._exploring:
                pause = _EXPLORE_SECONDS
            await session.room.wait(
                max(pause, min(_LOOK_AGAIN_SECONDS, self._held_back(utc_now())))
            )

    async def _resolve(self, claimed: ClaimedBatch) -> None:
        try:
            await self._inquiries.resolve(claimed)
        finally:
            self._asking.pop(claimed.lease, None)
            self._session.room.set()

    async def _any_left(self) -> bool:
        """Return whether `--once` has runs to ask for that only wait for room."""
        due = await self._next_due_at()
        return due is not None and due <= self._session.started_at

    async def _next_due_at(self) -> datetime | None:
        """Return when the next run is due of those that may be asked for."""
        return await self._session.in_thread(
            polling.next_due_at,
            self._session.database,
            self._types(Asking.FREELY, Asking.ONE_BATCH),
        )

    def _types(self, *asking: Asking) -> list[str]:
        """Return the run types that may be asked for so."""
        return [name for name in RUN_TYPES if self._inquiries.may_ask(name) in asking]

    async def _pause_seconds(self) -> float:
        """Return how long nothing can be due: short, since other processes submit too."""
        due = await self._next_due_at()
        cutoff = self._session.cutoff
        if due is None or (cutoff is not None and due > cutoff):
            return _LOOK_AGAIN_SECONDS
        return min(_LOOK_AGAIN_SECONDS, max(0.02, (due - utc_now()).total_seconds()))

    async def _claim(self) -> list[ClaimedBatch]:
        """Claim as many runs as the workers can soon use and requests are free for."""
        session, now = self._session, utc_now()
        session.watch_clock()
        if session.clock.settling:
            self._no_room = True  # what is asked for just now looks as if nobody did
            return []
        # While the service is blocked one request shows whether it goes on.
        at_once = 1 if session.key.is_open else 2 * REQUESTS_AT_ONCE
        free = at_once - len(self._asking)
        appetite = session.concurrency.limit * BACKLOG_PER_WORKER + 2 * session.ahead
        waiting = await self._waiting(now)
        room = appetite - waiting - sum(len(one.runs) for one in self._asking.values())
        self._exploring = await self._many_are_held_up(now)
        if self._exploring:
            self._no_room = True
            if room <= 0 or free <= 0 or not self._explores():
                return []
            return await self._take_up(now, MAX_BATCH, 1)
        # Where an answer takes its time the requests had better follow each other closely.
        grouped = self._inquiries.answer_seconds < _QUICK_SECONDS
        least = min(_WORTH_A_CLAIM, (appetite + 1) // 2) if grouped else 1
        self._no_room = room < least or free < ((at_once + 1) // 2 if grouped else 1)
        if self._no_room:
            return []
        await self._look_back()
        return await self._take_up(now, room, free)

    async def _take_up(self, now: datetime, room: int, free: int) -> list[ClaimedBatch]:
        """Claim runs for so many URLs and requests."""
        session = self._session
        batches = await session.in_thread(self._claim_now, now, room, free)
        if batches:
            reach(At.POLL_CLAIMED)
        for one in batches:
            self._asking[one.lease] = one
            for run in one.runs:
                session.hold(Held(run.key, one.lease))
        return batches

    async def _many_are_held_up(self, now: datetime) -> bool:
        """Return whether there are URLs enough that wait for a storage in trouble."""
        session = self._session
        codes = {trouble.reason for trouble in session.troubles(Kind.HOST)}
        if not codes or session.mode is Mode.ONCE:  # which asks for all
            return False
        found = await session.in_thread(transfers.count_held_up, session.database, now, codes)
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

    async def _waiting(self, now: datetime) -> int:
        """Return how many runs wait with a URL for a worker."""
        session = self._session
        known = session.waiting()
        if known is None:
            known = await session.in_thread(
                transfers.count_ready, session.database, now, session.cutoff
            )
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

    def _claim_now(self, now: datetime, room: int, free: int) -> list[ClaimedBatch]:
        """Claim what is likely to be finished, due or not, and what is due; blocking."""
        session, tempo = self._session, self._inquiries.tempo
        limits, once = session.settings.limits, session.mode is Mode.ONCE
        lease_until = session.lease_until(now)
        batches: list[ClaimedBatch] = []
        asked = {one.batch.run_type for one in self._asking.values()}
        freely = self._types(Asking.FREELY)
        one_batch = [[name] for name in self._types(Asking.ONE_BATCH) if name not in asked]

        def left() -> int:
            return room - sum(len(one.runs) for one in batches)

        def follow_leads(most: int) -> None:
            while not once and len(batches) < most and left() > 0:
                leads = tempo.next_leads(min(most - len(batches), -(-left() // MAX_BATCH)))
                if not leads:
                    break
                batches.extend(
                    pacing.claim_near(
                        session.database,
                        session.owner,
                        [one for one in leads if one.key.run_type in freely],
                        now=now,
                        lease_until=lease_until,
                    )
                )

        try:
            follow_leads(free // 2)
            for run_types in (freely, *one_batch):
                size = claim_size(left(), (free - len(batches)) * MAX_BATCH)
                batches += polling.claim_due(
                    session.database,
                    session.owner,
                    run_types,
                    wanted=self._wanted(MAX_BATCH if run_types in one_batch else size, now),
                    now=now,
                    cutoff=session.cutoff or now,
                    soon_seconds=limits.min_poll_seconds if once else limits.max_poll_seconds,
                    lease_until=lease_until,
                    too_young=None if once else tempo.first_polls,
                )
            follow_leads(free)
        except (BusyDatabaseError, FullDatabaseError):
            if not batches:
                raise
            # Begun anew this would forget what is claimed already.
        return batches

    async def _look_back(self) -> None:
        """Learn now and then from the database how long runs have taken, of whatever process."""
        now = time.monotonic()
        if now < self._look_back_at:
            return
        self._look_back_at = now + _LOOK_BACK_SECONDS
        session = self._session
        self._inquiries.tempo.past = await session.in_thread(past.past_durations, session.database)

    async def _may_probe(self) -> bool:
        """Wait until a blocked service is to be tried again; False where this call ends instead."""
        session = self._session
        while session.mode is Mode.FOREVER and not session.stopping.is_set():
            if not session.key.is_open or await session.in_thread(session.key.take_probe):
                return True
            await session.room.wait(_LOOK_AGAIN_SECONDS)
            await session.in_thread(session.key.look)
        return False
