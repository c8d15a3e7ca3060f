from __future__ import annotations

import ast
import bisect
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import downloader
from downloader.observe.tally import Counts, DetailedTally, Histogram, Tally
from downloader.rules.answers import Answered, Blocked, Forbidden, RetryLater, Suspect
from downloader.rules.error_codes import API_ERRORS, BLOCKS, RUN_ERRORS, TRANSFER_ERRORS
from downloader.rules.steps import NewUrl, Published, PutBack, TransferFailed, TryAgain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.rules.answers import Judgement
    from downloader.rules.steps import TransferStep

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
SAVED: Final = Published("/audio/1.wav", 1000, "0" * 64, "wav", None)


def counted(counts: Counts) -> dict[str, int]:
    """Return what was counted at all."""
    return {word: number for word, number in counts.read().items() if number}


@pytest.mark.parametrize(
    ("step", "outcome", "error", "refresh", "failed"),
    [
        (SAVED, "done", None, None, None),
        (TryAgain(NOW, "network", "", 1), "retry", "network", None, None),
        (NewUrl(NOW, "url_expired", "", 0, 1), "new_url", "url_expired", "expired", None),
        (NewUrl(NOW, "url_refused", "", 0, 1), "new_url", "url_refused", "refused", None),
        (NewUrl(NOW, "missing", "", 1, 0), "new_url", "missing", "other", None),
        (TransferFailed("too_large", "", 1, 0), "failed", "too_large", None, "too_large"),
        (TransferFailed("of tomorrow", "", 1, 0), "failed", "other", None, "other"),
        (PutBack(NOW, "interrupted"), "interrupted", None, None, None),
        (PutBack(NOW, "disk_full"), "blocked", None, None, None),
        (PutBack(NOW, "output_unusable"), "blocked", None, None, None),
        (None, "lease_lost", None, None, None),
    ],
)
def test_how_a_transfer_is_counted(
    step: TransferStep | None,
    outcome: str,
    error: str | None,
    refresh: str | None,
    failed: str | None,
) -> None:
    """Each way in which a transfer ends has its outcome; an unknown error code is `other`."""
    tally = DetailedTally()
    tally.transfer(step, 0.3)
    assert counted(tally.transfers) == {outcome: 1}
    assert counted(tally.transfer_errors) == ({} if error is None else {error: 1})
    assert counted(tally.refreshes) == ({} if refresh is None else {refresh: 1})
    assert counted(tally.run_errors) == ({} if failed is None else {failed: 1})
    assert tally.transfer_seconds.read()[-1] == (math.inf, int(outcome == "done"))


@pytest.mark.parametrize(
    ("judgement", "outcome", "error"),
    [
        (Answered({}), "answered", None),
        (Suspect(500, "server_error", ""), "refused", "server_error"),
        (Forbidden(""), "forbidden", None),
        (Blocked("key_refused", ""), "blocked", None),
        (RetryLater("throttled", ""), "no_answer", "throttled"),
        (RetryLater("of tomorrow", ""), "no_answer", "other"),
        (None, "cut_off", None),
    ],
)
def test_how_a_request_is_counted(
    judgement: Judgement | None, outcome: str, error: str | None
) -> None:
    """Each judgement has its outcome; what was cut off says nothing of how long the API takes."""
    tally = DetailedTally()
    tally.request(judgement, 0.3)
    assert (tally.requests, counted(tally.api_requests)) == (1, {outcome: 1})
    assert counted(tally.api_errors) == ({} if error is None else {error: 1})
    assert tally.api_seconds.read()[-1][1] == int(judgement is not None)


def test_what_else_is_counted() -> None:
    """Expired URLs, failed polls and rescues."""
    tally = DetailedTally()
    tally.expired_unused(renewed=3, failed=2)
    tally.poll_failed("deadline")
    tally.rescued(4)
    assert (tally.refreshed, tally.failed, tally.rescues) == (3, 3, 4)
    assert counted(tally.refreshes) == {"expired_unused": 3}
    assert counted(tally.run_errors) == {"url_expired": 2, "deadline": 1}


_STEPS = st.sampled_from(
    [
        SAVED,
        TryAgain(NOW, "network", "", 1),
        NewUrl(NOW, "missing", "", 1, 0),
        TransferFailed("missing", "", 8, 0),
        PutBack(NOW, "interrupted"),
        None,
    ]
)
_EVENTS = st.one_of(
    st.tuples(st.just("transfer"), st.tuples(_STEPS, st.floats(0, 100))),
    st.tuples(st.just("poll_failed"), st.tuples(st.sampled_from(sorted(RUN_ERRORS)))),
    st.tuples(st.just("request"), st.tuples(st.just(Answered({})), st.floats(0, 50))),
    st.tuples(st.just("rescued"), st.tuples(st.integers(1, 5))),
)


@given(st.lists(_EVENTS))
def test_one_count_serves_both(events: list[tuple[str, tuple[Any, ...]]]) -> None:
    """In the same events both tallies count the same, and the details add up to it."""
    plain, detailed = Tally(), DetailedTally()
    for name, arguments in events:
        for one in (plain, detailed):
            getattr(one, name)(*arguments)
    for name in Tally.__slots__:
        assert getattr(plain, name) == getattr(detailed, name)
    assert detailed.transfers.read()["done"] == plain.done
    assert detailed.transfers.read()["retry"] == plain.retried
    assert sum(detailed.refreshes.read().values()) == plain.refreshed
    assert sum(detailed.run_errors.read().values()) == plain.failed
    assert sum(detailed.api_requests.read().values()) == plain.requests


@given(
    st.lists(st.floats(0.001, 1000), min_size=1, max_size=8, unique=True).map(sorted),
    st.lists(st.floats(0, 2000)),
)
def test_a_histogram_counts_what_took_no_longer(bounds: list[float], values: list[float]) -> None:
    """Each bound has the number of those that took at most so long; infinity has them all."""
    histogram = Histogram(*bounds)
    for value in values:
        histogram.observe(value)
    ordered = sorted(values)
    assert histogram.read() == [
        *((bound, bisect.bisect_right(ordered, bound)) for bound in bounds),
        (math.inf, len(values)),
    ]
    assert histogram.seconds == pytest.approx(sum(values))


# Whoever makes a problem of a transfer or of a request: the functions that take its code.
_TRANSFER_PROBLEMS: Final = {
    *("Problem", "Rejected", "ContentProblem", "_transient", "_wrong_object", "_unusable")
}
_API_PROBLEMS: Final = {"RetryLater", "Suspect"}


def codes_given_to(functions: set[str], *, under: str) -> Iterator[str]:
    """Yield every word that the source gives to one of these functions as a code."""
    for path in (Path(downloader.__file__).parent / under).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in functions:
                for argument in node.args:
                    value = getattr(argument, "value", None)
                    if isinstance(value, str) and re.fullmatch(r"[a-z]+(_[a-z]+)*", value):
                        yield value


def test_the_lists_of_codes_are_whole() -> None:
    """Every code that the source gives to a problem is of the closed list of its kind."""
    transfer = {
        *codes_given_to(_TRANSFER_PROBLEMS, under="transfer"),
        *codes_given_to(_TRANSFER_PROBLEMS, under="rules"),
    }
    assert len(transfer) > 20
    assert transfer - TRANSFER_ERRORS == set()
    # Some are made of names, not of words.
    assert TRANSFER_ERRORS - transfer <= {
        "url_expired",
        "url_not_yet_valid",
        "certificate",
        "storage_unreachable",
        "truncated",
        "unusable_range",
    }
    api = {
        *codes_given_to(_API_PROBLEMS, under="rules"),
        *codes_given_to(_API_PROBLEMS, under="camb"),
    }
    assert api
    assert api - API_ERRORS == set()
    assert {reason for _, reason in BLOCKS} == {
        *("key_refused", "payment_required", "disk_full", "output_unusable")
    }


def test_the_codes_are_those_of_the_documentation() -> None:
    """The page that lists the error codes has all of these."""
    page = Path(__file__).resolve().parents[2] / "docs/sql.md"
    text = page.read_text(encoding="utf-8")
    table = text[text.index("## Error codes") : text.index("## Questions")]
    assert {code for code in RUN_ERRORS if f"`{code}`" not in table} == set()
