"""pending → ready: asks for the runs that are due, in batches, just in time for the workers."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import structlog

from downloader.camb.client import Reply
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.rules.answers import (
    Answered,
    Blocked,
    Finished,
    Forbidden,
    RetryLater,
    Suspect,
)
from downloader.rules.backoff import probe_delay_seconds
from downloader.rules.batching import MAX_BATCH, Batch, claim_size, split
from downloader.rules.decisions import after_no_answer, after_verdict
from downloader.rules.expiry import url_expires_at
from downloader.rules.steps import PollFailed, PollLater, PollStep
from downloader.session import Held, Mode, Trouble, jitter
from downloader.store import blocks, inspection, polling, transfers
from downloader.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from downloader.camb.client import ApiClient
    from downloader.rules.states import RunKey
    from downloader.session import Session
    from downloader.store.polling import ClaimedBatch, DueRun

_log = structlog.get_logger(__name__)

REQUESTS_AT_ONCE: Final = 4
BACKLOG_PER_WORKER: Final = 2
"""URLs asked for ahead of need: one that waits in a queue is one that dies there."""

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon runs submitted by another process are seen."""

_ANSWER_DEADLINE_SECONDS: Final = 45.0
"""The whole of a request; the client's own time-outs, each for one operation, come first."""

_UNREACHABLE_ENOUGH: Final = 3
"""After so many useless answers in a row `--once` says so and ends."""


class Poller:
    """Asks for results while the service runs."""

    def __init__(self, session: Session, client: ApiClient) -> None:
        self._session = session
        self._client = client
        self._throttle = Throttle()
        self._threads = anyio.CapacityLimiter(REQUESTS_AT_ONCE)
        self._asking: dict[str, int] = {}  # runs of each batch under way, by lease
        self._key_is_good = False  # an answer has shown it, in this process
        self._last_failure: Trouble | None = None
        self._no_room = False  # what was not claimed waits for workers, not for its time

    async def run(self) -> None:
        """Poll until there is nothing left to ask (`--once`), or the service stops."""
        session = self._session
        async with anyio.create_task_group() as requests:
            while not session.stopping.is_set():
                if session.api_trouble is not None and not await self._may_probe():
                    break
                batches = await self._claim()
                for one in batches:
                    requests.start_soon(self._resolve, one)
                if batches:
                    continue
                if session.mode is Mode.ONCE and not self._asking and not await self._any_left():
                    break
                await session.room.wait(
                    _LOOK_AGAIN_SECONDS if self._no_room else await self._pause_seconds()
                )
        if session.mode is Mode.ONCE and self._last_failure and not self._key_is_good:
            session.api_trouble = session.api_trouble or self._last_failure
        session.polling_over = True
        session.ready.set()

    async def _any_left(self) -> bool:
        """Return whether `--once` has runs to ask for that only wait for room."""
        due = await self._next_due_at()
        return due is not None and due <= self._session.started_at

    async def _next_due_at(self) -> datetime | None:
        return await self._session.in_thread(polling.next_due_at, self._session.database, RUN_TYPES)

    async def _pause_seconds(self) -> float:
        """Return how long nothing can be due: short, since other processes submit too."""
        due = await self._next_due_at()
        if due is None:
            return _LOOK_AGAIN_SECONDS
        return min(_LOOK_AGAIN_SECONDS, max(0.02, (due - utc_now()).total_seconds()))

    async def _claim(self) -> list[ClaimedBatch]:
        """Claim as many runs as the workers can soon use and requests are free for."""
        session, now = self._session, utc_now()
        free = REQUESTS_AT_ONCE - len(self._asking)
        if session.api_trouble is not None:
            free = min(free, 1 - len(self._asking))  # one request shows whether it goes on
        self._no_room = free <= 0
        if self._no_room:
            return []
        waiting = await session.in_thread(transfers.count_ready, session.database, now)
        appetite = session.settings.concurrency * BACKLOG_PER_WORKER
        room = appetite - waiting - sum(self._asking.values())
        self._no_room = room <= 0
        if self._no_room:
            return []
        limits = session.settings.limits
        batches = await session.in_thread(
            polling.claim_due,
            session.database,
            session.owner,
            RUN_TYPES,
            most=claim_size(room, free * MAX_BATCH),
            now=now,
            cutoff=session.cutoff or now,
            soon_seconds=limits.min_poll_seconds,
            lease_until=session.lease_until(now),
        )
        for one in batches:
            self._asking[one.lease] = len(one.runs)
            for run in one.runs:
                session.hold(Held(run.key, one.lease))
        return batches

    async def _resolve(self, claimed: ClaimedBatch) -> None:
        """Ask for a batch, in parts where it is refused, until every run of it is judged."""
        resolution = _Resolution(claimed)
        try:
            while resolution.left and not self._session.stopping.is_set():
                batch = resolution.left.popleft()
                await self._throttle.wait(self._session.stopping)
                if self._session.stopping.is_set():
                    resolution.left.appendleft(batch)
                    break
                reply = await self._ask(batch)
                self._session.note_clock_offset(reply.clock_offset)
                if not await self._take(reply, batch, resolution):
                    break
            await self._judge_forbidden(resolution)
        finally:
            with anyio.CancelScope(shield=True):
                await self._give_back(resolution)
            self._asking.pop(claimed.lease, None)
            self._session.room.set()

    async def _ask(self, batch: Batch) -> Reply:
        self._session.tally.requests += 1
        with anyio.move_on_after(_ANSWER_DEADLINE_SECONDS):
            return await anyio.to_thread.run_sync(
                self._client.ask, batch, limiter=self._threads, abandon_on_cancel=True
            )
        return Reply(
            RetryLater(
                "api_unreachable",
                f"The API did not answer in {_ANSWER_DEADLINE_SECONDS:g} seconds.",
            )
        )

    async def _take(self, reply: Reply, batch: Batch, resolution: _Resolution) -> bool:
        """Act on one answer; False where the rest of the batch need not be asked for."""
        match reply.judgement:
            case Answered():
                await self._answered(reply.judgement, batch, resolution)
            case Suspect() | Forbidden() if len(batch.run_ids) > 1:
                # One run of it may be the culprit: the others shall not wait for it.
                halves = [Batch(batch.run_type, half) for half in split(batch.run_ids)]
                resolution.left.extendleft(reversed(halves))
            case Forbidden():
                resolution.forbidden.extend(batch.run_ids)
                resolution.forbidden_message = reply.judgement.message
            case Suspect():
                await self._no_answer(
                    RetryLater(reply.judgement.error_code, reply.judgement.message),
                    batch,
                    resolution,
                )
            case Blocked():
                await self._block(reply.judgement.reason, reply.judgement.message)
                return False
            case RetryLater():
                await self._no_answer(reply.judgement, batch, resolution)
        return True

    async def _answered(self, answer: Answered, batch: Batch, resolution: _Resolution) -> None:
        session = self._session
        self._throttle.succeeded()
        if session.api_trouble is not None or not self._key_is_good:
            await self._unblock()  # also what an earlier process was blocked by
        self._key_is_good = resolution.answered = True
        if answer.unasked:
            _log.warning("api.unasked_runs", run_ids=answer.unasked)
        now = utc_now()
        steps: list[tuple[RunKey, PollStep]] = []
        for run_id in batch.run_ids:
            run, verdict = resolution.runs[run_id], answer.verdicts[run_id]
            step = after_verdict(
                verdict,
                polls=run.polls,
                submitted_at=run.submitted_at,
                limits=session.settings.limits,
                now=now,
                jitter=jitter(),
                clock_offset=session.clock_offset,
                expires_at=url_expires_at(verdict.url) if isinstance(verdict, Finished) else None,
            )
            steps.append((run.key, step))
        await self._record(steps, resolution)
        if any(isinstance(verdict, Finished) for verdict in answer.verdicts.values()):
            session.ready.set()

    async def _no_answer(self, answer: RetryLater, batch: Batch, resolution: _Resolution) -> None:
        """Put a batch off; nothing is known of its runs, and none is blamed."""
        pause = self._throttle.failed(
            answer.retry_after_seconds, slow_all=answer.slow_all, jitter=jitter()
        )
        _log.warning(
            "api.no_answer",
            error_code=answer.error_code,
            message=answer.message,
            run_ids=batch.run_ids,
            pause_seconds=round(pause, 1),
        )
        self._last_failure = Trouble(answer.error_code, answer.message)
        steps: list[tuple[RunKey, PollStep]] = []
        for run_id in batch.run_ids:
            run = resolution.runs[run_id]
            step = after_no_answer(
                answer.error_code,
                answer.message,
                polls=run.polls,
                retry_after_seconds=answer.retry_after_seconds,
                limits=self._session.settings.limits,
                now=utc_now(),
                jitter=jitter(),
            )
            steps.append((run.key, step))
        await self._record(steps, resolution)
        if self._session.mode is Mode.ONCE and self._throttle.failures >= _UNREACHABLE_ENOUGH:
            self._session.api_trouble = self._last_failure
            self._session.room.set()

    async def _judge_forbidden(self, resolution: _Resolution) -> None:
        """Tell runs that belong to somebody else from a key that opens nothing (403 is both)."""
        if not resolution.forbidden:
            return
        if not (resolution.answered or self._key_is_good or await self._key_opens_others()):
            await self._block("key_refused", resolution.forbidden_message)
            return
        await self._record(
            [
                (
                    resolution.runs[run_id].key,
                    PollFailed("forbidden", resolution.forbidden_message, None),
                )
                for run_id in resolution.forbidden
            ],
            resolution,
        )

    async def _key_opens_others(self) -> bool:
        """Ask for a run that was saved before: known to be good, it tells of the key alone."""
        known = await self._session.in_thread(inspection.any_done, self._session.database)
        if known is None or known.run_type not in RUN_TYPES:
            return False
        await self._throttle.wait(self._session.stopping)
        reply = await self._ask(Batch(known.run_type, (known.run_id,)))
        self._key_is_good = isinstance(reply.judgement, Answered)
        return self._key_is_good

    async def _record(
        self, steps: Iterable[tuple[RunKey, PollStep]], resolution: _Resolution
    ) -> None:
        steps = list(steps)
        session = self._session
        await session.in_thread(
            polling.record_polls, session.database, resolution.lease, steps, utc_now()
        )
        for key, step in steps:
            resolution.unjudged.discard(key.run_id)
            session.release(key, resolution.lease)
            if isinstance(step, PollFailed):
                session.tally.failed += 1
                _log.warning(
                    "run.failed",
                    run_id=key.run_id,
                    error_code=step.error_code,
                    message=step.error_message,
                )

    async def _give_back(self, resolution: _Resolution) -> None:
        """Let go of what was claimed and not judged: it counts as never asked for."""
        if not resolution.unjudged:
            return
        now = utc_now()
        await self._record(
            [
                (resolution.runs[run_id].key, PollLater(now, asked=False))
                for run_id in sorted(resolution.unjudged)
            ],
            resolution,
        )

    async def _block(self, reason: str, message: str) -> None:
        """Stop the service as a whole, for everybody on this database, and say so once."""
        session, now = self._session, utc_now()
        known = await session.in_thread(blocks.current_blocks, session.database)
        probes = max((one.probes for one in known if one.scope == "api"), default=0)
        until = now + timedelta(seconds=probe_delay_seconds(probes, jitter()))
        first = await session.in_thread(
            blocks.block, session.database, "api", reason, message, now=now, until=until
        )
        if session.api_trouble is None and (first or session.mode is not Mode.FOREVER):
            _log.error("service.blocked", reason=reason, message=message)
        session.api_trouble = Trouble(reason, message)

    async def _unblock(self) -> None:
        session = self._session
        session.api_trouble = None
        if await session.in_thread(blocks.unblock, session.database, "api"):
            _log.warning("service.unblocked")

    async def _may_probe(self) -> bool:
        """Wait until a blocked service is to be tried again; False where this call ends instead."""
        session = self._session
        if session.mode is not Mode.FOREVER:
            return False
        while not session.stopping.is_set():
            known = await session.in_thread(blocks.current_blocks, session.database)
            until = next((one.until for one in known if one.scope == "api"), None)
            if until is None:  # another process has found that it goes on
                session.api_trouble = None
                return True
            seconds = (until - utc_now()).total_seconds()
            if seconds <= 0:
                return True
            await session.room.wait(min(seconds, _LOOK_AGAIN_SECONDS))
        return False


class _Resolution:
    """How far a claimed batch has got."""

    def __init__(self, claimed: ClaimedBatch) -> None:
        self.lease = claimed.lease
        self.runs: dict[int, DueRun] = {run.key.run_id: run for run in claimed.runs}
        self.left = deque([claimed.batch])
        self.unjudged = set(self.runs)
        self.forbidden: list[int] = []
        self.forbidden_message = ""
        self.answered = False
