"""What becomes of a run: every kind of answer and problem, and the limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.answers import Failed, Finished, NotYet
from downloader.rules.decisions import (
    EXPIRED,
    MISSING,
    REFUSED,
    UNREACHABLE,
    Asked,
    Limits,
    Problem,
    ProblemKind,
    Spent,
    after_no_answer,
    after_problem,
    after_verdict,
    before_transfer,
    expiry_margin_seconds,
    while_paused,
    while_unknown,
)
from downloader.rules.steps import (
    HeldUp,
    NewUrl,
    PollFailed,
    PollLater,
    TransferFailed,
    TryAgain,
    UrlReceived,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIMITS = Limits(attempts=3, refreshes=2, give_up_after_seconds=3600)
SPENT = Spent(attempts=0, refreshes=0, error_code=None)


def verdict_step(
    verdict: Finished | NotYet | Failed,
    *,
    answers: int = 0,
    age: float = 0,
    early: bool = False,
    offset: float = 0,
    expires_at: datetime | None = None,
) -> object:
    """Judge a verdict about a run of this age, in seconds."""
    return after_verdict(
        verdict,
        asked=Asked(NOW - timedelta(seconds=age), answers, early=early),
        limits=LIMITS,
        now=NOW,
        delay_seconds=2,
        clock_offset=timedelta(seconds=offset),
        expires_at=expires_at,
    )


def problem(
    kind: ProblemKind,
    code: str = "some_code",
    *,
    retry_after_seconds: float | None = None,
    progressed: bool = False,
    lasting: bool = False,
) -> Problem:
    """Return a problem of this kind."""
    said = "Something happened."
    return Problem(kind, code, said, retry_after_seconds, progressed, lasting)


def test_a_url_is_kept_with_its_expiry_in_local_time() -> None:
    """The expiry that the URL tells in the server's time is kept in ours."""
    expires_at = NOW + timedelta(seconds=60)
    step = verdict_step(Finished("https://x/y", "SUCCESS"), offset=10, expires_at=expires_at)
    assert step == UrlReceived("https://x/y", NOW + timedelta(seconds=50), "SUCCESS")
    assert verdict_step(Finished("https://x/y", None)) == UrlReceived("https://x/y", None, None)


def test_the_providers_failure_is_final() -> None:
    """What failed at the provider fails here, with the provider's word."""
    step = verdict_step(Failed("provider_failed", "TIMEOUT", "It took too long."))
    assert step == PollFailed("provider_failed", "It took too long.", "TIMEOUT")


@pytest.mark.parametrize(
    ("age", "answers", "early", "given_up"),
    [
        (0, 0, False, False),
        (3599, 50, False, False),
        (3600, 2, False, True),
        (10**6, 0, False, False),  # an outage, however long: nobody has said anything of it yet
        (10**6, 1, False, False),
        (10**6, 2, False, True),
        (10**6, 2, True, False),  # filled up others' batches within the same second, perhaps
        (10**6, 11, True, True),
    ],
)
def test_the_deadline(age: float, answers: int, early: bool, given_up: bool) -> None:  # noqa: FBT001 - a table
    """A run is given up after its time, but not before three answers, each after a pause."""
    step = verdict_step(NotYet("PENDING"), age=age, answers=answers, early=early)
    if given_up:
        assert isinstance(step, PollFailed)
        assert (step.error_code, step.answered) == ("deadline", True)
        assert "--give-up-after" in step.error_message
        assert f"(asked {answers + 1} times)" in step.error_message
    else:
        assert isinstance(step, PollLater)
        assert step.asked


def no_answer_step(
    poll_errors: int = 0,
    *,
    age: float = 10**6,
    retry_after: float | None = None,
    others_answered: bool = True,
    alone: bool = True,
) -> PollLater | PollFailed:
    """Judge a request that got no answer for a run of this age, in seconds."""
    return after_no_answer(
        "throttled",
        "Busy.",
        asked=Asked(NOW - timedelta(seconds=age), 50, poll_errors),
        retry_after_seconds=retry_after,
        others_answered=others_answered,
        alone=alone,
        limits=LIMITS,
        now=NOW,
        jitter=0.5,
    )


def test_no_answer_blames_no_run() -> None:
    """Without a usable answer a run is asked for later, not before the server's own time."""
    step = no_answer_step(age=0, retry_after=90, others_answered=False)
    assert step == PollLater(
        NOW + timedelta(seconds=90), error_code="throttled", error_message="Busy."
    )


@pytest.mark.parametrize(
    ("poll_errors", "options", "given_up"),
    [
        (2, {}, True),
        (1, {}, False),
        (2, {"age": 3599}, False),
        (500, {"others_answered": False}, False),  # everybody's trouble
        (500, {"alone": False}, False),  # another of its batch may be the culprit
    ],
)
def test_no_answer_where_others_have_one(
    poll_errors: int,
    options: dict[str, Any],
    given_up: bool,  # noqa: FBT001 - a table
) -> None:
    """A run past its deadline that gets none alone, while others do, is given up at the third."""
    step = no_answer_step(poll_errors, **options)
    if given_up:
        assert isinstance(step, PollFailed)
        assert (step.error_code, step.answered) == ("deadline", False)
        assert "answers for others but not for this run: Busy" in step.error_message
    else:
        assert isinstance(step, PollLater)
        assert step.blamed is options.get("others_answered", True)


def test_only_errors_in_a_row_make_a_run_wait() -> None:
    """After one error a run is asked for as soon as any, however often it was before."""
    assert no_answer_step(0, age=40) == PollLater(
        NOW + timedelta(seconds=2), error_code="throttled", error_message="Busy.", blamed=True
    )
    later = no_answer_step(3, age=40)
    assert isinstance(later, PollLater)
    assert later.next_attempt_at == NOW + timedelta(seconds=2 * 1.6**3)


@pytest.mark.parametrize(
    ("lifetime", "margin"), [(3600, 10), (60, 10), (10, 2), (1, 0.2), (0, 0), (-5, 0)]
)
def test_the_margin_before_expiry(lifetime: float, margin: float) -> None:
    """A short-lived URL is used for most of its life, a long-lived one until ten seconds before."""
    expires_at = NOW + timedelta(seconds=lifetime)
    assert expiry_margin_seconds(expires_at, NOW) == pytest.approx(margin)
    assert expiry_margin_seconds(expires_at, None) == 10


def test_before_transfer() -> None:
    """A URL that is too old to be used costs a refresh; the first new one is asked for at once."""
    received_at = NOW - timedelta(seconds=3600)
    usable = NOW + timedelta(seconds=11)
    too_old = NOW + timedelta(seconds=9)
    judged = [
        before_transfer(expires_at, received_at, SPENT, limits=LIMITS, now=NOW, jitter=0.5)
        for expires_at in (None, usable, too_old)
    ]
    assert judged[:2] == [None, None]
    assert judged[2] == NewUrl(NOW, EXPIRED, "The URL expired before it was used.", 0, 1)
    spent = Spent(attempts=1, refreshes=2, error_code=EXPIRED)
    last = before_transfer(too_old, received_at, spent, limits=LIMITS, now=NOW, jitter=0.5)
    assert isinstance(last, TransferFailed)
    assert (last.error_code, last.attempts, last.refreshes) == (EXPIRED, 1, 2)


@pytest.mark.parametrize(
    ("kind", "error_code", "expected"),
    [
        (ProblemKind.EXPIRED, None, (NewUrl, 0, 1)),
        (ProblemKind.REFUSED, None, (NewUrl, 0, 1)),
        (ProblemKind.REFUSED, "network", (NewUrl, 0, 1)),
        (ProblemKind.REFUSED, REFUSED, (NewUrl, 1, 0)),
        (ProblemKind.WRONG_OBJECT, None, (NewUrl, 1, 0)),
        (ProblemKind.TRANSIENT, None, (TryAgain, 1, None)),
    ],
)
def test_what_a_problem_spends(
    kind: ProblemKind, error_code: str | None, expected: tuple[type, int | None, int | None]
) -> None:
    """Expiry spends a refresh, a first refusal too; everything else spends an attempt."""
    spent = Spent(attempts=0, refreshes=0, error_code=error_code)
    step = after_problem(problem(kind), spent, limits=LIMITS, now=NOW, jitter=0.5)
    found = (type(step), getattr(step, "attempts", None), getattr(step, "refreshes", None))
    assert found == expected


def test_a_host_out_of_reach_spends_nothing() -> None:
    """A run whose storage gives no connection stays ready, even after its last attempt but one."""
    spent = Spent(attempts=2, refreshes=2, error_code="network")
    step = after_problem(
        problem(ProblemKind.UNREACHABLE), spent, limits=LIMITS, now=NOW, jitter=0.5
    )
    assert step == HeldUp(NOW + timedelta(seconds=1), "some_code", "Something happened.")


@pytest.mark.parametrize(
    ("age", "down", "given_up"),
    [(0, 0, False), (10**6, 3599, False), (3599, 10**6, False), (3600, 3600, True)],
)
def test_waiting_for_a_host(age: float, down: float, given_up: bool) -> None:  # noqa: FBT001 - a table
    """A run is given up when its storage has been away for all its time, not for an outage's."""
    step = while_paused(
        UNREACHABLE,
        "Nobody is there.",
        SPENT,
        submitted_at=NOW - timedelta(seconds=age),
        lasted_seconds=down,
        wait_seconds=7,
        limits=LIMITS,
        now=NOW,
    )
    if given_up:
        said = "Nobody is there. It has been so for 60 minutes; see --give-up-after."
        assert step == TransferFailed(UNREACHABLE, said, 0, 0)
    else:
        assert step == HeldUp(NOW + timedelta(seconds=7), UNREACHABLE, "Nobody is there.")


def test_a_url_that_expires_during_an_outage() -> None:
    """A URL that grew too old while its storage was out of reach costs no refresh."""
    spent = Spent(attempts=1, refreshes=2, error_code=UNREACHABLE)
    step = before_transfer(NOW, NOW - timedelta(hours=1), spent, limits=LIMITS, now=NOW, jitter=0.5)
    assert isinstance(step, NewUrl)
    assert (step.next_attempt_at, step.attempts, step.refreshes) == (NOW, 1, 2)


@pytest.mark.parametrize("kind", [ProblemKind.WRONG_OBJECT, ProblemKind.TRANSIENT])
def test_the_last_attempt(kind: ProblemKind) -> None:
    """When the attempts are spent the run fails, and its message says so."""
    spent = Spent(attempts=2, refreshes=0, error_code="network")
    step = after_problem(problem(kind), spent, limits=LIMITS, now=NOW, jitter=0.5)
    assert step == TransferFailed("some_code", "Something happened. (attempt 3 of 3)", 3, 0)


def test_what_only_a_person_can_mend() -> None:
    """A problem that trying again cannot mend fails the run at once."""
    step = after_problem(problem(ProblemKind.HOPELESS), SPENT, limits=LIMITS, now=NOW, jitter=0.5)
    assert step == TransferFailed("some_code", "Something happened.", 1, 0)


def test_retry_after_is_the_least_pause() -> None:
    """A storage that names a time is not asked again before it."""
    step = after_problem(
        problem(ProblemKind.TRANSIENT, retry_after_seconds=120.0),
        SPENT,
        limits=LIMITS,
        now=NOW,
        jitter=0.5,
    )
    assert isinstance(step, TryAgain)
    assert step.next_attempt_at == NOW + timedelta(seconds=120)


def test_progress_costs_nothing() -> None:
    """A try that has brought bytes spends nothing, even after the last attempt, and is not late."""
    spent = Spent(attempts=2, refreshes=2, error_code="network")
    cut = problem(ProblemKind.TRANSIENT, "network", progressed=True)
    step = after_problem(cut, spent, limits=LIMITS, now=NOW, jitter=0.5)
    assert step == TryAgain(NOW + timedelta(seconds=1), "network", "Something happened.", 2)


@pytest.mark.parametrize("code", ["network", "stalled", "too_slow", "truncated"])
def test_an_expired_url_between_tries_that_get_on(code: str) -> None:
    """A URL that expires while a large file comes piece by piece costs no refresh."""
    getting_on = Spent(1, 2, code, failing_since=None, has_part=True)
    received_at = NOW - timedelta(hours=1)
    for step in (
        before_transfer(NOW, received_at, getting_on, limits=LIMITS, now=NOW, jitter=0.5),
        after_problem(problem(ProblemKind.EXPIRED), getting_on, limits=LIMITS, now=NOW, jitter=0.5),
        after_problem(problem(ProblemKind.REFUSED), getting_on, limits=LIMITS, now=NOW, jitter=0.5),
    ):
        assert isinstance(step, NewUrl)
        assert (step.error_code, step.attempts, step.refreshes) == (EXPIRED, 1, 2)
    for other in (replace(getting_on, failing_since=NOW), replace(getting_on, has_part=False)):
        step = before_transfer(NOW, received_at, other, limits=LIMITS, now=NOW, jitter=0.5)
        assert isinstance(step, TransferFailed)


def test_the_same_again_is_final() -> None:
    """What is found again of the very same object needs no third look, where others are served."""
    again = problem(ProblemKind.WRONG_OBJECT, lasting=True)
    step = after_problem(again, Spent(0, 0, None), limits=LIMITS, now=NOW, jitter=0.5)
    assert step == TransferFailed("some_code", "Something happened. (attempt 1 of 3)", 1, 0)


@pytest.mark.parametrize(("seconds", "final"), [(0, False), (239, False), (240, True)])
def test_the_same_again_of_a_run_alone(seconds: float, final: bool) -> None:  # noqa: FBT001 - a table
    """Where no other run tells whose fault it is, the same is found for four minutes first."""
    again = problem(ProblemKind.WRONG_OBJECT, lasting=True)
    spent = Spent(1, 0, None, failing_since=NOW - timedelta(seconds=seconds))
    step = after_problem(again, spent, limits=LIMITS, now=NOW, jitter=0.5, alone=True)
    assert isinstance(step, TransferFailed) == final


@pytest.mark.parametrize(
    ("kind", "code"), [(ProblemKind.WRONG_OBJECT, MISSING), (ProblemKind.REFUSED, REFUSED)]
)
@pytest.mark.parametrize(
    ("attempts", "minutes", "final"), [(2, 0, False), (7, 29, False), (7, 30, True), (1, 99, False)]
)
def test_a_file_that_may_come(
    kind: ProblemKind,
    code: str,
    attempts: int,
    minutes: float,
    final: bool,  # noqa: FBT001 - a table
) -> None:
    """A file that is not there is missing only after half an hour, however many tries that are."""
    since = NOW - timedelta(minutes=minutes)
    spent = Spent(attempts, 0, code, failing_since=since)
    step = after_problem(problem(kind, code), spent, limits=LIMITS, now=NOW, jitter=0.5)
    assert isinstance(step, TransferFailed if final else NewUrl)
    assert step.attempts == attempts + 1


def test_a_url_that_is_valid_later() -> None:
    """The storage's 'not yet' is waited for: as long as it takes, or ever longer, but for a day."""
    young = Spent(7, 2, "network", ready_at=NOW - timedelta(seconds=40))
    limits, code = Limits(attempts=3, refreshes=2, give_up_after_seconds=3600), "url_not_yet_valid"
    for wait, due in ((90.0, 90), (None, 40), (3600.0, None)):
        one = problem(ProblemKind.NOT_YET, code, retry_after_seconds=wait)
        step = after_problem(one, young, limits=limits, now=NOW, jitter=0.5)
        if due is None:  # nothing is waited for for so long: refused, and refreshes are spent
            assert isinstance(step, TransferFailed)
            assert step.error_code == REFUSED
        else:
            assert step == HeldUp(NOW + timedelta(seconds=due), code, "Something happened.")


@pytest.mark.parametrize(
    ("ahead", "expires", "waits"),
    [
        (60, 3600, 60),
        (60, None, 60),
        (3500, 7200, 3500),
        (3700, 7200, None),
        (1.5, 3600, None),
        (-5, 3600, None),
        (60, 60, None),
    ],
)
def test_a_url_that_says_when_it_begins(
    ahead: float, expires: float | None, waits: float | None
) -> None:
    """A URL that is valid later by its own word is ready then, by our clock, if that is near."""
    offset = timedelta(seconds=100)
    step = after_verdict(
        Finished("https://x/y", None),
        asked=Asked(NOW),
        limits=LIMITS,
        now=NOW,
        delay_seconds=2,
        clock_offset=offset,
        expires_at=None if expires is None else NOW + timedelta(seconds=expires) + offset,
        valid_from=NOW + timedelta(seconds=ahead) + offset,
    )
    assert isinstance(step, UrlReceived)
    assert step.next_attempt_at == (None if waits is None else NOW + timedelta(seconds=waits))


SPENDING = set(ProblemKind) - {ProblemKind.UNREACHABLE, ProblemKind.NOT_YET}


@given(
    kinds=st.lists(st.sampled_from(sorted(SPENDING)), min_size=1, max_size=80),
    attempts=st.integers(1, 8),
    refreshes=st.integers(0, 8),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_every_sequence_of_problems_ends(
    kinds: list[ProblemKind], attempts: int, refreshes: int, jitter: float
) -> None:
    """Whatever goes wrong in whatever order, a run fails within its attempts plus refreshes.

    But for a host that cannot be reached, and a URL not valid yet: those end by time.
    """
    limits = Limits(attempts=attempts, refreshes=refreshes)
    spent, tries = SPENT, 0
    for kind in kinds:
        tries += 1
        step = after_problem(problem(kind), spent, limits=limits, now=NOW, jitter=jitter)
        if isinstance(step, TransferFailed):
            break
        assert isinstance(step, TryAgain | NewUrl)
        assert step.next_attempt_at >= NOW
        spent = (
            Spent(step.attempts, step.refreshes, step.error_code)
            if isinstance(step, NewUrl)
            else Spent(step.attempts, spent.refreshes, step.error_code)
        )
        assert spent.attempts < attempts
        assert spent.refreshes <= refreshes
    assert tries <= attempts + refreshes


LATER = PollLater(NOW + timedelta(seconds=9), "HTTP 404")


@pytest.mark.parametrize(
    ("answers", "lasted", "given_up"),
    [
        (0, None, False),
        (3, 900, False),
        (4, 899, False),
        (4, 900, True),
        (400, 899, False),
        (400, 86_400, True),
        (4, -60, False),  # the clock was set back since
    ],
)
def test_a_run_that_the_service_does_not_know(
    answers: int, lasted: float | None, *, given_up: bool
) -> None:
    """It is given up after a while and five answers in a row; till then each of them is counted."""
    since = None if lasted is None else NOW - timedelta(seconds=lasted)
    step = while_unknown(LATER, since, answers, limits=LIMITS, now=NOW)
    if given_up:
        assert isinstance(step, PollFailed)
        assert (step.error_code, step.remote_status) == ("unknown_run", "HTTP 404")
        assert step.error_message.endswith("; see --unknown-after.")
        return
    assert isinstance(step, PollLater)
    assert step.next_attempt_at == LATER.next_attempt_at
    assert (step.remote_status, step.error_code) == ("HTTP 404", "unknown_run")
    assert (step.unknown_since, step.unknown_answers) == (since or NOW, answers + 1)


def test_an_unknown_run_past_its_deadline() -> None:
    """The deadline of every run holds for it too; where it is unknown for long, that is told."""
    over = PollFailed("deadline", "Not finished.", None)
    young = NOW - timedelta(seconds=10)
    assert while_unknown(over, young, 9, limits=LIMITS, now=NOW) == over
    step = while_unknown(over, NOW - timedelta(days=1), 9, limits=LIMITS, now=NOW)
    assert isinstance(step, PollFailed)
    assert step.error_code == "unknown_run"
