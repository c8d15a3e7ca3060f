"""Asking for one claimed batch until every run of it is judged, and recording each judgement."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

from downloader.breakers import Kind, Place, Trouble, origin_of
from downloader.camb.client import CutOffError
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.jitter import jitter
from downloader.logger import get_logger
from downloader.observe.tally import request_outcome
from downloader.recorder import Judged
from downloader.rules.answer_body import NOT_FOUND
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
from downloader.rules.decisions import after_no_answer, after_verdict, while_unknown
from downloader.rules.expiry import url_expires_at, url_valid_from
from downloader.rules.pace import Recall
from downloader.rules.redaction import clean_text
from downloader.rules.states import RunKey
from downloader.rules.steps import PollFailed, PollLater, PollStep
from downloader.session import Mode
from downloader.store import inspection, pacing
from downloader.tempo import Tempo
from downloader.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from downloader.breakers import Breaker
    from downloader.camb.client import ApiClient, Reply
    from downloader.recorder import Recorder
    from downloader.rules.answers import Judgement
    from downloader.session import Session, SignOfLife
    from downloader.settings import Settings
    from downloader.store.polling import ClaimedBatch, DueRun

_log = get_logger(__name__)

REQUESTS_AT_ONCE: Final = 4

_USELESS_ENOUGH: Final = 3
"""After so many useless answers in a row `--once` says so and ends."""

_SEVERAL: Final = 3
"""So many refusals it takes at least to give up a run that has no other beside it."""

_OF_ALL: Final = frozenset({"throttled"})
"""What is never about a run."""

Refusal = Suspect | Forbidden | RetryLater


class Asking(Enum):
    """How the runs of one type may be asked for now."""

    FREELY = auto()
    ONE_BATCH = auto()  # which shows whether the endpoint is well again
    LATER = auto()
    NO_MORE = auto()  # in this call


class Others(Enum):
    """What has become of other runs, beside one that was refused."""

    ANSWERED = auto()
    REFUSED = auto()
    NONE = auto()  # there are none


class Inquiries:
    """Puts claimed batches to the API, and judges whose fault a refusal is.

    Each endpoint is a place of its own, the bulk and the single-run one of each run type; what
    keeps any answer from coming is the API's as a whole.
    """

    def __init__(
        self,
        session: Session,
        client: ApiClient,
        recorder: Recorder,
        judged: Callable[[str], None],
    ) -> None:
        self._session = session
        self._client = client
        self._throttle = Throttle(session.settings.api_requests_per_second)
        self._recorder = recorder
        self._is_judged = judged  # told of a batch, by its lease, as its last runs are recorded
        self._cut_off = threading.Event()
        self._counting = threading.Lock()
        self.tempo = Tempo(session.settings.limits)
        self.key_is_good = False  # an answer has shown it, in this process
        self.last_failure: Trouble | None = None
        self._known_good: RunKey | None = None  # the API has given a URL of it
        self.answer_seconds = math.inf
        """How long the last answer took."""
        self._api_url = clean_text(session.settings.api_url)
        self._api = session.breakers.at(Place(Kind.ENDPOINT, "the API"))
        self.found_elsewhere = 0
        """How many URLs were at a storage that is well, while another was in trouble."""
        self._only_one: _OnlyOne | None = None

    @property
    def no_answer(self) -> Trouble | None:
        """Why there was no useful answer the last time; None where there was."""
        found = self._session.troubles(Kind.ENDPOINT)
        return found[0] if found else None

    def endpoint(self, run_type: str, *, bulk: bool) -> Breaker:
        """Return the breaker of an endpoint; the single-run one is told of only by itself."""
        breakers, paths = self._session.breakers, RUN_TYPES[run_type]
        place = Place(Kind.ENDPOINT, paths.bulk_path)
        if bulk:
            return breakers.at(place, beneath=self._api)
        single = paths.single_path.partition("/")[0]
        return breakers.at(Place(Kind.ENDPOINT, single), beneath=breakers.at(place))

    def may_ask(self, run_type: str) -> Asking:
        """Return how runs of a type may be asked for now."""
        if self._api.is_open:
            return self._while_paused(self._api)
        bulk = self.endpoint(run_type, bulk=True)
        if not bulk.is_open:
            return Asking.FREELY
        single = self.endpoint(run_type, bulk=False)
        if not single.is_open and single.served_at > bulk.opened_at:
            return Asking.FREELY  # one by one
        return self._while_paused(bulk)

    def _while_paused(self, breaker: Breaker) -> Asking:
        if self._session.mode is Mode.ONCE and breaker.tries >= _USELESS_ENOUGH:
            return Asking.NO_MORE
        return Asking.ONE_BATCH if breaker.pause() is None else Asking.LATER

    def adopt(self, settings: Settings) -> None:
        """Ask by other settings from now on."""
        self._throttle.change(settings.api_requests_per_second)
        self.tempo.limits = settings.limits
        self._client.use_key(settings.api_key)

    def resolve(self, claimed: ClaimedBatch, life: SignOfLife) -> None:
        """Ask for a batch, in parts where it is refused, until every run of it is judged.

        Raises:
            CutOffError: it was cut off; what was not judged is given back.

        """
        resolution = _Resolution(claimed, life)
        life.give()
        try:
            while resolution.left and self._ask_for(resolution.left.popleft(), resolution):
                pass
            self._judge_refused(resolution)
        finally:
            self._give_back(resolution)

    def _ask_for(self, batch: Batch, resolution: _Resolution) -> bool:
        """Put one batch to its endpoint; False where the rest need not be asked for now."""
        endpoint = self.endpoint(batch.run_type, bulk=len(batch.run_ids) > 1)
        if (
            len(batch.run_ids) > 1
            and endpoint.pause() is not None
            and self.may_ask(batch.run_type) is Asking.FREELY
        ):
            resolution.take_apart(batch)  # the single-run endpoint is well meanwhile
            return True
        places = (self._api, endpoint)
        for place in places:
            if (pause := place.pause(mine=resolution.lease)) is not None:
                resolution.again_at = utc_now() + timedelta(seconds=pause.wait_seconds)
                return False
        self._throttle.wait(self._session.stopping, resolution.life.give)
        if self._session.stopping.is_set():
            return False
        for place in places:
            place.begins(resolution.lease)
        try:
            reply = self._ask(batch, resolution)
            return self._take(reply, batch, endpoint, resolution)
        finally:
            for place in places:
                place.ended(resolution.lease)

    def _ask(self, batch: Batch, resolution: _Resolution) -> Reply:
        """Ask, and count what came of it."""
        asked_at = resolution.asked_at = time.monotonic()
        judgement = None
        try:
            reply = self._answer(batch, asked_at, resolution.life)
            judgement = reply.judgement
        finally:
            resolution.seconds = time.monotonic() - asked_at
            with self._counting:
                self._session.tally.request(judgement, resolution.seconds)
        _log.debug(
            "api.answered",
            outcome=request_outcome(judgement).value,
            run_ids=batch.run_ids,
            run_type=batch.run_type,
            batch=resolution.lease,
            seconds=round(resolution.seconds, 3),
        )
        if reply.status is not None:
            self._api.succeeded(asked_at)
        return reply

    def _answer(self, batch: Batch, asked_at: float, life: SignOfLife) -> Reply:
        reply = self._client.ask(batch, partial(self._go_on, life))
        reach(At.POLL_ANSWERED)
        self.answer_seconds = time.monotonic() - asked_at
        self._session.note_clock_offset(reply.clock_offset)
        return reply

    def _go_on(self, life: SignOfLife) -> None:
        life.give()
        if self._cut_off.is_set():
            raise CutOffError

    def cut_off(self) -> None:
        """End the requests that are under way."""
        self._cut_off.set()

    def _take(self, reply: Reply, batch: Batch, endpoint: Breaker, resolution: _Resolution) -> bool:
        """Act on one answer; False where the rest of the batch need not be asked for."""
        judgement, alone = reply.judgement, len(batch.run_ids) == 1
        match judgement:
            case Answered():
                self._answered(judgement, batch, endpoint, resolution)
            case Blocked(reason=reason, message=message):
                self._session.call(self._session.key.failed, reason, message, resolution.asked_at)
                return False
            case RetryLater() if reply.status is None or judgement.error_code in _OF_ALL:
                place = self._api if reply.status is None else endpoint
                self._no_answer(judgement, batch, place, resolution)
            case _ if alone:
                # The run's own fault, or everybody's. The others will tell.
                resolution.refused.append(_Refused(batch, judgement, time.monotonic()))
                bulk = self.endpoint(batch.run_type, bulk=True)
                return bool(not bulk.is_open or resolution.answered_alone)
            case RetryLater() if not (endpoint.is_open or resolution.failed_before(batch)):
                self._no_answer(judgement, batch, endpoint, resolution)
            case _:
                # One run of it may be the culprit: the others shall not wait for it.
                resolution.bulk_refused.append(judgement)
                if endpoint.is_open:  # and this was to show whether it is well again
                    self._failed(judgement, endpoint, resolution)
                    resolution.take_apart(batch)
                else:
                    halves = [Batch(batch.run_type, half) for half in split(batch.run_ids)]
                    resolution.left.extendleft(reversed(halves))
                reach(At.POLL_SPLIT)
        return True

    def _answered(
        self, answer: Answered, batch: Batch, endpoint: Breaker, resolution: _Resolution
    ) -> None:
        session = self._session
        self.key_is_good = True
        for run_id in batch.run_ids:
            run = RunKey(batch.run_type, run_id)
            endpoint.served(run, resolution.asked_at)
            if isinstance(answer.verdicts[run_id], Finished):  # alone, others may get a 404
                self._known_good = run
        if len(batch.run_ids) > 1:
            resolution.bulk_answered = True
        else:
            resolution.answered_alone += 1
        if session.key.may_be_closed:
            # Of whenever it was asked: one answer among refusals shows that the key is good.
            session.call(session.key.succeeded, time.monotonic())
        if answer.unasked:
            _log.warning("api.unasked_runs", run_ids=answer.unasked, batch=resolution.lease)
        self._conclude(answer, batch, resolution)

    def _conclude(self, answer: Answered, batch: Batch, resolution: _Resolution) -> None:
        """Record what is known of the runs of a batch."""
        session = self._session
        now = utc_now()
        self._learn(answer, batch, resolution, now)
        steps: list[tuple[RunKey, PollStep]] = []
        spread = jitter()  # one for all of a batch: it is worth most when it stays together
        for run_id in batch.run_ids:
            run, verdict = resolution.runs[run_id], answer.verdicts[run_id]
            step = after_verdict(
                verdict,
                asked=run.asked(now),
                limits=session.settings.limits,
                now=now,
                delay_seconds=self.tempo.delay_seconds(run, now, spread),
                clock_offset=session.clock_offset,
                expires_at=url_expires_at(verdict.url) if isinstance(verdict, Finished) else None,
                valid_from=url_valid_from(verdict.url) if isinstance(verdict, Finished) else None,
            )
            if isinstance(verdict, NotYet) and verdict.unknown:
                step = while_unknown(
                    step,
                    run.unknown_since,
                    run.unknown_answers,
                    limits=session.settings.limits,
                    now=now,
                )
            steps.append((run.key, step))
        self._record(steps, resolution)
        urls = [one.url for one in answer.verdicts.values() if isinstance(one, Finished)]
        if session.breakers.any_in_trouble(Kind.HOST):
            hosts = {session.breakers.host(origin) for url in urls if (origin := origin_of(url))}
            self.found_elsewhere += any(not host.is_open for host in hosts)

    def _learn(
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
            if isinstance(decided, Recall):
                session.call(pacing.recall, session.database, decided)
                session.room.set()
                continue
            count = session.call(
                pacing.put_off,
                session.database,
                decided,
                max_poll_seconds=session.settings.limits.max_poll_seconds,
                jitter=jitter(),
            )
            self.tempo.note_put_off(decided, count)

    def _failed(
        self, judgement: Refusal, place: Breaker, resolution: _Resolution, *, at_once: bool = True
    ) -> float:
        """Note that a place refuses; return for how many seconds it is paused."""
        code, message = _told(judgement)
        pause = place.failed(
            code,
            message,
            resolution.asked_at,
            at_least_seconds=judgement.retry_after_seconds or 0.0,
            lenient=not at_once,
        )
        self.last_failure = Trouble(code, message)
        return pause

    def _no_answer(
        self, judgement: Refusal, batch: Batch, place: Breaker, resolution: _Resolution
    ) -> None:
        """Put a batch off; nothing is known of its runs, and none is blamed.

        A single failure may be over the next time: from the second in a row on it is paused.
        """
        at_once = isinstance(judgement, RetryLater) and judgement.slow_all
        pause = self._failed(judgement, place, resolution, at_once=at_once)
        code, message = _told(judgement)
        _log.info(
            "api.no_answer",
            error_code=code,
            message=message,
            run_ids=batch.run_ids,
            run_type=batch.run_type,
            batch=resolution.lease,
            seconds=round(resolution.seconds, 3),
            pause_seconds=round(pause, 1),
        )
        # Where the place is well, as far as is known, others have their answers from it.
        self._later(batch, resolution, code, message, pause, others_answered=not place.is_open)

    def _later(
        self,
        batch: Batch,
        resolution: _Resolution,
        code: str,
        message: str,
        pause_seconds: float,
        *,
        others_answered: bool,
        alone: bool = False,
    ) -> None:
        """Have a batch without an answer asked for later; see `after_no_answer`."""
        now = utc_now()
        steps: list[tuple[RunKey, PollStep]] = []
        for run_id in batch.run_ids:
            run = resolution.runs[run_id]
            step = after_no_answer(
                code,
                message,
                asked=run.asked(now),
                retry_after_seconds=pause_seconds,
                others_answered=others_answered,
                alone=alone,
                limits=self._session.settings.limits,
                now=now,
                jitter=jitter(),
            )
            steps.append((run.key, step))
        self._record(steps, resolution)

    def _judge_refused(self, resolution: _Resolution) -> None:
        """Tell runs that are refused from an API that refuses: what it says of others decides."""
        bulk = self.endpoint(resolution.run_type, bulk=True)
        singly_served = resolution.answered_alone > 1 and not resolution.bulk_answered
        if resolution.bulk_refused and singly_served and not bulk.is_open:
            # Each by itself is answered for, together they never are.
            self._failed(resolution.bulk_refused[-1], bulk, resolution)
        if not resolution.refused or self._is_over():
            return
        others = self._others(resolution)
        if others is Others.REFUSED and resolution.bulk_refused and not resolution.bulk_answered:
            self._failed(resolution.bulk_refused[-1], bulk, resolution, at_once=False)
        for one in resolution.refused:
            if others is Others.ANSWERED:
                self._refused_alone(one, resolution)
            else:
                self._refused_with_others(one, resolution, unknown=others is Others.NONE)
            if self._is_over():
                return

    def _is_over(self) -> bool:
        """Return whether nothing more is asked: the key is refused, or the service stops."""
        return self._session.key.is_open or self._session.stopping.is_set()

    def _others(self, resolution: _Resolution) -> Others:
        """Return what has become of other runs since the last of these was refused."""
        refused = {one.run_id for one in resolution.refused}
        since = max(one.at for one in resolution.refused)
        run = RunKey(resolution.run_type, resolution.refused[0].run_id)
        single = self.endpoint(resolution.run_type, bulk=False)
        bulk = self.endpoint(resolution.run_type, bulk=True)
        if any(one.serves_others(run, since) for one in (single, bulk)):
            return Others.ANSWERED
        known = self._known_good
        if known is None or known.run_id in refused:
            known = self._session.call(inspection.any_done, self._session.database)
        all_missing = all(one.is_missing for one in resolution.refused)
        if known is None or known.run_type not in RUN_TYPES:
            several = len(refused) > 1 and not all_missing
            return Others.REFUSED if several else Others.NONE
        self._throttle.wait(self._session.stopping, resolution.life.give)
        reply = self._ask(Batch(known.run_type, (known.run_id,)), resolution)
        if isinstance(reply.judgement, Answered):
            single.served(known, resolution.asked_at)
            return Others.ANSWERED
        # The results of a run that was saved long ago may be gone.
        gone = (
            known != self._known_good
            and isinstance(reply.judgement, Suspect)
            and reply.judgement.status == 404
        )
        return Others.NONE if gone and all_missing else Others.REFUSED

    def _refused_alone(self, one: _Refused, resolution: _Resolution) -> None:
        """Conclude on a run that is refused while others are answered."""
        run, judgement = resolution.runs[one.run_id], one.judgement
        if one.is_missing:
            self._missing(one, resolution, sure=True)
            return
        if not isinstance(judgement, RetryLater) and one.is_final:
            # For good, so it is asked once more: the others may have been answered by luck.
            self._throttle.wait(self._session.stopping, resolution.life.give)
            reply = self._ask(one.batch, resolution)
            if isinstance(reply.judgement, Answered):
                single = self.endpoint(resolution.run_type, bulk=False)
                self._answered(reply.judgement, one.batch, single, resolution)
                return
            if _told(reply.judgement)[0] == _told(judgement)[0]:
                self._record([(run.key, _rejected(judgement))], resolution)
                return
        code, message = _told(judgement)
        self._later(one.batch, resolution, code, message, 0.0, others_answered=True, alone=True)

    def _refused_with_others(
        self, one: _Refused, resolution: _Resolution, *, unknown: bool
    ) -> None:
        """Put off a run that is refused where nobody is known to be answered.

        `unknown` says that there is no other run to ask for.
        """
        judgement = one.judgement
        single = self.endpoint(resolution.run_type, bulk=False)
        if isinstance(judgement, Forbidden) and not self.key_is_good:  # 403 is what a bad key gets
            self._session.call(
                self._session.key.failed, "key_refused", judgement.message, resolution.asked_at
            )
        elif one.is_missing and unknown:
            self._missing(one, resolution, sure=False)
        elif unknown and one.is_final and self._stays_refused(one):
            run = resolution.runs[one.run_id]
            self._record([(run.key, _rejected(judgement))], resolution)
        else:
            self._no_answer(judgement, one.batch, single, resolution)

    def _stays_refused(self, one: _Refused) -> bool:
        """Note a refusal of the only run there is; return whether it has been so for long.

        This process remembers the last such run; one that has just begun does not know it.
        """
        run = RunKey(one.batch.run_type, one.run_id)
        if self._only_one is None or self._only_one.run != run:
            self._only_one = _OnlyOne(run, one.at)
        self._only_one.tries += 1
        lasted = one.at - self._only_one.since
        patience = self._session.settings.limits.patience_seconds
        return self._only_one.tries >= _SEVERAL and lasted >= patience

    def _missing(self, one: _Refused, resolution: _Resolution, *, sure: bool) -> None:
        """Take 404 of a run alone for "not yet", unless nothing at all was ever found there."""
        elsewhere = not self.key_is_good and any(
            isinstance(refusal, Suspect) and refusal.status == 404
            for refusal in resolution.bulk_refused
        )
        if elsewhere:
            nowhere = RetryLater(
                "api_not_found",
                f"Nothing that is asked for is found at {self._api_url} (404): check that URL, "
                "and whose runs these are.",
            )
            bulk = self.endpoint(resolution.run_type, bulk=True)
            self._no_answer(nowhere, one.batch, bulk, resolution)
            return
        answer = Answered({one.run_id: NotYet(NOT_FOUND, unknown=sure)})
        self._conclude(answer, one.batch, resolution)

    def _record(self, steps: Iterable[tuple[RunKey, PollStep]], resolution: _Resolution) -> None:
        session = self._session
        judged = [Judged(key, resolution.lease, step) for key, step in steps]
        if len(judged) == len(resolution.unjudged):
            self._is_judged(resolution.lease)
        self._recorder.record(judged)
        reach(At.POLL_RECORDED)
        for one in judged:
            key, step = one.key, one.step
            resolution.unjudged.discard(key.run_id)
            session.release(key, resolution.lease)
            if isinstance(step, PollFailed) and one.held:
                with self._recorder.between_turns():  # in which others count
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

    def _give_back(self, resolution: _Resolution) -> None:
        """Let go of what was claimed and not judged: it counts as never asked for."""
        if not resolution.unjudged:
            return
        due = resolution.again_at or utc_now()
        self._record(
            [
                (resolution.runs[run_id].key, PollLater(due, asked=False))
                for run_id in sorted(resolution.unjudged)
            ],
            resolution,
        )


@dataclass(slots=True)
class _OnlyOne:
    """A run that is refused and has no other beside it: since when (monotonic clock), how often."""

    run: RunKey
    since: float
    tries: int = 0


@dataclass(frozen=True, slots=True)
class _Refused:
    """A run that was refused by itself, at that time of the monotonic clock."""

    batch: Batch
    judgement: Refusal
    at: float

    @property
    def run_id(self) -> int:
        return self.batch.run_ids[0]

    @property
    def is_missing(self) -> bool:
        """Whether it was not found, which may mean "not yet"."""
        return isinstance(self.judgement, Suspect) and self.judgement.status == 404

    @property
    def is_final(self) -> bool:
        """Whether a run that is refused so is refused for good."""
        refusal = self.judgement
        return isinstance(refusal, Forbidden) or (
            isinstance(refusal, Suspect) and refusal.status in {400, 422}
        )


def _told(judgement: Judgement) -> tuple[str, str]:
    """Return the error code of a refusal, and its words."""
    match judgement:
        case Forbidden(message=message):
            return "refused", message
        case Blocked(reason=reason, message=message):
            return reason, message
        case Answered():
            return "", ""
        case Suspect() | RetryLater():
            return judgement.error_code, judgement.message
        case _:
            assert_never(judgement)


def _rejected(judgement: Refusal) -> PollFailed:
    return PollFailed(
        "forbidden" if isinstance(judgement, Forbidden) else "bad_run", judgement.message
    )


class _Resolution:
    """How far a claimed batch has got."""

    def __init__(self, claimed: ClaimedBatch, life: SignOfLife) -> None:
        self.life = life
        self.lease = claimed.lease
        self.lead = claimed.lead
        self.run_type = claimed.batch.run_type
        self.runs: dict[int, DueRun] = {run.key.run_id: run for run in claimed.runs}
        self.left = deque([claimed.batch])
        self.unjudged = set(self.runs)
        self.refused: list[_Refused] = []
        self.bulk_refused: list[Refusal] = []
        self.bulk_answered = False
        self.answered_alone = 0
        self.again_at: datetime | None = None  # when what is given back is asked for
        self.asked_at = 0.0  # the last time, by the monotonic clock
        self.seconds = 0.0  # that the last answer took

    def take_apart(self, batch: Batch) -> None:
        """Have the runs of a batch asked for one by one."""
        self.left.extendleft(Batch(batch.run_type, (one,)) for one in reversed(batch.run_ids))

    def failed_before(self, batch: Batch) -> bool:
        """Return whether a run of a batch was asked for without an answer the last time."""
        return any(self.runs[run_id].poll_errors for run_id in batch.run_ids)
