"""ready → done: claims runs with a URL, and sees each transfer through in a thread of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from downloader.breakers import Kind, Stage, Trouble, origin_of
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.crew import Crew
from downloader.failpoints import At, reach
from downloader.jitter import jitter
from downloader.logger import get_logger
from downloader.recorder import Outcome
from downloader.rules.backoff import host_delay_seconds
from downloader.rules.blame import Blame
from downloader.rules.decisions import (
    REFUSED,
    STATUS_ERRORS,
    UNREACHABLE,
    ProblemKind,
    Spent,
    after_problem,
    before_transfer,
    could_be_of_all,
    patience_seconds,
    while_paused,
)
from downloader.rules.states import FINISHED, State
from downloader.rules.steps import HeldUp, NewUrl, Published, PutBack, TransferFailed, TryAgain
from downloader.session import Held, Mode
from downloader.store import inspection, transfers
from downloader.transfer.engine import TransferError
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.transfer import Order, publishing_pool, transfer
from downloader.transfer.unusable import DiskError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from downloader.breakers import Breaker
    from downloader.recorder import Recorder
    from downloader.rules.decisions import Problem
    from downloader.rules.resume import Journal
    from downloader.rules.states import RunKey
    from downloader.rules.steps import ReadyStep, TransferStep
    from downloader.session import Session
    from downloader.store.transfers import ClaimedRun, ReadyRun
    from downloader.transfer.engine import Engine
    from downloader.transfer.output import Output
    from downloader.transfer.transfer import Delivered

_log = get_logger(__name__)

_LOOK_AGAIN_SECONDS: Final = 0.5
"""How soon what other processes made ready, or what backed off, is seen."""

_GATHER_SECONDS: Final = 0.02
"""How long outcomes are gathered for one commit, while there is work for every thread."""

_AHEAD_SECONDS: Final = 0.05
"""For how long there is to be work for every thread after a turn."""

_MOST_AHEAD: Final = 64
"""What waits here could be another process's: never more than this."""

UNWIND_SECONDS: Final = 1.0
"""How long transfers that were cut off may take to notice; what is left then is abandoned."""

_OTHERS_FIRST_SECONDS: Final = 1.0
"""For how long others may try a storage in trouble before a run that it has refused does, which may
be the bad one."""

_USELESS_ENOUGH: Final = 3
"""So many tries of a storage in a row are in vain, then a single pass leaves its runs alone."""

_WORTH_A_WAIT_SECONDS: Final = 5.0
"""How near the next try has to be for a single pass to wait for it."""

_COUNT_SECONDS: Final = 0.1
"""Over how long it is counted how many transfers end."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A run that was claimed, and is to be transferred now."""

    claim: ClaimedRun
    held: Held
    guard: Guard
    began_at: float  # monotonic clock
    host: Breaker | None  # of its URL


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a job ended; `trouble` is the disk's, and no fault of the run."""

    job: _Job
    step: TransferStep
    delivered: Delivered | None = None
    trouble: Trouble | None = None


class Workers:
    """Runs transfers, as many at a time as the session's `concurrency` allows."""

    def __init__(
        self,
        session: Session,
        recorder: Recorder,
        output: Output,
        engine: Engine,
        nothing_left: Callable[[], Awaitable[bool]],
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._output = output
        self._engine = engine
        self._nothing_left = nothing_left
        self._pool = publishing_pool()
        self._crew = Crew(self._see_through)
        self._jobs: dict[str, _Job] = {}  # what is under way, or not recorded yet, by its lease
        self._more_expected = False  # the last claim got all that it asked for
        self._idle = 0  # places that there was no work for at the last look
        self._cutoff = session.cutoff
        self._per_second = 0.0  # how many transfers end just now
        self._counted = 0
        self._counted_since = time.monotonic()

    @property
    def active(self) -> int:
        """How many transfers are under way."""
        return self._crew.running

    async def run(self) -> None:
        """Transfer until this call has nothing left to, or the service stops and all have ended.

        Where this is cancelled the transfers are told to stop, and abandoned if they do not.
        """
        try:
            async with anyio.create_task_group() as listening:
                listening.start_soon(self._listen)
                await self._work()
                listening.cancel_scope.cancel()
        finally:
            await self._unwind()
            self._abandon()
            self._crew.close()
            self._pool.close()

    async def _listen(self) -> None:
        while True:
            await self._crew.wait_ended()
            self._session.ready.set()

    async def _work(self) -> None:
        """Record what has ended and take up what is ready, by turns: each in one group."""
        session = self._session
        while True:
            session.turned_at = time.monotonic()
            last_look = session.polling_over  # what became ready before that is seen below
            await self._note()
            self._leave_hung()
            await self._go_on()
            stopping = session.stopping.is_set()
            if stopping:
                self._put_back()
            found = await self._turn(0 if stopping else await self._free())
            if stopping:
                if not self._crew.begun:
                    return
            elif not found and await self._is_over(last_look=last_look):
                return
            await session.ready.wait(_LOOK_AGAIN_SECONDS)
            if self._crew.queued and self._per_second and not session.stopping.is_set():
                # Nobody waits for this turn yet.
                lasts = self._crew.queued / self._per_second
                await anyio.sleep(min(_GATHER_SECONDS, lasts / 2))

    def _leave_hung(self) -> None:
        """Have others in the places of transfers that were to stop, and give no sign of life."""
        session = self._session
        for lease, job in list(self._jobs.items()):
            if not job.guard.is_hung or not self._crew.abandon(job):
                continue
            del self._jobs[lease]
            job.guard.cancel()
            if job.host is not None:
                job.host.ended(lease)
            key, seconds = job.claim.run.key, time.monotonic() - job.began_at
            session.release(key, lease)
            session.tally.transfer(None, seconds)
            _log.warning(
                "run.transfer_hangs",
                run_id=key.run_id,
                run_type=key.run_type,
                seconds=round(seconds, 3),
            )

    def _put_back(self) -> None:
        """Give back what was claimed ahead and is not begun."""
        self._recorder.add(_put_back(job) for job in self._crew.take_back())

    async def _unwind(self) -> None:
        """Tell transfers to stop that nobody has told yet, and wait a moment for their parts."""
        running = [job.guard for job in self._jobs.values() if not job.guard.cancelled]
        if not running:
            return
        for guard in running:
            guard.cancel()
        self._put_back()
        with anyio.move_on_after(UNWIND_SECONDS, shield=True):
            self._take_ended()
            while self._crew.begun:
                await self._crew.wait_ended()
                self._take_ended()

    def _abandon(self) -> None:
        """Leave what is under way to its guard, and its outcome to the next `flush`."""
        for job in self._jobs.values():
            job.guard.cancel()
        self._put_back()
        self._take_ended()
        told = self._recorder.waiting
        self._recorder.add(_put_back(job) for lease, job in self._jobs.items() if lease not in told)

    async def _is_over(self, *, last_look: bool) -> bool:
        """Return whether this call has nothing left to do."""
        session = self._session
        if session.mode is Mode.FOREVER or self._crew.begun:
            return False
        if session.folder.is_open:
            return True
        if session.mode is Mode.ONCE or session.key.trouble is not None:
            return last_look and not (self._cutoff and self._is_tried_soon())
        return await self._nothing_left()

    def _is_tried_soon(self) -> bool:
        """Return whether a single pass waits for what others get of a storage that refused some."""
        return any(
            host.tries < _USELESS_ENOUGH and host.is_tried_within(_WORTH_A_WAIT_SECONDS)
            for host in self._session.breakers.in_trouble(Kind.HOST)
            if host.trouble is not None and host.trouble.reason != UNREACHABLE
        )

    async def _free(self) -> int:
        """Return how many more transfers to claim now."""
        session, crew = self._session, self._crew
        limit = session.concurrency.look(crew.active, session.received_bytes)
        self._idle = limit - crew.begun
        known = session.folder.trouble
        await session.in_thread(session.folder.look)
        if session.folder.is_open:
            if known is None:  # another process has met it
                self._put_back()
            crew.limit(1)
            session.concurrency.found(0, wanted=1)
            return 1 if not crew.begun and await self._may_probe() else 0
        if session.folder.suspected_of is not None:
            crew.limit(1)  # what it was in trouble with may show only when a file is saved
            session.concurrency.found(0, wanted=1)
            return 0 if crew.begun else 1
        crew.limit(limit)
        if self._idle <= 0:
            session.concurrency.found(0, wanted=0)
        session.ahead = self._ahead()
        return max(0, self._idle + session.ahead)

    def _ahead(self) -> int:
        """Return how many to claim beyond the places there are: what ends before the next turn.

        Where files are large or come slowly that is none: what waits could be another's.
        """
        now = time.monotonic()
        seconds = now - self._counted_since
        if seconds >= _COUNT_SECONDS:
            self._per_second = self._counted / seconds
            self._counted, self._counted_since = 0, now
        return min(_MOST_AHEAD, int(self._per_second * _AHEAD_SECONDS))

    async def _turn(self, free: int) -> int:
        """Record what has ended, and begin up to `free` transfers; return how many runs waited."""
        session, now, asked_at = self._session, utc_now(), time.monotonic()
        claim = None
        if self._cutoff is not None and self._is_tried_soon():
            self._cutoff = now
        if free:
            claim = transfers.Claim(
                session.owner,
                free,
                now,
                self._cutoff,
                session.lease_until(now),
                partial(self._judge, now=now, taken=set()),
                self._more_expected,
            )
        ended, ready = await self._recorder.turn(claim)
        # First of all, and with nothing awaited: whoever is cut off gives back what was begun.
        for one in ready.claimed:
            self._begin(one, asked_at)
        self._crew.limit(session.concurrency.limit)
        self._counted += len(ended)
        if ready.claimed:
            reach(At.TRANSFER_CLAIMED)
        if claim is not None:
            self._found(ready, free)
            if not ready.claimed and await self._has_no_use_for_folder():
                # There is nothing to try it with, and the folder can be written to.
                await session.in_thread(session.folder.succeeded, asked_at)
        for outcome in ended:
            await self._settle(outcome)
        return ready.found

    async def _has_no_use_for_folder(self) -> bool:
        """Return whether a folder that is in doubt has passed all that it can be tried with."""
        session = self._session
        if session.folder.suspected_of != "output_unusable":
            return session.folder.is_open
        return not await session.in_thread(inspection.any_unfinished, session.database, RUN_TYPES)

    def _found(self, ready: transfers.Ready, free: int) -> None:
        """Tell everybody what a claim of up to `free` runs has found."""
        session = self._session
        self._more_expected = ready.found == free
        session.note_waiting(ready.waiting)
        if ready.expired or ready.failed:
            session.tally.expired_unused(renewed=ready.expired, failed=ready.failed)
            _log.info("urls.expired_before_use", runs=ready.expired + ready.failed)
        if ready.found > len(ready.claimed):
            session.ready.set()  # there may be others behind them
        if not session.folder.is_open:
            session.concurrency.found(len(ready.claimed), wanted=max(0, self._idle))
        if ready.found:
            session.room.set()

    def _judge(self, run: ReadyRun, now: datetime, taken: set[str]) -> ReadyStep | None:
        """Return what keeps a run from being transferred now; `taken` are the hosts tried anew."""
        session, spent = self._session, _spent(run)
        limits, origin = session.settings.limits, origin_of(run.url)
        host = None if origin is None else session.breakers.host(origin)
        expired = before_transfer(
            run.url_expires_at,
            run.ready_at,
            spent,
            limits=limits,
            now=now,
            jitter=jitter(),
            excused=host is not None and host.was_in_trouble_since(run.ready_at),
        )
        if expired is not None or origin is None or host is None:
            return expired
        pause = host.pause(taken=origin in taken)
        if pause is None:
            if host.is_open:
                taken.add(origin)
            return None
        return while_paused(
            pause.trouble.reason,
            pause.trouble.for_all,
            spent,
            submitted_at=run.submitted_at,
            lasted_seconds=pause.lasted_seconds,
            wait_seconds=pause.wait_seconds,
            limits=limits,
            now=now,
        )

    async def _go_on(self) -> None:
        """Look anew at what waited for a storage that is back."""
        session = self._session
        if codes := session.breakers.take_closed(Kind.HOST):
            now = utc_now()
            await session.in_thread(transfers.end_hold_up, session.database, now, codes)
            if self._cutoff is not None:
                self._cutoff = now
            session.room.set()

    def _begin(self, claim: ClaimedRun, claimed_at: float) -> None:
        """Have a run, claimed at this time of the monotonic clock, transferred."""
        # The lease counts from before the claim, which may have waited for the database.
        now = time.monotonic()
        left = self._session.settings.lease_seconds - (now - claimed_at)
        guard = Guard(left)
        held = Held(claim.run.key, claim.lease, guard, now)
        self._session.hold(held)
        origin = origin_of(claim.run.url)
        host = None if origin is None else self._session.breakers.host(origin)
        job = self._jobs[claim.lease] = _Job(claim, held, guard, now, host)
        if job.host is not None:
            job.host.begins(claim.lease)
        self._crew.begin(job)

    def _see_through(self, job: _Job) -> _Ended:
        """See one run through to an outcome, in its thread."""
        try:
            job.guard.begin()
            delivered = self._transfer(job)
        except TransferError as error:
            return _Ended(job, self._after(job, error.problem))
        except Interrupted:
            return _Ended(job, PutBack(utc_now(), "interrupted"))
        except DiskError as error:
            # The gate waits, not the run: whoever starts anew tries at once.
            trouble = Trouble(error.reason, error.message)
            return _Ended(job, PutBack(utc_now(), error.reason), trouble=trouble)
        if job.host is not None:
            job.host.served(job.claim.run.key, job.began_at, Stage.FILE)
        return _Ended(job, delivered.step, delivered)

    def _after(self, job: _Job, problem: Problem) -> TransferStep:
        """Return what becomes of a run whose transfer met a problem, by whose fault that is."""
        run, host, limits = job.claim.run, job.host, self._session.settings.limits
        spent, now = _spent(run), utc_now()
        blame, wait, lasted = Blame.RUN, 0.0, 0.0
        at_least = problem.retry_after_seconds or 0.0
        if host is not None and could_be_of_all(problem, spent):
            blame = _blame(host, job, problem)
            if blame is Blame.PLACE:
                wait = host.failed(
                    problem.error_code,
                    problem.error_message,
                    job.began_at,
                    at_least_seconds=at_least,
                    stage=_stage(problem),
                )
                lasted = time.monotonic() - host.opened_at
                if problem.kind is not ProblemKind.UNREACHABLE:
                    wait += _OTHERS_FIRST_SECONDS
                if problem.lasting and lasted >= patience_seconds(problem, limits):
                    blame = Blame.RUN
            elif blame is Blame.UNKNOWN:
                wait = max(host_delay_seconds(0, jitter()), at_least)
        if blame in {Blame.PLACE, Blame.UNKNOWN}:
            refused = problem.kind is ProblemKind.REFUSED
            return while_paused(
                REFUSED if refused else problem.error_code,
                problem.error_message,
                spent,
                submitted_at=run.submitted_at,
                lasted_seconds=lasted,
                wait_seconds=wait,
                limits=limits,
                now=now,
                new_url=problem.kind not in {ProblemKind.TRANSIENT, ProblemKind.UNREACHABLE},
            )
        return after_problem(
            problem,
            spent,
            limits=limits,
            now=now,
            jitter=jitter(),
            alone=blame is Blame.ALONE,
        )

    def _transfer(self, job: _Job) -> Delivered:
        run, held, host = job.claim.run, job.held, job.host

        def progress(received: int) -> None:
            held.received_bytes += received  # one writer: the engine's thread

        def expected(there: int, total_bytes: int | None) -> None:
            if host is not None:
                host.served(run.key, job.began_at)
            held.resumed_bytes, held.total_bytes = there - held.received_bytes, total_bytes

        def note_object(journal: Journal) -> bool:
            return transfers.note_object(self._session.database, job.claim, journal, utc_now())

        order = Order(
            run.key,
            run.url,
            run.journal,
            note_object,
            progress,
            self._session.settings.max_file_bytes,
            run.untried,
            expected,
            run.error_code,
        )
        return transfer(order, self._output, self._engine, job.guard, self._pool)

    async def _note(self) -> None:
        """Have what has ended recorded in the next turn; stop everybody where the disk says so."""
        troubles, failures = self._take_ended()
        if failures:
            raise failures[0]
        if self._crew.queued and self._session.breakers.any_in_trouble(Kind.HOST):
            self._hold_up_queued()
        for trouble in troubles:
            await self._session.in_thread(
                self._session.folder.failed, trouble.reason, trouble.message, time.monotonic()
            )
        if troubles:
            self._put_back()

    def _hold_up_queued(self) -> None:
        """Put back what was claimed ahead for a host that has been found in trouble since."""
        for job in self._crew.take_back():
            pause = None if job.host is None else job.host.pause(mine=job.claim.lease)
            if pause is None:
                self._crew.begin(job)
                continue
            due = utc_now() + timedelta(seconds=pause.wait_seconds)
            step = HeldUp(due, pause.trouble.reason, pause.trouble.for_all)
            self._recorder.add([Outcome(job.claim.run.key, job.claim.lease, step)])

    def _take_ended(self) -> tuple[list[Trouble], list[BaseException]]:
        """Hand what has ended to the recorder; return what stops everybody."""
        found = self._crew.take_ended()
        ended = [one for one in found if not isinstance(one, BaseException)]
        self._recorder.add(_outcome(one) for one in ended)
        return (
            [one.trouble for one in ended if one.trouble is not None],
            [one for one in found if isinstance(one, BaseException)],
        )

    async def _settle(self, outcome: Outcome) -> None:
        """Let go of what has been recorded, and tell of it."""
        key, step = outcome.key, outcome.step
        job = self._jobs.pop(outcome.lease)
        if job.host is not None:
            job.host.ended(outcome.lease)
        self._session.release(key, outcome.lease)
        if not (outcome.held or await self._is_wanted(key)):
            await self._session.in_thread(self._output.discard_parts, {key})
        await self._account(job, step, recorded=outcome.held)

    async def _is_wanted(self, key: RunKey) -> bool:
        """Return whether a run whose lease was lost may yet be saved; a failed one, by `retry`."""
        found = await self._session.in_thread(inspection.states_of, self._session.database, [key])
        return key in found and found[key] not in FINISHED - {State.FAILED}

    async def _account(self, job: _Job, step: TransferStep, *, recorded: bool) -> None:
        """Count and tell an outcome."""
        session, started = self._session, job.began_at
        run, seconds = job.claim.run, time.monotonic() - started
        log = _log.bind(
            run_id=run.key.run_id,
            run_type=run.key.run_type,
            attempt=run.attempts + 1,
            seconds=round(seconds, 3),
        )
        session.tally.transfer(step if recorded else None, seconds)
        if not recorded:
            log.warning("run.lease_lost")
            return
        match step:
            case Published():
                session.concurrency.saved()
                log.info("run.done", bytes=step.bytes, location=step.location)
                await self._note_saved(started)
            case HeldUp():
                log.info("run.held_up", error_code=step.error_code, message=step.error_message)
            case TryAgain():
                session.concurrency.failed(step.error_code, started, again=run.attempts > 0)
                log.info(
                    "run.attempt_failed", error_code=step.error_code, message=step.error_message
                )
            case NewUrl():
                log.info(
                    "run.needs_new_url", error_code=step.error_code, message=step.error_message
                )
                session.room.set()
            case TransferFailed():
                session.concurrency.failed(step.error_code, started, again=run.attempts > 0)
                log.warning("run.failed", error_code=step.error_code, message=step.error_message)
            case PutBack():
                log.info("run.put_back", reason=step.reason)

    async def _note_saved(self, began_at: float) -> None:
        """Note that the output folder took a file."""
        session = self._session
        if session.folder.may_be_closed:
            await session.in_thread(session.folder.succeeded, began_at)

    async def _may_probe(self) -> bool:
        """Return whether the disk is to be tried again, and can be written to at all."""
        session = self._session
        if session.mode is not Mode.FOREVER:
            return False
        if not await session.in_thread(session.folder.take_probe):
            return False
        try:
            await session.in_thread(self._output.prepare)
        except DiskError as error:
            await session.in_thread(
                session.folder.failed, error.reason, error.message, time.monotonic()
            )
            return False
        return True


def _spent(run: ReadyRun) -> Spent:
    return Spent(
        run.attempts,
        run.refreshes,
        run.error_code,
        run.failing_since,
        run.ready_at,
        run.journal.validator is not None,
    )


def _blame(host: Breaker, job: _Job, problem: Problem) -> Blame:
    """Return whose fault a problem is: the run's, or that of the host that it was to come from."""
    if problem.kind is ProblemKind.UNREACHABLE:
        return Blame.PLACE
    code, key = problem.error_code, job.claim.run.key
    if host.trouble is not None and host.trouble.reason == UNREACHABLE:
        host.succeeded(job.began_at)  # it is there, whatever else it says
    return host.refused(key, code, job.began_at, _stage(problem))


def _stage(problem: Problem) -> Stage:
    return Stage.ANSWER if problem.error_code in STATUS_ERRORS else Stage.FILE


def _outcome(ended: _Ended) -> Outcome:
    claim, delivered = ended.job.claim, ended.delivered
    then = None if delivered is None else delivered.part.discard
    return Outcome(claim.run.key, claim.lease, ended.step, then)


def _put_back(job: _Job) -> Outcome:
    return Outcome(job.claim.run.key, job.claim.lease, PutBack(utc_now(), "interrupted"))
