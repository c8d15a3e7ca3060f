"""Asking for one claimed batch until every run of it is judged, and recording each judgement."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from downloader.camb.client import Reply
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.gate import Trouble
from downloader.jitter import jitter
from downloader.logger import get_logger
from downloader.observe.tally import request_outcome
from downloader.outage import Outage, Place
from downloader.rules.answers import (
    Answered,
    Blocked,
    Finished,
    Forbidden,
    NotYet,
    RetryLater,
    Suspect,
)
from downloader.rules.batching import Batch, split
from downloader.rules.decisions import after_error_alone, after_no_answer, after_verdict
from downloader.rules.expiry import url_expires_at
from downloader.rules.redaction import clean_text
from downloader.rules.states import RunKey, State
from downloader.rules.steps import PollFailed, PollLater, PollStep, UrlReceived
from downloader.session import Mode
from downloader.store import inspection, pacing, polling
from downloader.store.backlog import EndedRun
from downloader.tempo import Tempo
from downloader.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from downloader.camb.client import ApiClient
    from downloader.session import Session
    from downloader.settings import Settings
    from downloader.store.polling import ClaimedBatch, DueRun

_log = get_logger(__name__)

REQUESTS_AT_ONCE: Final = 4

_USELESS_ENOUGH: Final = 3
"""After so many useless answers in a row `--once` says so and ends."""

_ANSWER_DEADLINE_SECONDS: Final = 45.0
"""The whole of a request; the client's own time-outs, each for one operation, come first."""


class Inquiries:
    """Puts claimed batches to the API, at one pace for all of them."""

    def __init__(self, session: Session, client: ApiClient) -> None:
        self._session = session
        self._client = client
        self._throttle = Throttle(session.settings.api_requests_per_second)
        self._threads = anyio.CapacityLimiter(REQUESTS_AT_ONCE)
        self.tempo = Tempo(session.settings.limits)
        self.key_is_good = False  # an answer has shown it, in this process
        self.last_failure: Trouble | None = None
        self._known_good: RunKey | None = None  # the API has answered for it
        self.answer_seconds = math.inf
        """How long the last answer took."""
        self._outage = Outage(told_at_the_end=session.mode is Mode.ONCE)
        self._place = Place(clean_text(session.settings.api_url))
        self._judged: list[_Judged] = []
        self._recording = anyio.Lock()

    @property
    def gave_up(self) -> bool:
        """Whether `--once` has had enough of useless answers; the others try on, ever slower."""
        return self._session.mode is Mode.ONCE and self._throttle.failures >= _USELESS_ENOUGH

    @property
    def no_answer(self) -> Trouble | None:
        """Why there was no useful answer the last time; None where there was."""
        return self.last_failure if self._throttle.failures else None

    def adopt(self, settings: Settings) -> None:
        """Ask by other settings from now on."""
        self._throttle.change(settings.api_requests_per_second)
        self.tempo.limits = settings.limits
        self._client.use_key(settings.api_key)

    async def resolve(self, claimed: ClaimedBatch) -> None:
        """Ask for a batch, in parts where it is refused, until every run of it is judged."""
        resolution = _Resolution(claimed)
        stopping = self._session.stopping
        try:
            while resolution.left:
                await self._throttle.wait(stopping)
                if stopping.is_set():
                    break
                batch = resolution.left.popleft()
                reply = await self._ask(batch, resolution)
                if not await self._take(reply, batch, resolution) or self.gave_up:
                    break
            if not stopping.is_set():
                await self._judge_doubtful(resolution)
                await self._judge_alone(resolution)
        finally:
            with anyio.CancelScope(shield=True):
                await self._give_back(resolution)

    async def _ask(self, batch: Batch, resolution: _Resolution) -> Reply:
        """Ask, and count what came of it."""
        asked_at = resolution.asked_at = time.monotonic()
        judgement = None
        try:
            reply = await self._answer(batch, asked_at)
            judgement = reply.judgement
        finally:
            resolution.seconds = time.monotonic() - asked_at
            self._session.tally.request(judgement, resolution.seconds)
        _log.debug(
            "api.answered",
            outcome=request_outcome(judgement).value,
            run_ids=batch.run_ids,
            run_type=batch.run_type,
            batch=resolution.lease,
            seconds=round(resolution.seconds, 3),
        )
        return reply

    async def _answer(self, batch: Batch, asked_at: float) -> Reply:
        with anyio.move_on_after(_ANSWER_DEADLINE_SECONDS):
            reply = await anyio.to_thread.run_sync(
                self._client.ask, batch, limiter=self._threads, abandon_on_cancel=True
            )
            reach(At.POLL_ANSWERED)
            self.answer_seconds = time.monotonic() - asked_at
            self._session.note_clock_offset(reply.clock_offset)
            return reply
        said = f"The API did not answer in {_ANSWER_DEADLINE_SECONDS:g} seconds."
        return Reply(RetryLater("api_unreachable", said))

    async def _take(self, reply: Reply, batch: Batch, resolution: _Resolution) -> bool:
        """Act on one answer; False where the rest of the batch need not be asked for."""
        doubtful = self._place.doubts(reply)
        match reply.judgement:
            case Answered() if doubtful:
                resolution.doubtful.append((batch, reply.judgement))
            case Answered():
                await self._answered(reply.judgement, batch, resolution)
            case Suspect() | Forbidden() if len(batch.run_ids) > 1:
                # One run of it may be the culprit: the others shall not wait for it.
                halves = [Batch(batch.run_type, half) for half in split(batch.run_ids)]
                resolution.left.extendleft(reversed(halves))
                reach(At.POLL_SPLIT)
            case Forbidden() | Suspect() | RetryLater(error_code="server_error"):
                # Refused alone: the run's own fault, or everybody's. The others will tell.
                resolution.refused_alone.append((batch, reply.judgement))
            case Blocked(reason=reason, message=message):
                await self._session.api.shut(Trouble(reason, message))
                return False
            case RetryLater():
                await self._no_answer(reply.judgement, batch, resolution)
        return True

    async def _answered(self, answer: Answered, batch: Batch, resolution: _Resolution) -> None:
        session = self._session
        self._useful()
        self.key_is_good = resolution.answered = True
        self._known_good = RunKey(batch.run_type, batch.run_ids[0])
        # Of whenever it was asked: one answer among refusals shows that the key is good.
        await session.api.passed(time.monotonic())
        if answer.unasked:
            _log.warning("api.unasked_runs", run_ids=answer.unasked, batch=resolution.lease)
        now = utc_now()
        await self._learn(answer, batch, resolution, now)
        steps: list[tuple[RunKey, PollStep]] = []
        spread = jitter()  # one for all of a batch: it is worth most when it stays together
        for run_id in batch.run_ids:
            run, verdict = resolution.runs[run_id], answer.verdicts[run_id]
            step = after_verdict(
                verdict,
                polls=run.polls,
                submitted_at=run.submitted_at,
                limits=session.settings.limits,
                now=now,
                delay_seconds=self.tempo.delay_seconds(run, now, spread),
                clock_offset=session.clock_offset,
                expires_at=url_expires_at(verdict.url) if isinstance(verdict, Finished) else None,
            )
            steps.append((run.key, step))
        await self._record(steps, resolution)
        if any(isinstance(verdict, Finished) for verdict in answer.verdicts.values()):
            session.ready.set()

    async def _learn(
        self, answer: Answered, batch: Batch, resolution: _Resolution, now: datetime
    ) -> None:
        """Conclude from an answer what need not be asked just now, and what is worth asking."""
        session = self._session
        asked = [resolution.runs[run_id] for run_id in batch.run_ids]
        finished = {
            run.key for run in asked if not isinstance(answer.verdicts[run.key.run_id], NotYet)
        }
        for decided in self.tempo.read(asked, finished, now, resolution.lead):
            if session.mode is Mode.ONCE:
                continue  # asks for everything that is due
            count = await session.in_thread(
                pacing.put_off,
                session.database,
                decided,
                max_poll_seconds=session.settings.limits.max_poll_seconds,
                jitter=jitter(),
            )
            self.tempo.note_put_off(decided, count)

    def _useful(self) -> None:
        """Note an answer that was of use."""
        self._throttle.succeeded()
        self._outage.over()

    async def _no_answer(self, answer: RetryLater, batch: Batch, resolution: _Resolution) -> None:
        """Put a batch off; nothing is known of its runs, and none is blamed."""
        pause = self._throttle.failed(
            resolution.asked_at,
            answer.retry_after_seconds,
            slow_all=answer.slow_all,
            jitter=jitter(),
        )
        self.last_failure = Trouble(answer.error_code, answer.message)
        self._outage.failed(answer, resolution.asked_at, self._throttle.failures, pause)
        _log.info(
            "api.no_answer",
            error_code=answer.error_code,
            message=answer.message,
            run_ids=batch.run_ids,
            run_type=batch.run_type,
            batch=resolution.lease,
            seconds=round(resolution.seconds, 3),
            pause_seconds=round(pause, 1),
        )
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

    async def _judge_doubtful(self, resolution: _Resolution) -> None:
        """Take what 404 says of runs alone for an answer, if anything was ever found there."""
        for batch, judgement in resolution.doubtful:
            if self._place.found:
                await self._answered(judgement, batch, resolution)
            else:
                await self._no_answer(self._place.not_found, batch, resolution)

    async def _judge_alone(self, resolution: _Resolution) -> None:
        """Tell runs that are refused from an API that refuses: what it says of others decides."""
        if not resolution.refused_alone:
            return
        others_are_fine = resolution.answered or await self._answers_for_others(resolution)
        if others_are_fine:
            self._useful()
        for batch, judgement in resolution.refused_alone:
            run = resolution.runs[batch.run_ids[0]]
            if not others_are_fine:
                if isinstance(judgement, Forbidden):  # 403 is also what a bad key gets
                    await self._session.api.shut(Trouble("key_refused", judgement.message))
                    return
                answer = RetryLater(judgement.error_code, judgement.message)
                await self._no_answer(answer, batch, resolution)
                if self.gave_up:
                    return
                continue
            step: PollStep
            if isinstance(judgement, Forbidden):
                step = PollFailed("forbidden", judgement.message)
            else:
                step = after_error_alone(
                    judgement.error_code,
                    judgement.message,
                    polls=run.polls,
                    submitted_at=run.submitted_at,
                    limits=self._session.settings.limits,
                    now=utc_now(),
                    jitter=jitter(),
                )
            await self._record([(run.key, step)], resolution)

    async def _answers_for_others(self, resolution: _Resolution) -> bool:
        """Ask anew for a run that was answered or saved before: known to be good."""
        known = self._known_good
        if known is None or known.run_id in resolution.runs:
            known = await self._session.in_thread(inspection.any_done, self._session.database)
        if known is None or known.run_type not in RUN_TYPES:
            return False
        await self._throttle.wait(self._session.stopping)
        reply = await self._ask(Batch(known.run_type, (known.run_id,)), resolution)
        return isinstance(reply.judgement, Answered)

    async def _record(
        self, steps: Iterable[tuple[RunKey, PollStep]], resolution: _Resolution
    ) -> None:
        session = self._session
        judged = [_Judged(key, resolution.lease, step) for key, step in steps]
        self._judged += judged
        async with self._recording:
            await self._commit_judged()
        reach(At.POLL_RECORDED)
        for one in judged:
            key, step = one.key, one.step
            resolution.unjudged.discard(key.run_id)
            session.release(key, resolution.lease)
            if isinstance(step, PollFailed) and one.held:
                session.tally.poll_failed(step.error_code)
                _log.warning(
                    "run.failed",
                    run_id=key.run_id,
                    run_type=key.run_type,
                    batch=resolution.lease,
                    seconds=round(resolution.seconds, 3),
                    error_code=step.error_code,
                    message=step.error_message,
                )

    async def _commit_judged(self) -> None:
        """Commit what is judged: whatever is while one commit runs goes into the next together."""
        group, self._judged = self._judged, []
        if not group:
            return
        now = utc_now()
        try:
            held = await self._session.in_thread(
                polling.record_polls,
                self._session.database,
                [(one.key, one.lease, one.step) for one in group],
                now,
            )
        except BaseException:
            self._judged = group + self._judged
            raise
        for one, still_held in zip(group, held, strict=True):
            one.held = still_held
        self._session.note_urls(
            sum(one.held and isinstance(one.step, UrlReceived) for one in group)
        )
        # Here and not by those who asked: they may be cut off before they have their turn.
        self._session.note_ended(
            [
                EndedRun(one.key, State.FAILED, now)
                for one in group
                if one.held and isinstance(one.step, PollFailed)
            ]
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


@dataclass(slots=True)
class _Judged:
    """What is known of one run, to be recorded if it is `held` still."""

    key: RunKey
    lease: str
    step: PollStep
    held: bool = False


class _Resolution:
    """How far a claimed batch has got."""

    def __init__(self, claimed: ClaimedBatch) -> None:
        self.lease = claimed.lease
        self.lead = claimed.lead
        self.runs: dict[int, DueRun] = {run.key.run_id: run for run in claimed.runs}
        self.left = deque([claimed.batch])
        self.unjudged = set(self.runs)
        self.doubtful: list[tuple[Batch, Answered]] = []
        self.refused_alone: list[tuple[Batch, Forbidden | Suspect | RetryLater]] = []
        self.answered = False
        self.asked_at = 0.0  # the last time, by the monotonic clock
        self.seconds = 0.0  # that the last answer took
