"""What a call of the service has done, counted in one place: for its last word and for metrics."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from downloader.rules.answers import Answered, Blocked, Forbidden, RetryLater, Suspect
from downloader.rules.decisions import EXPIRED, REFUSED
from downloader.rules.error_codes import API_ERRORS, RUN_ERRORS, TRANSFER_ERRORS
from downloader.rules.states import State
from downloader.rules.steps import HeldUp, NewUrl, Published, PutBack, TransferFailed, TryAgain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from downloader.rules.answers import Judgement
    from downloader.rules.steps import TransferStep


class TransferOutcome(StrEnum):
    """How a transfer ended."""

    DONE = "done"  # its file is saved
    RETRY = "retry"  # to be tried again with the same URL
    NEW_URL = "new_url"  # to be tried again with a new one
    FAILED = "failed"  # and its run with it
    INTERRUPTED = "interrupted"  # given back when the service ended
    BLOCKED = "blocked"  # given back: the disk or the storage is out of reach
    LEASE_LOST = "lease_lost"  # its run was cancelled, or taken by another process


class RequestOutcome(StrEnum):
    """What a request to the API led to."""

    ANSWERED = "answered"
    REFUSED = "refused"  # the whole batch, perhaps because of one run in it
    FORBIDDEN = "forbidden"  # 403: of the key, or of a run of somebody else's
    BLOCKED = "blocked"  # the key is refused, or payment is due
    NO_ANSWER = "no_answer"  # no usable one: unreachable, throttled, broken
    CUT_OFF = "cut_off"  # by the end of the service


class Refresh(StrEnum):
    """Why a run needed a new URL."""

    UNUSED = "expired_unused"  # it expired while it waited for a transfer
    EXPIRED = "expired"  # by the storage's word
    REFUSED = "refused"
    OTHER = "other"  # it did not lead to the file


class HookOutcome(StrEnum):
    """How a hook ended."""

    DONE = "done"  # with 0
    FAILED = "failed"  # with another code, or a signal, or it could not be started
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"  # by the end of the service


HOOKS: Final = {State.DONE: "on_done", State.FAILED: "on_failed"}
"""The hook that each end of a run has, as it is told."""

_STEPS: Final = {
    Published: TransferOutcome.DONE,
    TryAgain: TransferOutcome.RETRY,
    NewUrl: TransferOutcome.NEW_URL,
    TransferFailed: TransferOutcome.FAILED,
}
_ANSWERS: Final = {
    Answered: RequestOutcome.ANSWERED,
    Suspect: RequestOutcome.REFUSED,
    Forbidden: RequestOutcome.FORBIDDEN,
    Blocked: RequestOutcome.BLOCKED,
    RetryLater: RequestOutcome.NO_ANSWER,
}
_REFRESHES: Final = {EXPIRED: Refresh.EXPIRED, REFUSED: Refresh.REFUSED}


def request_outcome(judgement: Judgement | None) -> RequestOutcome:
    """Return what a request led to; None is one that was cut off."""
    return RequestOutcome.CUT_OFF if judgement is None else _ANSWERS[type(judgement)]


@dataclass(slots=True)
class Tally:
    """What this call has done so far.

    One thread at a time counts requests, and one at a time all else; others may read.
    """

    done: int = 0
    failed: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by error code
    bytes: int = 0
    received_bytes: int = 0
    refreshed: int = 0
    retried: int = 0
    requests: int = 0

    def transfer(self, step: TransferStep | None, seconds: float) -> None:  # noqa: ARG002 - for those who count more
        """Count how a transfer ended, so long after its claim; None: its lease was lost."""
        match step:
            case Published():
                self.done += 1
                self.bytes += step.bytes
            case TryAgain():
                self.retried += 1
            case NewUrl():
                self.refreshed += 1
            case TransferFailed():
                self.failed += 1
                self.failures[step.error_code] += 1

    def expired_unused(self, *, renewed: int, failed: int) -> None:
        """Count runs whose URL expired before it was used; `failed` ones get no new one."""
        self.refreshed += renewed
        self.failed += failed
        if failed:
            self.failures[EXPIRED] += failed

    def poll_failed(self, error_code: str) -> None:
        """Count a run that has failed by the API's word, or that was given up."""
        self.failed += 1
        self.failures[error_code] += 1

    def request(self, judgement: Judgement | None, seconds: float) -> None:  # noqa: ARG002 - as above
        """Count a request to the API that took so long; None: it was cut off."""
        self.requests += 1

    def hook(self, state: State, outcome: str) -> None:
        """Count a hook of a run that ended so."""

    def rescued(self, runs: int) -> None:
        """Count runs that were taken back from a claim that ran out."""


OTHER: Final = "other"


class Counts:
    """How often each word of a closed list was counted."""

    def __init__(self, words: Iterable[str]) -> None:
        # Each, from the start on: only what was there as 0 shows the first one as an increase.
        self._counts = dict.fromkeys(sorted(words), 0)

    def count(self, word: str, number: int = 1) -> None:
        """Count a word once, or so often; one that is not of the list as `other`."""
        counts = self._counts
        counts[word if word in counts else OTHER] += number

    def read(self) -> dict[str, int]:
        """Return every word with its count."""
        return dict(self._counts)


class Histogram:
    """How long things took: how many at most so long, for each of some bounds in seconds."""

    def __init__(self, *bounds: float) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0
        """The sum."""

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.seconds += seconds

    def read(self) -> list[tuple[float, int]]:
        """Return the bounds, infinity last, each with how many took no longer."""
        counted, counts = 0, list(self._counts)
        found = []
        for bound, number in zip((*self._bounds, math.inf), counts, strict=True):
            counted += number
            found.append((bound, counted))
        return found


def _transfer_seconds() -> Histogram:
    """Return bounds from a small file nearby to a large one from far away."""
    return Histogram(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


def _request_seconds() -> Histogram:
    """Return bounds up to the deadline of a request, 45 seconds."""
    return Histogram(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 45)


@dataclass(slots=True)
class DetailedTally(Tally):
    """The same, by outcome and error code, and how long it took."""

    rescues: int = 0
    transfers: Counts = field(default_factory=lambda: Counts(TransferOutcome))
    transfer_errors: Counts = field(default_factory=lambda: Counts(TRANSFER_ERRORS | {OTHER}))
    transfer_seconds: Histogram = field(default_factory=_transfer_seconds)
    run_errors: Counts = field(default_factory=lambda: Counts(RUN_ERRORS | {OTHER}))
    refreshes: Counts = field(default_factory=lambda: Counts(Refresh))
    hooks: dict[str, Counts] = field(
        default_factory=lambda: {hook: Counts(HookOutcome) for hook in HOOKS.values()}
    )
    api_requests: Counts = field(default_factory=lambda: Counts(RequestOutcome))
    api_errors: Counts = field(default_factory=lambda: Counts(API_ERRORS | {OTHER}))
    api_seconds: Histogram = field(default_factory=_request_seconds)

    def transfer(self, step: TransferStep | None, seconds: float) -> None:
        """Count an outcome, its error, and how long a file took that is saved."""
        Tally.transfer(self, step, seconds)
        match step:
            case None:
                self.transfers.count(TransferOutcome.LEASE_LOST)
                return
            case Published():
                self.transfer_seconds.observe(seconds)
            case PutBack(reason=reason):
                interrupted = reason == TransferOutcome.INTERRUPTED
                self.transfers.count(
                    TransferOutcome.INTERRUPTED if interrupted else TransferOutcome.BLOCKED
                )
                return
            case HeldUp(error_code=code):
                self.transfer_errors.count(code)
                self.transfers.count(TransferOutcome.BLOCKED)
                return
            case NewUrl(error_code=code):
                self.refreshes.count(_REFRESHES.get(code, Refresh.OTHER))
                self.transfer_errors.count(code)
            case TryAgain(error_code=code):
                self.transfer_errors.count(code)
            case TransferFailed(error_code=code):
                self.transfer_errors.count(code)
                self.run_errors.count(code)
        self.transfers.count(_STEPS[type(step)])

    def expired_unused(self, *, renewed: int, failed: int) -> None:
        """Count them among the refreshes and the failed runs."""
        Tally.expired_unused(self, renewed=renewed, failed=failed)
        self.refreshes.count(Refresh.UNUSED, renewed)
        self.run_errors.count(EXPIRED, failed)

    def poll_failed(self, error_code: str) -> None:
        """Count its error."""
        Tally.poll_failed(self, error_code)
        self.run_errors.count(error_code)

    def request(self, judgement: Judgement | None, seconds: float) -> None:
        """Count what it led to, and how long it took unless it was cut off."""
        Tally.request(self, judgement, seconds)
        self.api_requests.count(request_outcome(judgement))
        if judgement is None:
            return
        self.api_seconds.observe(seconds)
        if isinstance(judgement, Suspect | RetryLater):
            self.api_errors.count(judgement.error_code)

    def hook(self, state: State, outcome: str) -> None:
        """Count it by its command and outcome."""
        self.hooks[HOOKS[state]].count(outcome)

    def rescued(self, runs: int) -> None:
        """Count them."""
        self.rescues += runs
