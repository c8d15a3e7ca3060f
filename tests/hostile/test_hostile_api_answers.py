from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hostile.hostile_values import HEADER_VALUES, ODD_BODIES, answer_bodies, header_fields
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.answers import (
    Answered,
    Finished,
    Judgement,
    RetryLater,
    judge_bulk,
    judge_single,
    without,
)
from downloader.rules.decisions import Asked, Limits, after_no_answer, after_verdict
from downloader.rules.expiry import clock_offset, url_expires_at
from downloader.rules.http_values import MAX_RETRY_AFTER_SECONDS, retry_after_seconds
from downloader.rules.steps import PollLater
from downloader.store.schema import from_text, to_text

if TYPE_CHECKING:
    from downloader.rules.answers import Verdict

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ASKED = (1, 2, 3)
LIMITS = Limits()


def assert_recordable(*values: object) -> None:
    """Assert that the database takes these: times of its form, and text that UTF-8 has."""
    for value in values:
        if isinstance(value, datetime):
            assert len(to_text(value)) == 26
            assert from_text(to_text(value)) == value
        elif isinstance(value, str):
            value.encode()


def assert_step(verdict: Verdict, server_date: str | None, polls: int, jitter: float) -> None:
    """Assert that a verdict leads to a step that can be recorded, whatever the server's clock."""
    step = after_verdict(
        verdict,
        asked=Asked(NOW, answers=polls),
        limits=LIMITS,
        now=NOW,
        delay_seconds=jitter,
        clock_offset=clock_offset(server_date, None, NOW) or timedelta(),
        expires_at=url_expires_at(verdict.url) if isinstance(verdict, Finished) else None,
    )
    assert_recordable(*(getattr(step, name) for name in step.__slots__))


def judgements(
    status: int, headers: dict[str, str], body: bytes
) -> list[tuple[Judgement, tuple[int, ...]]]:
    """Judge an answer to a batch and to a run alone, the key taken out as the client does."""
    return [
        (without("test-key-0123456789", judgement), asked)
        for judgement, asked in (
            (judge_bulk(status, headers, body, ASKED, NOW), ASKED),
            (judge_single(status, headers, body, 1, NOW), (1,)),
        )
    ]


@given(
    status=st.sampled_from([200, 200, 200, 201, 204, 404, 422, 429, 500]) | st.integers(0, 1100),
    headers=header_fields,
    body=answer_bodies,
    polls=st.integers(0, 2**63 - 1),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_any_answer_leads_to_a_step(
    status: int, headers: dict[str, str], body: bytes, polls: int, jitter: float
) -> None:
    """Whatever the API sends, each run asked for gets a step that the database can record."""
    for judgement, asked in judgements(status, headers, body):
        if isinstance(judgement, Answered):
            assert set(judgement.verdicts) == set(asked)
            assert_recordable(*judgement.unasked)
            for verdict in judgement.verdicts.values():
                assert_step(verdict, headers.get("date"), polls, jitter)
            continue
        assert_recordable(judgement.message)
        if isinstance(judgement, RetryLater):
            wait = judgement.retry_after_seconds
            assert wait is None or 0 <= wait <= MAX_RETRY_AFTER_SECONDS
            step = after_no_answer(
                judgement.error_code,
                judgement.message,
                asked=Asked(NOW, poll_errors=polls),
                retry_after_seconds=wait,
                others_answered=True,
                alone=len(asked) == 1,
                limits=LIMITS,
                now=NOW,
                jitter=jitter,
            )
            assert isinstance(step, PollLater)
            assert NOW < step.next_attempt_at <= NOW + timedelta(seconds=MAX_RETRY_AFTER_SECONDS)


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES.keys())
@pytest.mark.parametrize("status", [200, 403, 422])
def test_odd_bodies(body: bytes, status: int) -> None:
    """No body makes a run done or failed that it does not name, nor takes long to judge."""
    begun = time.process_time()
    for judgement, _ in judgements(status, {}, body):
        if isinstance(judgement, Answered) and status == 200:
            for run_id, verdict in judgement.verdicts.items():
                if isinstance(verdict, Finished):
                    assert (run_id, verdict.url) == (1, "http://h/b")
        repr(judgement).encode()
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("value", HEADER_VALUES)
@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset"])
def test_absurd_waits(name: str, value: str) -> None:
    """A wait is from nothing to five minutes, or not asked for at all."""
    wait = retry_after_seconds({name: value}, NOW)
    assert wait is None or 0 <= wait <= 300


YEARS = [1, 999, 1900, 1999, 2000, 2025, 2199, 2200, 3500, 9999]
URLS = [
    "http://h/?se=9999-12-31T23:59:59Z",
    "http://h/?Expires=1772366400",
    "http://h/?X-Amz-Date=20260301T000000Z&X-Amz-Expires=3600",
    "http://h/?X-Amz-Date=99991231T235959Z&X-Amz-Expires=999999999",
    "http://h/?se=0001-01-01T00:00:00%2B23:59",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("year", YEARS)
def test_servers_of_any_century(year: int, url: str) -> None:
    """A server whose clock is centuries off gives its URL all the same."""
    assert_step(Finished(url, None), f"Fri, 31 Dec {year:04} 23:59:59 GMT", 0, 0.5)


@given(
    server=st.datetimes(timezones=st.just(UTC)),
    expires_at=st.datetimes(timezones=st.just(UTC)) | st.none(),
    now=st.datetimes(datetime(1970, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - Hypothesis adds the zone
)
def test_clocks_that_disagree(server: datetime, expires_at: datetime | None, now: datetime) -> None:
    """Whatever the two clocks and the expiry say, the expiry is a time of ours or unknown."""
    offset = clock_offset(server.strftime("%a, %d %b %Y %H:%M:%S GMT"), None, now) or timedelta()
    step = after_verdict(
        Finished("http://h/", None),
        asked=Asked(now),
        limits=LIMITS,
        now=now,
        delay_seconds=2,
        clock_offset=offset,
        expires_at=expires_at,
    )
    found = getattr(step, "url_expires_at", None)
    if expires_at is not None and found is not None:
        assert found == expires_at - offset
