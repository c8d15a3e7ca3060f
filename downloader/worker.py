"""ready → done: claims runs with a URL, and sees each transfer through in a thread of its own."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import structlog

from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.gate import Trouble
from downloader.jitter import jitter
from downloader.rules.decisions import Spent, after_problem, before_transfer
from downloader.rules.states import FINISHED
from downloader.rules.steps import NewUrl, Published, PutBack, TransferFailed, TryAgain
from downloader.session import Held, Mode
from downloader.store import inspection, transfers
from downloader.transfer.engine import TransferError
from downloader.transfer.files import DiskError
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.transfer import Delivered, Order, transfer

if TYPE_CHECKING:
    from datetime import datetime

    from anyio.abc import TaskGroup

    from downloader.recorder import Recorder
    from downloader.rules.states import RunKey
    from downloader.rules.steps import ExpiryStep, TransferStep
    from downloader.session import Session
    from downloader.store.transfers import ClaimedRun, ReadyRun
    from downloader.transfer.engine import Engine
    from downloader.transfer.output import Output

_log = structlog.get_logger(__name__)

_LOOK_AGAIN_SECONDS: Final = 0.5
"""How soon what other processes made ready, or what backed off, is seen."""


class Workers:
    """Runs transfers, as many at a time as the session's `concurrency` allows."""

    def __init__(
        self, session: Session, recorder: Recorder, output: Output, engine: Engine
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._output = output
        self._engine = engine
        self._threads = anyio.CapacityLimiter(session.settings.concurrency)
        self._running = 0
        self._more_expected = False  # the last claim got all that it asked for

    async def run(self, tasks: TaskGroup) -> None:
        """Take up transfers until this call has none left, or the service stops.

        The transfers themselves run in `tasks` and may outlast this.
        """
        session = self._session
        while not session.stopping.is_set():
            last_look = session.polling_over  # what became ready before that is seen below
            if await self._take_up(tasks) == 0 and await self._is_over(last_look=last_look):
                return
            await session.ready.wait(_LOOK_AGAIN_SECONDS)

    async def _is_over(self, *, last_look: bool) -> bool:
        """Return whether this call has nothing left to do."""
        session = self._session
        if session.mode is Mode.FOREVER or self._running:
            return False
        if session.disk.trouble is not None:
            return True
        if session.mode is Mode.ONCE or session.api.trouble is not None:
            return last_look
        return not await session.in_thread(inspection.any_unfinished, session.database, RUN_TYPES)

    async def _take_up(self, tasks: TaskGroup) -> int:
        """Claim as many runs as there are free workers; return how many."""
        session, now, asked_at = self._session, utc_now(), time.monotonic()
        limit = session.concurrency.look(self._running, session.received_bytes)
        wanted = free = limit - self._running
        await session.disk.look()
        if session.disk.trouble is not None:
            session.concurrency.found(0, wanted=1)
            if self._running or not await self._may_probe():
                return 0
            free = 1
        if free <= 0:
            session.concurrency.found(0, wanted=0)
            return 0
        ready = await session.in_thread(
            transfers.claim_ready,
            session.database,
            session.owner,
            most=free,
            now=now,
            cutoff=session.cutoff,
            lease_until=session.lease_until(now),
            judge_expiry=partial(self._judge_expiry, now=now),
            expected=self._more_expected,
        )
        self._more_expected = len(ready.claimed) + ready.expired + ready.failed == free
        session.tally.refreshed += ready.expired
        session.tally.failed += ready.failed
        if ready.expired or ready.failed:
            _log.info("urls.expired_before_use", runs=ready.expired + ready.failed)
            session.ready.set()  # there may be others behind them
        session.concurrency.found(len(ready.claimed), wanted=wanted)
        if ready.claimed:
            reach(At.TRANSFER_CLAIMED)
        for claim in ready.claimed:
            self._running += 1
            tasks.start_soon(self._work, claim, asked_at)
        if ready.claimed or ready.expired:
            session.room.set()
        return len(ready.claimed)

    def _judge_expiry(self, run: ReadyRun, now: datetime) -> ExpiryStep | None:
        return before_transfer(
            run.url_expires_at,
            run.ready_at,
            Spent(run.attempts, run.refreshes, run.error_code),
            limits=self._session.settings.limits,
            now=now,
            jitter=jitter(),
        )

    async def _work(self, claim: ClaimedRun, claimed_at: float) -> None:
        """See one run, claimed at this time of the monotonic clock, through to an outcome."""
        session, key = self._session, claim.run.key
        # The lease counts from before the claim, which may have waited for the database.
        guard = Guard(session.settings.lease_seconds - (time.monotonic() - claimed_at))
        held = Held(key, claim.lease, guard)
        session.hold(held)
        started = time.monotonic()
        delivered: Delivered | None = None
        step: TransferStep
        try:
            try:
                delivered = await self._transfer(claim, held, guard)
                step = delivered.step
            except TransferError as error:
                step = after_problem(
                    error.problem,
                    Spent(claim.run.attempts, claim.run.refreshes, claim.run.error_code),
                    limits=session.settings.limits,
                    now=utc_now(),
                    jitter=jitter(),
                )
            except Interrupted:
                step = PutBack(utc_now(), "interrupted")
            except DiskError as error:
                # The gate waits, not the run: whoever starts anew tries at once.
                await session.disk.shut(Trouble(error.reason, error.message))
                step = PutBack(utc_now(), error.reason)
            except anyio.get_cancelled_exc_class():
                guard.cancel()
                self._recorder.leave(key, claim.lease, PutBack(utc_now(), "interrupted"))
                raise
            recorded = await self._recorder.record(
                key, claim.lease, step, None if delivered is None else delivered.part.discard
            )
            if isinstance(step, TransferFailed) or not (recorded or await self._is_wanted(key)):
                await session.in_thread(
                    self._output.discard_parts, {key}, proofs=not isinstance(step, TransferFailed)
                )
            await self._account(claim, step, recorded=recorded, started=started)
        finally:
            session.release(key, claim.lease)
            self._running -= 1
            session.ready.set()

    async def _is_wanted(self, key: RunKey) -> bool:
        """Return whether a run whose lease was lost is still to be saved, by whoever has it now."""
        found = await self._session.in_thread(inspection.states_of, self._session.database, [key])
        return key in found and found[key] not in FINISHED

    async def _transfer(self, claim: ClaimedRun, held: Held, guard: Guard) -> Delivered:
        run = claim.run

        def progress(received: int) -> None:
            held.received_bytes += received  # one writer: this transfer's thread

        def note_object(*, etag: str | None, total_bytes: int | None) -> bool:
            return transfers.note_object(
                self._session.database, claim, etag=etag, total_bytes=total_bytes, now=utc_now()
            )

        order = Order(
            run.key,
            run.url,
            run.etag,
            run.total_bytes,
            note_object,
            progress,
            self._session.settings.max_file_bytes,
        )
        return await anyio.to_thread.run_sync(
            transfer,
            order,
            self._output,
            self._engine,
            guard,
            limiter=self._threads,
            abandon_on_cancel=True,
        )

    async def _account(
        self, claim: ClaimedRun, step: TransferStep, *, recorded: bool, started: float
    ) -> None:
        """Count and tell an outcome."""
        session, log = self._session, _log.bind(run_id=claim.run.key.run_id)
        tally = session.tally
        if not recorded:
            log.warning("run.lease_lost")
            return
        match step:
            case Published():
                session.concurrency.saved()
                tally.done += 1
                tally.bytes += step.bytes
                log.info(
                    "run.done",
                    bytes=step.bytes,
                    seconds=round(time.monotonic() - started, 3),
                    location=step.location,
                )
                await session.disk.passed(started)
            case TryAgain():
                session.concurrency.failed(step.error_code, started)
                tally.retried += 1
                log.warning(
                    "run.attempt_failed", error_code=step.error_code, message=step.error_message
                )
            case NewUrl():
                tally.refreshed += 1
                log.info(
                    "run.needs_new_url", error_code=step.error_code, message=step.error_message
                )
                session.room.set()
            case TransferFailed():
                session.concurrency.failed(step.error_code, started)
                tally.failed += 1
                log.warning("run.failed", error_code=step.error_code, message=step.error_message)
            case PutBack():
                log.info("run.put_back", reason=step.reason)

    async def _may_probe(self) -> bool:
        """Return whether the disk is to be tried again, and can be written to at all."""
        session = self._session
        if session.mode is not Mode.FOREVER:
            return False
        if not await session.disk.take_probe():
            return False
        try:
            await session.in_thread(self._output.prepare)
        except DiskError as error:
            await session.disk.shut(Trouble(error.reason, error.message))
            return False
        return True
