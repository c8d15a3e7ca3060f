"""ready → done: claims runs with a URL, has them transferred, and judges what comes of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio.from_thread

from downloader.breakers import Kind, Stage, origin_of
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.jitter import jitter
from downloader.logger import get_logger
from downloader.recorder import Outcome, Wanted
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
from downloader.rules.steps import (
    HeldUp,
    NewUrl,
    Published,
    PutBack,
    TransferFailed,
    TryAgain,
    UrlReceived,
)
from downloader.session import MOST_AHEAD, Held, Mode, run_in_thread
from downloader.store import inspection, polling, transfers
from downloader.transfer.engine import TransferError
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.pool import MOST_HUNG
from downloader.transfer.transfer import Delivered, Order, Transfer, publishing_pool
from downloader.transfer.unusable import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from datetime import datetime

    from downloader.breakers import Breaker
    from downloader.recorder import Judged, Recorder
    from downloader.rules.decisions import Problem
    from downloader.rules.resume import Journal
    from downloader.rules.states import RunKey
    from downloader.rules.steps import ReadyStep, TransferStep
    from downloader.session import Session
    from downloader.store.transfers import ClaimedRun, ReadyRun
    from downloader.store.turn import Done
    from downloader.transfer.engine import Engine
    from downloader.transfer.output import Output

_log = get_logger(__name__)

_LOOK_AGAIN_SECONDS: Final = 0.5
"""How soon what other processes made ready, or what backed off, is seen."""

_GATHER_SECONDS: Final = 0.02
"""How long outcomes are gathered for one commit, while there is work for every thread."""

_AHEAD_SECONDS: Final = 0.05
"""For how long there is to be work for every thread after a turn."""

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


class Workers:
    """Runs transfers, as many at a time as the session's `concurrency` allows.

    A thread of its own looks after them, in turns. A transfer that ends tells so from whichever
    thread it ends in, and the next that waits begins there.
    """

    def __init__(
        self,
        session: Session,
        recorder: Recorder,
        output: Output,
        engine: Engine,
        nothing_left: Callable[[], Coroutine[None, None, bool]],
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._output = output
        self._engine = engine
        self._nothing_left = nothing_left
        self._pool = publishing_pool()
        self._lock = threading.Lock()  # of the next three
        self._jobs: dict[str, _Job] = {}  # what is begun and not recorded yet, by its lease
        self._queued: deque[_Job] = deque()  # claimed ahead: what begins when another ends
        self._running: dict[str, _Job] = {}
        self._hanging = 0  # transfers that were left to themselves
        self._failure: BaseException | None = None  # nobody's fault but the program's
        self._cut_off = threading.Event()
        # Of whoever has the turn:
        self._leaving = self._may_try_folder = False
        self._more_expected = False  # the last claim has left some
        self._idle = 0  # places that there was no work for at the last look
        self._claimed_at = 0.0
        self._cutoff = session.cutoff
        self._per_second = 0.0  # how many transfers end just now
        self._counted = 0
        self._counted_since = time.monotonic()
        recorder.taker = self

    @property
    def active(self) -> int:
        """How many transfers are under way."""
        return len(self._running)

    async def run(self) -> None:
        """Transfer until this call has nothing left to, or the service stops and all have ended.

        Where this is cancelled the transfers are told to stop, and abandoned if they do not.
        """
        await run_in_thread(self._work, self.cut_off)

    def cut_off(self) -> None:
        """Have transfers stop at once, and the thread end."""
        self._cut_off.set()
        self._session.ready.set()

    def _work(self) -> None:
        """Record what has ended and take up what is ready, by turns: each in one group."""
        session = self._session
        try:
            while not self._cut_off.is_set():
                session.goes_round("transfers")
                last_look = session.polling_over  # what became ready before that is seen below
                if self._failure is not None:
                    raise self._failure
                self._leave_hung()
                self._look_after_places()
                stopping = session.stopping.is_set()
                if stopping:
                    self._put_back()
                found = self._recorder.turn()
                if stopping:
                    if not self._jobs:
                        return
                elif found is None and not (self._jobs or session.folder.is_open):
                    session.ready.set()  # all have ended meanwhile: there are places now
                elif not found and self._is_over(last_look=last_look):
                    return
                session.ready.wait(_LOOK_AGAIN_SECONDS)
                if self._queued and self._per_second and not session.stopping.is_set():
                    # Nobody waits for this turn yet.
                    lasts = len(self._queued) / self._per_second
                    self._cut_off.wait(min(_GATHER_SECONDS, lasts / 2))
        finally:
            session.goes_round_no_more("transfers")
            self._unwind()
            self._pool.close()

    def _leave_hung(self) -> None:
        """Have others in the places of transfers that were to stop, and give no sign of life."""
        session = self._session
        for lease, job in list(self._running.items()):
            if not job.guard.is_hung or self._hanging >= MOST_HUNG:
                continue
            with self._lock:
                if self._running.pop(lease, None) is None:
                    continue
                del self._jobs[lease]
                self._hanging += 1
            job.guard.cancel()
            if job.host is not None:
                job.host.ended(lease)
            key, seconds = job.claim.run.key, time.monotonic() - job.began_at
            session.release(key, lease)
            with self._recorder.between_turns():  # in which others count
                session.tally.transfer(None, seconds)
            _log.warning(
                "run.transfer_hangs",
                run_id=key.run_id,
                run_type=key.run_type,
                seconds=round(seconds, 3),
            )

    def _put_back(self) -> None:
        """Give back what was claimed ahead and is not begun."""
        with self._lock:
            queued, self._queued = list(self._queued), deque()
        self._recorder.add(_put_back(job) for job in queued)

    def _unwind(self) -> None:
        """Leave what is under way to its guard, and its outcome to the next `flush`.

        Transfers that nobody has told to stop yet have a moment to leave their parts in order.
        """
        with self._recorder.between_turns():
            self._leaving = True
        self._put_back()
        with self._lock:
            running = [job.guard for job in self._running.values() if not job.guard.cancelled]
        for guard in running:
            guard.cancel()
        if running:
            ends_at = time.monotonic() + UNWIND_SECONDS
            while self._running and (left := ends_at - time.monotonic()) > 0:
                self._session.ready.wait(left)
        told = self._recorder.waiting
        with self._lock:
            self._running.clear()
            abandoned = [job for lease, job in self._jobs.items() if lease not in told]
        for job in abandoned:
            job.guard.cancel()
        self._recorder.add(_put_back(job) for job in abandoned)

    def _is_over(self, *, last_look: bool) -> bool:
        """Return whether this call has nothing left to do; then nothing more is claimed."""
        if self._session.mode is Mode.FOREVER or self._jobs or not self._would_end(last_look):
            return False
        with self._recorder.between_turns():
            self._leaving = not self._jobs
        return self._leaving

    def _would_end(self, last_look: bool) -> bool:  # noqa: FBT001 - private
        session = self._session
        if session.folder.is_open:
            return True
        if session.mode is Mode.ONCE or session.key.trouble is not None:
            return last_look and not (self._cutoff and self._is_tried_soon())
        return anyio.from_thread.run(self._nothing_left)

    def _is_tried_soon(self) -> bool:
        """Return whether a single pass waits for what others get of a storage that refused some."""
        return any(
            host.tries < _USELESS_ENOUGH and host.is_tried_within(_WORTH_A_WAIT_SECONDS)
            for host in self._session.breakers.in_trouble(Kind.HOST)
            if host.trouble is not None and host.trouble.reason != UNREACHABLE
        )

    def _look_after_places(self) -> None:
        """Look at the folder, and anew at what waited for a storage that is back."""
        session = self._session
        known = session.folder.trouble
        session.call(session.folder.look)
        if session.folder.is_open:
            if known is None:  # another process has met it
                self._put_back()
            self._may_try_folder = not self._jobs and self._may_probe()
        if codes := session.breakers.take_closed(Kind.HOST):
            now = utc_now()
            session.call(transfers.end_hold_up, session.database, now, codes)
            if self._cutoff is not None:
                self._cutoff = now
            session.room.set()
        if self._queued and session.breakers.any_in_trouble(Kind.HOST):
            self._hold_up_queued()

    # What whoever has the turn calls

    def wanted(self, judged: Sequence[Judged]) -> Wanted:
        """Return what to claim in this turn: what has just got its URL, if nothing else waits."""
        session, now = self._session, utc_now()
        if self._cutoff is not None and self._is_tried_soon():
            self._cutoff = now
        leaving = self._leaving or session.stopping.is_set()
        free = 0 if leaving else self._free()
        session.queued = len(self._queued)
        if leaving or self._places(free) <= 0:
            return Wanted()
        self._claimed_at = time.monotonic()
        until = session.lease_until(now)
        at_once = [
            one.key
            for one in judged
            if isinstance(one.step, UrlReceived) and self._may_begin(one.step, now)
        ][: max(0, self._places(free) - (session.waiting() or 0))]
        begun = polling.Begun({key: session.owner.new_lease() for key in at_once}, until)
        if free <= len(at_once):
            return Wanted(None, begun if at_once else None)
        claim = transfers.Claim(
            session.owner,
            free - len(at_once),
            now,
            self._cutoff,
            until,
            partial(self._judge, now=now, taken=set()),
            self._more_expected,
        )
        return Wanted(claim, begun if at_once else None)

    def _places(self, free: int) -> int:
        """Return how many may begin of those that have just got their URL.

        Where files come fast all of them: each waits here, as a claim, less than in the queue.
        """
        if not self._session.ahead or self._session.folder.is_open:
            return free
        return max(free, MOST_AHEAD - len(self._queued))

    def _may_begin(self, step: UrlReceived, now: datetime) -> bool:
        """Return whether there is nothing against a transfer from a new URL."""
        if self._session.folder.is_open or (
            step.url_expires_at is not None and step.url_expires_at <= now
        ):
            return False
        origin = origin_of(step.url)
        return origin is not None and not self._session.breakers.host(origin).is_open

    def _free(self) -> int:
        """Return how many more transfers to claim now."""
        session, begun = self._session, len(self._running) + len(self._queued)
        limit = session.concurrency.look(len(self._running), session.received_bytes)
        self._idle = limit - begun
        if session.folder.is_open or session.folder.suspected_of is not None:
            # What it was in trouble with may show only when a file is saved.
            tries = self._may_try_folder or not session.folder.is_open
            self._may_try_folder = False
            session.concurrency.found(0, wanted=1)
            return 1 if tries and not begun else 0
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
        return min(MOST_AHEAD, int(self._per_second * _AHEAD_SECONDS))

    def taken(self, wanted: Wanted, done: Done) -> None:
        """Begin what was claimed, and tell everybody what was found."""
        session, ready = self._session, done.ready
        begun = (*done.begun, *ready.claimed)
        self._begin_queued([self._prepare(one, self._claimed_at) for one in begun])
        if begun:
            reach(At.TRANSFER_CLAIMED)
        if not session.folder.is_open and (wanted.ready or wanted.begun):
            session.concurrency.found(len(begun), wanted=max(0, self._idle))
        if wanted.ready is None:
            return
        self._more_expected = ready.waiting > 0
        session.note_waiting(ready.waiting)
        if ready.expired or ready.failed:
            session.tally.expired_unused(renewed=ready.expired, failed=ready.failed)
            _log.info("urls.expired_before_use", runs=ready.expired + ready.failed)
        if ready.found > len(ready.claimed):
            session.ready.set()  # there may be others behind them
        if not ready.found and self._has_no_use_for_folder():
            # There is nothing to try it with, and the folder can be written to.
            session.call(session.folder.succeeded, self._claimed_at)

    def _has_no_use_for_folder(self) -> bool:
        """Return whether a folder that is in doubt has passed all that it can be tried with."""
        session = self._session
        if session.folder.suspected_of != "output_unusable":
            return session.folder.is_open
        return not session.call(inspection.any_unfinished, session.database, RUN_TYPES)

    def settle(self, outcome: Outcome) -> None:
        """Let go of what has been recorded, and tell of it."""
        key, step = outcome.key, outcome.step
        with self._lock:
            job = self._jobs.pop(outcome.lease, None)
        if job is None:  # it has ended just as it was abandoned: it is settled already
            return
        if job.host is not None:
            job.host.ended(outcome.lease)
        self._session.release(key, outcome.lease)
        if not (outcome.held or self._is_wanted(key)):
            self._session.call(self._output.discard_parts, {key})
        self._counted += 1
        self._account(job, step, recorded=outcome.held)

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

    def _prepare(self, claim: ClaimedRun, claimed_at: float) -> _Job:
        """Return a run, claimed at this time of the monotonic clock, that is to be transferred.

        All that are claimed together are known to their hosts before the first of them begins.
        """
        # The lease counts from before the claim, which may have waited for the database.
        now = time.monotonic()
        left = self._session.settings.lease_seconds - (now - claimed_at)
        guard = Guard(left)
        held = Held(claim.run.key, claim.lease, guard, guard, now)
        self._session.hold(held)
        origin = origin_of(claim.run.url)
        host = None if origin is None else self._session.breakers.host(origin)
        job = _Job(claim, held, guard, now, host)
        if host is not None:
            host.begins(claim.lease)
        return job

    def _begin_queued(self, more: Sequence[_Job] = ()) -> None:
        """Begin what waits, and what is to wait behind it, as far as there are places."""
        begun = []
        with self._lock:
            self._jobs |= {job.claim.lease: job for job in more}
            self._queued.extend(more)
            while self._queued and len(self._running) < self._session.concurrency.limit:
                job = self._queued.popleft()
                self._running[job.claim.lease] = job
                begun.append(job)
        for job in begun:
            self._start(job)

    def _start(self, job: _Job) -> None:
        """Begin a transfer, which tells `_on_ended` how it ends."""
        Transfer(
            self._order(job),
            self._output,
            self._engine,
            job.guard,
            pool=self._pool,
            ended=partial(self._on_ended, job),
        ).start()

    def _on_ended(self, job: _Job, ended: Delivered | BaseException) -> None:
        """Take how a transfer ended, in whichever thread that is."""
        with self._lock:
            left_alone = self._running.pop(job.claim.lease, None) is None
            self._hanging -= left_alone
        if left_alone:
            return  # another is here in its place
        self._begin_queued()
        try:
            self._recorder.add([self._outcome(job, ended)])
        except BaseException as error:  # noqa: BLE001 - raised by `_work`
            self._failure = self._failure or error
        self._session.ready.set()

    def _outcome(self, job: _Job, ended: Delivered | BaseException) -> Outcome:
        """Return what a transfer came to; stop everybody where the disk says so."""
        step: TransferStep
        match ended:
            case TransferError(problem=problem):
                step = self._after(job, problem)
            case Interrupted():
                step = PutBack(utc_now(), "interrupted")
            case DiskError(reason=reason, message=message):
                # The gate waits, not the run: whoever starts anew tries at once.
                step = PutBack(utc_now(), reason)
                self._session.call(self._session.folder.failed, reason, message, time.monotonic())
                self._put_back()
            case BaseException():
                raise ended
            case _:
                step = ended.step
                if job.host is not None:
                    job.host.served(job.claim.run.key, job.began_at, Stage.FILE)
        then = ended.part.discard if isinstance(ended, Delivered) else None
        return Outcome(job.claim.run.key, job.claim.lease, step, then)

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

    def _order(self, job: _Job) -> Order:
        run, held, host = job.claim.run, job.held, job.host

        def progress(received: int) -> None:
            held.received_bytes += received  # one writer: this transfer's thread

        def expected(there: int, total_bytes: int | None) -> None:
            if host is not None:
                host.served(run.key, job.began_at)
            held.resumed_bytes, held.total_bytes = there - held.received_bytes, total_bytes

        def note_object(journal: Journal) -> bool:
            return transfers.note_object(self._session.database, job.claim, journal, utc_now())

        return Order(
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

    def _hold_up_queued(self) -> None:
        """Put back what was claimed ahead for a host that has been found in trouble since."""
        held_up: list[Outcome] = []
        with self._lock:
            queued, self._queued = list(self._queued), deque()
            for job in queued:
                pause = None if job.host is None else job.host.pause(mine=job.claim.lease)
                if pause is None:
                    self._queued.append(job)
                    continue
                due = utc_now() + timedelta(seconds=pause.wait_seconds)
                step = HeldUp(due, pause.trouble.reason, pause.trouble.for_all)
                held_up.append(Outcome(job.claim.run.key, job.claim.lease, step))
        self._recorder.add(held_up)
        self._begin_queued()

    def _is_wanted(self, key: RunKey) -> bool:
        """Return whether a run whose lease was lost may yet be saved; a failed one, by `retry`."""
        found = self._session.call(inspection.states_of, self._session.database, [key])
        return key in found and found[key] not in FINISHED - {State.FAILED}

    def _account(self, job: _Job, step: TransferStep, *, recorded: bool) -> None:
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
                self._note_saved(started)
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

    def _note_saved(self, began_at: float) -> None:
        """Note that the output folder took a file."""
        session = self._session
        if session.folder.may_be_closed:
            session.call(session.folder.succeeded, began_at)

    def _may_probe(self) -> bool:
        """Return whether the disk is to be tried again, and can be written to at all."""
        session = self._session
        if session.mode is not Mode.FOREVER:
            return False
        if not session.call(session.folder.take_probe):
            return False
        try:
            session.call(self._output.prepare)
        except DiskError as error:
            session.call(session.folder.failed, error.reason, error.message, time.monotonic())
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


def _put_back(job: _Job) -> Outcome:
    return Outcome(job.claim.run.key, job.claim.lease, PutBack(utc_now(), "interrupted"))
