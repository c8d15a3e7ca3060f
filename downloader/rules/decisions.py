"""What becomes of a run after an answer or a transfer: counters and limits in, one step out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from downloader.rules.answer_body import NOT_FOUND, UNREADABLE, UNUSABLE_URL
from downloader.rules.answers import Failed, Finished, NotYet, Verdict
from downloader.rules.backoff import (
    attempt_delay_seconds,
    host_delay_seconds,
    no_answer_delay_seconds,
    refresh_delay_seconds,
)
from downloader.rules.expiry import AHEAD_SECONDS, EXPIRY_MARGIN_SECONDS, is_usable
from downloader.rules.states import MAX_INTEGER
from downloader.rules.steps import (
    HeldUp,
    NewUrl,
    PollFailed,
    PollLater,
    PollStep,
    TransferFailed,
    TransferStep,
    TryAgain,
    UrlReceived,
)

REFUSED: Final = "url_refused"
"""The error code that remembers: this run's last URL was refused, and not as expired."""

EXPIRED: Final = "url_expired"

NOT_YET_VALID: Final = "url_not_yet_valid"

MISSING: Final = "missing"

_MAY_COME: Final = frozenset({MISSING, REFUSED})
"""What a file that is not there yet is answered with: 404, or 403 where its absence is a secret."""

_BROKE_OFF: Final = frozenset(
    {"network", "stalled", "too_slow", "truncated", "storage_busy", "storage_error"}
)
"""What a transfer that has brought bytes may have ended with."""

_FIRST_LOOK_SECONDS: Final = 10.0
_LAST_LOOK_SECONDS: Final = 300.0

UNREACHABLE: Final = "storage_unreachable"
"""The error code of a run whose storage host cannot be reached: nobody's fault but the host's."""

UNKNOWN: Final = "unknown_run"
"""The error code of a run that the service does not know, while it answers for others."""

UNUSABLE: Final = {
    UNUSABLE_URL: "its URL cannot be used",
    UNREADABLE: "its result cannot be read",
}
"""What the answers' judge puts in place of the provider's word, and how a person says it."""

MINIMUM_ANSWERS_BEFORE_DEADLINE: Final = 3
"""A run first asked for long after it was submitted (a huge backlog, a daemon that was off, an
API that was away) is not given up because one answer said 'not yet'."""

_ENOUGH_ANSWERS: Final = 4 * MINIMUM_ANSWERS_BEFORE_DEADLINE
"""Of answers that came before the run's time, one soon after the other, it takes so many."""


MINIMUM_UNKNOWN_ANSWERS: Final = 5
"""So many answers in a row it takes to give up a run as unknown: a young one may be told late."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often to try; durations in seconds."""

    attempts: int = 8
    refreshes: int = 20
    give_up_after_seconds: float = 24 * 3600.0
    unknown_after_seconds: float = 900.0
    min_poll_seconds: float = 2.0
    max_poll_seconds: float = 300.0
    patience_seconds: float = 1800.0
    """How long a run must fail before it is to blame for what time, or its storage, may heal."""


class ProblemKind(StrEnum):
    """What a failed transfer calls for."""

    EXPIRED = "expired"  # a new URL; nothing but a refresh is spent
    REFUSED = "refused"  # a new URL once for free, then an attempt each time
    WRONG_OBJECT = "wrong_object"  # an attempt, and a new URL
    TRANSIENT = "transient"  # an attempt, with the same URL
    NOT_YET = "not_yet"  # nothing: the URL is valid only later
    UNREACHABLE = "unreachable"  # nothing: no connection to the host came about
    HOPELESS = "hopeless"  # a person: trying again would only fetch it again


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a transfer did not end in a file, in words for a person.

    `progressed` says that it has left more of the file than there was, to be gone on with,
    `lasting` that the very same object was found so at the last try.
    """

    kind: ProblemKind
    error_code: str
    error_message: str
    retry_after_seconds: float | None = None
    progressed: bool = False
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has spent so far, and the code of its last error.

    `failing_since` is when the first of its tries was that have brought nothing, `ready_at` when
    its URL came; `has_part` says whether there may be a part to go on with.
    """

    attempts: int
    refreshes: int
    error_code: str | None
    failing_since: datetime | None = None
    ready_at: datetime | None = None
    has_part: bool = False

    @property
    def gets_on(self) -> bool:
        """Whether the last try has brought bytes."""
        return self.has_part and self.failing_since is None and self.error_code in _BROKE_OFF


@dataclass(frozen=True, slots=True)
class Asked:
    """How a run has been asked for so far.

    `answers` counts the polls that had an answer about it, `poll_errors` those in a row up to the
    last that had none while others had. `early` says that it was asked for before its time.
    """

    submitted_at: datetime
    answers: int = 0
    poll_errors: int = 0
    early: bool = False


def after_verdict(
    verdict: Verdict,
    *,
    asked: Asked,
    limits: Limits,
    now: datetime,
    delay_seconds: float,
    clock_offset: timedelta,
    expires_at: datetime | None,
    valid_from: datetime | None = None,
) -> PollStep:
    """Return what an answer about one run leads to.

    `asked` is how it was before this answer; after `delay_seconds` a run that is not finished
    is asked for again. `expires_at` and `valid_from` are when the URL's life ends and begins as it
    tells, in the server's time; `clock_offset` is the server's clock less ours.
    """
    match verdict:
        case Finished():
            return UrlReceived(
                verdict.url,
                None if expires_at is None else _less(expires_at, clock_offset),
                verdict.remote_status,
                _later(valid_from, expires_at, clock_offset, limits=limits, now=now),
            )
        case Failed():
            return PollFailed(verdict.error_code, verdict.message, verdict.remote_status)
        case NotYet():
            told = "Not finished at the provider"
            if verdict.remote_status in UNUSABLE:
                told = f"No usable answer about it from the API ({UNUSABLE[verdict.remote_status]})"
            given_up = _given_up(
                told, asked.answers, asked, limits=limits, now=now, status=verdict.remote_status
            )
            if given_up is not None:
                return given_up
            return PollLater(now + timedelta(seconds=delay_seconds), verdict.remote_status)
        case _:
            assert_never(verdict)


def while_unknown(
    step: PollStep, since: datetime | None, answers: int, *, limits: Limits, now: datetime
) -> PollStep:
    """Return what becomes of a run that the service does not know, while it answers for others.

    That was so in `answers` in a row before this one, the first of them at `since`. It may only not
    be ready yet, so it is told at once and given up after a while. `step` is for any other answer.
    """
    since, answers = since or now, min(answers + 1, MAX_INTEGER)
    lasted = (now - since).total_seconds()
    told = "The API does not know this run (404), and answers for others"
    if answers > 1:
        told += f": {answers} times in {_duration(lasted)}"
    if answers >= MINIMUM_UNKNOWN_ANSWERS and lasted >= limits.unknown_after_seconds:
        return PollFailed(UNKNOWN, f"{told}; see --unknown-after.", NOT_FOUND)
    if not isinstance(step, PollLater):
        return step
    return replace(
        step,
        error_code=UNKNOWN,
        error_message=f"{told}.",
        unknown_since=since,
        unknown_answers=answers,
    )


def after_no_answer(
    error_code: str,
    error_message: str,
    *,
    asked: Asked,
    retry_after_seconds: float | None,
    others_answered: bool,
    alone: bool,
    limits: Limits,
    now: datetime,
    jitter: float,
) -> PollLater | PollFailed:
    """Return the step for a run whose request got no usable answer: later, and no blame.

    Unless `others_answered` meanwhile: then such answers in a row count, make it wait ever longer,
    have it asked for by itself, and where it was asked for `alone` they end it at its deadline.
    """
    if others_answered and alone:
        told = f"The API answers for others but not for this run: {error_message}"
        given_up = _given_up(told, asked.poll_errors, asked, limits=limits, now=now)
        if given_up is not None:
            return replace(given_up, answered=False)
    delay = no_answer_delay_seconds(
        asked.poll_errors, limits.min_poll_seconds, limits.max_poll_seconds, jitter
    )
    delay = max(delay, retry_after_seconds or 0.0)
    return PollLater(
        now + timedelta(seconds=delay),
        error_code=error_code,
        error_message=error_message,
        blamed=others_answered,
    )


def _given_up(
    told: str,
    before: int,
    asked: Asked,
    *,
    limits: Limits,
    now: datetime,
    status: str | None = None,
) -> PollFailed | None:
    """End a run that is past its deadline, if enough like this answer came `before` it.

    They are as far apart as polls are: one that came before the run's time ends it only where
    many have, so that a run that always fills up others' batches has an end as well.
    """
    age = (now - asked.submitted_at).total_seconds()
    enough = _ENOUGH_ANSWERS if asked.early else MINIMUM_ANSWERS_BEFORE_DEADLINE
    if age < limits.give_up_after_seconds or before + 1 < enough:
        return None
    return PollFailed(
        "deadline",
        f"{told.rstrip('.')}, {_duration(age)} after it was submitted "
        f"(asked {before + 1} times); see --give-up-after.",
        status,
    )


def expiry_margin_seconds(expires_at: datetime, received_at: datetime | None) -> float:
    """Return how long before its end a URL is no longer used: less for short-lived ones."""
    if received_at is None:
        return EXPIRY_MARGIN_SECONDS
    lifetime = (expires_at - received_at).total_seconds()
    return min(EXPIRY_MARGIN_SECONDS, max(0.0, lifetime * 0.2))


def before_transfer(
    expires_at: datetime | None,
    received_at: datetime | None,
    spent: Spent,
    *,
    limits: Limits,
    now: datetime,
    jitter: float,
    excused: bool = False,
) -> NewUrl | TransferFailed | None:
    """Return what becomes of a run whose URL is too old to be used, None where it can be.

    One that is `excused`, since its storage was in trouble meanwhile, costs no refresh.
    """
    if expires_at is None or is_usable(
        expires_at, now, expiry_margin_seconds(expires_at, received_at)
    ):
        return None
    if excused or spent.error_code == UNREACHABLE or spent.gets_on:
        meanwhile = "its file came" if spent.gets_on else "its storage could not be used"
        said = f"The URL expired while {meanwhile}."
        return NewUrl(now, EXPIRED, said, spent.attempts, spent.refreshes)
    return _refresh(
        spent, EXPIRED, "The URL expired before it was used.", limits=limits, now=now, jitter=jitter
    )


def while_paused(
    error_code: str,
    error_message: str,
    spent: Spent,
    *,
    submitted_at: datetime,
    lasted_seconds: float,
    wait_seconds: float,
    limits: Limits,
    now: datetime,
    new_url: bool = False,
) -> HeldUp | NewUrl | TransferFailed:
    """Return what becomes of a run whose storage host has been in trouble for `lasted_seconds`.

    It waits, and spends nothing; not for ever, but an old run is not given up for a short outage.
    With `new_url` the one that it has leads nowhere.
    """
    age = (now - submitted_at).total_seconds()
    if min(age, lasted_seconds) >= limits.give_up_after_seconds:
        said = (
            f"{error_message} It has been so for {_duration(lasted_seconds)}; see --give-up-after."
        )
        return TransferFailed(error_code, said, spent.attempts, spent.refreshes)
    due = now + timedelta(seconds=wait_seconds)
    if new_url:
        return NewUrl(due, error_code, error_message, spent.attempts, spent.refreshes)
    return HeldUp(due, error_code, error_message)


STATUS_ERRORS: Final = frozenset(
    {
        *(UNREACHABLE, REFUSED, EXPIRED, "storage_busy", "storage_error", "storage_refused"),
        *("missing", "unexpected_redirect", "too_many_redirects", "unusable_redirect"),
        *("unexpected_status", "unusable_range", "certificate"),
    }
)
"""What is told by the head of an answer, or before there is one: another head shows it is over."""

_NEVER_SENT: Final = frozenset({"unusable_url", "bad_run"})
"""What ends a transfer before anybody is asked for anything."""
_SAME_OBJECT_SECONDS: Final = 240.0
_OF_THE_URL: Final = 2
"""From so many new URLs in a row that are expired as they come on, more than the URLs is wrong."""


def could_be_of_all(problem: Problem, spent: Spent) -> bool:
    """Return whether a problem could be its storage's as well as its run's."""
    match problem.kind:
        case ProblemKind.HOPELESS | ProblemKind.NOT_YET:
            return False
        case _ if problem.progressed:
            return False
        case ProblemKind.EXPIRED:
            return spent.error_code == EXPIRED and spent.refreshes >= _OF_THE_URL
        case _:
            return problem.error_code not in _NEVER_SENT


def after_problem(
    problem: Problem,
    spent: Spent,
    *,
    limits: Limits,
    now: datetime,
    jitter: float,
    alone: bool = False,
) -> TransferStep:
    """Return what becomes of a run whose transfer met a problem.

    One that is `alone` at its storage, so that nothing tells whose fault it is, is not given up
    before it has failed for as long as its patience; nor is one whose file may yet come.
    """
    code, message = problem.error_code, problem.error_message
    attempts = min(spent.attempts + 1, MAX_INTEGER)
    match problem.kind:
        case ProblemKind.EXPIRED | ProblemKind.REFUSED if spent.gets_on:
            return NewUrl(now, EXPIRED, message, spent.attempts, spent.refreshes)
        case ProblemKind.EXPIRED:
            return _refresh(spent, code, message, limits=limits, now=now, jitter=jitter)
        case ProblemKind.REFUSED if spent.error_code != REFUSED:
            return _refresh(spent, REFUSED, message, limits=limits, now=now, jitter=jitter)
        case ProblemKind.NOT_YET:
            return _wait_for_url(problem, spent, limits=limits, now=now, jitter=jitter)
        case ProblemKind.UNREACHABLE:
            delay = host_delay_seconds(0, jitter)
            return HeldUp(now + timedelta(seconds=delay), code, message)
        case ProblemKind.HOPELESS:
            return TransferFailed(code, message, attempts, spent.refreshes)
        case ProblemKind.REFUSED | ProblemKind.WRONG_OBJECT | ProblemKind.TRANSIENT:
            pass
        case _:
            assert_never(problem.kind)
    if problem.progressed:
        attempts = spent.attempts
    elif (problem.lasting or attempts >= limits.attempts) and not (
        (alone or code in _MAY_COME) and _is_new(spent, patience_seconds(problem, limits), now)
    ):
        tries = f"attempt {attempts} of {max(attempts, limits.attempts)}"
        return TransferFailed(code, f"{message} ({tries})", attempts, spent.refreshes)
    # Tries that bring something are made one after the other, however many others there were.
    failures = 1 if problem.progressed else attempts
    delay = max(attempt_delay_seconds(failures, jitter), problem.retry_after_seconds or 0.0)
    due = now + timedelta(seconds=delay)
    if problem.kind is ProblemKind.TRANSIENT:
        return TryAgain(due, code, message, attempts)
    return NewUrl(due, code, message, attempts, spent.refreshes)


def patience_seconds(problem: Problem, limits: Limits) -> float:
    """Return for how long a problem that nothing tells the fault of may be somebody else's.

    The very same object, by its validator, is hardly what somebody serves in its place.
    """
    longest = limits.patience_seconds
    return min(longest, _SAME_OBJECT_SECONDS) if problem.lasting else longest


def _is_new(spent: Spent, patience: float, now: datetime) -> bool:
    """Tell whether a run has not failed for long; a clock that was set back makes none new."""
    failing = (now - (spent.failing_since or now)).total_seconds()
    return 0 <= failing < patience


def _wait_for_url(
    problem: Problem, spent: Spent, *, limits: Limits, now: datetime, jitter: float
) -> TransferStep:
    """Return the step for a URL that is not valid yet: another would only be younger.

    One that would be waited for longer than for anything else counts as refused.
    """
    age = max(0.0, (now - (spent.ready_at or now)).total_seconds())
    wait = problem.retry_after_seconds or min(max(age, _FIRST_LOOK_SECONDS), _LAST_LOOK_SECONDS)
    if age + wait <= limits.give_up_after_seconds:
        due = now + timedelta(seconds=wait)
        return HeldUp(due, problem.error_code, problem.error_message)
    refused = Problem(ProblemKind.REFUSED, REFUSED, problem.error_message)
    return after_problem(refused, spent, limits=limits, now=now, jitter=jitter)


def _later(
    valid_from: datetime | None,
    expires_at: datetime | None,
    clock_offset: timedelta,
    *,
    limits: Limits,
    now: datetime,
) -> datetime | None:
    """Return when a URL is valid by our clock, where that is worth waiting for; else None."""
    if valid_from is None or (expires_at is not None and expires_at <= valid_from):
        return None
    starts = _less(valid_from, clock_offset)
    if starts is None:
        return None
    wait = (starts - now).total_seconds()
    return starts if AHEAD_SECONDS < wait <= limits.give_up_after_seconds else None


def _refresh(
    spent: Spent, code: str, message: str, *, limits: Limits, now: datetime, jitter: float
) -> NewUrl | TransferFailed:
    refreshes = spent.refreshes + 1
    if refreshes > limits.refreshes:
        return TransferFailed(
            code,
            f"{message} {limits.refreshes} new URLs were asked for, and none could be used.",
            spent.attempts,
            spent.refreshes,
        )
    delay = refresh_delay_seconds(spent.refreshes, jitter)
    return NewUrl(now + timedelta(seconds=delay), code, message, spent.attempts, refreshes)


def _less(moment: datetime, offset: timedelta) -> datetime | None:
    """Return an earlier moment; None where no calendar has it, and nothing is known then."""
    try:
        return moment - offset
    except OverflowError:
        return None


def _duration(seconds: float) -> str:
    """Return a duration in the largest unit that fits."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
