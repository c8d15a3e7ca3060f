from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.resume import (
    NOTHING,
    AlreadyComplete,
    Append,
    Journal,
    Outcome,
    Refused,
    Rejected,
    Restart,
    StartOver,
    is_strong,
    judge_response,
    request_headers,
    strong_last_modified,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2025, 1, 1, tzinfo=UTC)
ETAG = '"abc"'
JOURNAL = Journal(ETAG, 10)
IDENTITY = {"accept-encoding": "identity"}


def judge(
    status: int, headers: Mapping[str, str], part_bytes: int = 4, journal: Journal = JOURNAL
) -> Outcome:
    """Judge an answer to a request for the rest of a part."""
    return judge_response(status, headers, part_bytes, journal, asked_range=True, now=NOW)


def judge_unranged(status: int, headers: Mapping[str, str]) -> Outcome:
    """Judge an answer to a request for the whole file."""
    return judge_response(status, headers, 0, NOTHING, asked_range=False, now=NOW)


@pytest.mark.parametrize(
    ("etag", "strong"),
    [
        ('"a"', True),
        ('"a-2/x!"', True),
        ('W/"a"', False),
        ("a", False),
        ('""', False),
        ('"a" ', False),
        ('"a\r\nx: y"', False),
        ('"a", "a"', False),
        ('"é"', False),
        ("", False),
        (None, False),
    ],
)
def test_strong_etags(etag: str | None, strong: bool) -> None:  # noqa: FBT001 - a column
    """Only a quoted tag without W/ proves equality byte for byte."""
    assert is_strong(etag) is strong


@pytest.mark.parametrize(
    ("part_bytes", "journal", "ranged"),
    [
        (4, JOURNAL, True),
        (4, Journal(ETAG, None), True),
        (10, JOURNAL, True),
        (11, JOURNAL, False),
        (0, JOURNAL, False),
        (4, Journal('W/"abc"', 10), False),
        (4, Journal(None, 10), False),
    ],
)
def test_request(part_bytes: int, journal: Journal, ranged: bool) -> None:  # noqa: FBT001
    """A range is asked for only of a part that a strong ETag ties to its object."""
    expected = {"range": f"bytes={part_bytes}-", "if-range": ETAG} if ranged else {}
    assert request_headers(part_bytes, journal) == IDENTITY | expected


FITTING = {"content-range": "bytes 4-9/10", "content-length": "6", "etag": ETAG}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, Append(10, ETAG), id="fits"),
        pytest.param(
            {"content-range": "bytes 4-7/10", "content-length": "4"},
            Append(10, ETAG, until=8),
            id="shorter",
        ),
        pytest.param({"content-encoding": "aws-chunked"}, Append(10, ETAG), id="aws-chunked"),
        pytest.param({"content-encoding": "identity"}, Append(10, ETAG), id="identity"),
        pytest.param(
            {"content-length": "9", "transfer-encoding": "chunked"}, Append(10, ETAG), id="chunked"
        ),
        pytest.param({"content-range": "bytes 3-9/10"}, StartOver, id="earlier"),
        pytest.param({"content-range": "bytes 5-9/10"}, StartOver, id="later"),
        pytest.param({"content-range": "bytes 0-9/10"}, StartOver, id="from-zero"),
        pytest.param({"content-range": "bytes 4-9/11"}, StartOver, id="another-total"),
        pytest.param({"content-range": "bytes 4-9/*"}, StartOver, id="unknown-total"),
        pytest.param({"content-range": "bytes */10"}, StartOver, id="no-range"),
        pytest.param({"content-range": "nonsense"}, StartOver, id="malformed"),
        pytest.param({"content-range": ""}, StartOver, id="empty-range"),
        pytest.param({"content-length": "5"}, StartOver, id="length-contradicts"),
        pytest.param({"content-length": "-5"}, Rejected, id="negative-length"),
        pytest.param({"etag": '"abd"'}, StartOver, id="another-etag"),
        pytest.param({"etag": 'W/"abc"'}, StartOver, id="weak-etag"),
        pytest.param({"etag": ""}, StartOver, id="no-etag"),
        pytest.param({"content-encoding": "gzip"}, StartOver, id="gzip"),
        pytest.param({"transfer-encoding": "gzip, chunked"}, Rejected, id="gzipped-transfer"),
    ],
)
def test_partial_answers(change: dict[str, str], expected: Outcome | type[Outcome]) -> None:
    """Bytes are appended only where offset, total, length and ETag all fit."""
    outcome = judge(206, FITTING | change)
    if isinstance(expected, type):
        assert isinstance(outcome, expected)
    else:
        assert outcome == expected


def test_total_learnt_on_resume() -> None:
    """A part of an object of unrecorded length takes the length from the answer."""
    assert judge(206, FITTING, journal=Journal(ETAG, None)) == Append(10, ETAG)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-length": "7", "etag": ETAG}, Restart(7, ETAG, delimited=True)),
        ({"content-length": "7, 7"}, Restart(7, None, delimited=True)),
        ({"content-length": "0"}, Restart(0, None, delimited=True)),
        ({"transfer-encoding": "chunked"}, Restart(None, None, delimited=True)),
        (
            {"transfer-encoding": "Chunked", "content-length": "-1"},
            Restart(None, None, delimited=True),
        ),
        ({}, Restart(None, None, delimited=False)),
        ({"etag": 'W/"x"'}, Restart(None, None, delimited=False)),
        ({"content-encoding": "identity"}, Restart(None, None, delimited=False)),
    ],
)
def test_whole_answers(headers: dict[str, str], expected: Outcome) -> None:
    """A 200 means writing from zero, whatever was asked for."""
    assert judge(200, headers) == expected
    assert judge_unranged(200, headers) == expected


@pytest.mark.parametrize("length", ["-5", "1e9", "9" * 23, "5, 6", "", "five"])
def test_absurd_lengths(length: str) -> None:
    """A length that cannot be right is no length to verify by."""
    outcome = judge_unranged(200, {"content-length": length})
    assert isinstance(outcome, Rejected)
    assert outcome.error_code == "bad_length"


def test_compressed_answers() -> None:
    """A transfer that was compressed on the way cannot be counted; of a file the bytes decide."""
    outcome = judge_unranged(200, {"transfer-encoding": "gzip, chunked"})
    assert isinstance(outcome, Rejected)
    assert outcome.error_code == "encoded_content"
    length = {"content-length": "7", "content-encoding": "gzip"}
    assert judge_unranged(200, length) == Restart(7, None, delimited=True)
    asked = {"asked_range": True, "now": NOW, "compressed": True}
    packed = FITTING | {"content-encoding": "gzip"}
    assert judge_response(206, packed, 4, JOURNAL, **asked) == Append(10, ETAG)  # type: ignore[arg-type]


MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"
BY_DATE = Journal(None, 10, MODIFIED)


@pytest.mark.parametrize(
    ("modified", "date", "strong"),
    [
        (MODIFIED, "Wed, 01 Jan 2025 00:01:00 GMT", True),
        (MODIFIED, "Wed, 01 Jan 2025 00:00:59 GMT", False),
        (MODIFIED, "Tue, 31 Dec 2024 00:00:00 GMT", False),
        (MODIFIED, "yesterday", False),
        (MODIFIED, None, False),
        ("yesterday", MODIFIED, False),
        (None, MODIFIED, False),
    ],
)
def test_strong_dates(modified: str | None, date: str | None, strong: bool) -> None:  # noqa: FBT001
    """A Last-Modified proves equality where it is a minute or more before its answer's Date."""
    told = {"last-modified": modified, "date": date}
    headers = {name: text for name, text in told.items() if text is not None}
    assert strong_last_modified(headers) == (modified if strong else None)


def test_resume_by_date() -> None:
    """Without a strong ETag the date ties a range to the object, and has to be the same there."""
    expected = {"range": "bytes=4-", "if-range": MODIFIED}
    assert request_headers(4, BY_DATE) == IDENTITY | expected
    assert request_headers(4, Journal(None, 10, "yesterday")) == IDENTITY
    fitting = FITTING | {"etag": 'W/"x"', "last-modified": MODIFIED}
    assert judge(206, fitting, journal=BY_DATE) == Append(10, None)
    for other in ("Wed, 01 Jan 2025 00:00:01 GMT", ""):
        changed = fitting | {"last-modified": other}
        assert isinstance(judge(206, changed, journal=BY_DATE), StartOver)
    assert BY_DATE.is_same(BY_DATE)
    assert not BY_DATE.is_same(Journal(None, 11, MODIFIED))
    assert not NOTHING.is_same(NOTHING)


@pytest.mark.parametrize(
    ("headers", "part_bytes", "journal", "complete"),
    [
        ({"content-range": "bytes */10"}, 10, JOURNAL, False),
        ({"content-range": "bytes */10", "etag": ETAG}, 10, JOURNAL, True),
        ({"content-range": "bytes */10", "etag": ETAG}, 10, Journal(ETAG, None), True),
        ({"content-range": "bytes */10", "last-modified": MODIFIED}, 10, BY_DATE, True),
        ({"content-range": "bytes */10", "etag": ETAG}, 10, BY_DATE, False),
        ({"content-range": "bytes */10", "etag": '"new"'}, 10, JOURNAL, False),
        ({"content-range": "bytes */10"}, 9, JOURNAL, False),
        ({"content-range": "bytes */10"}, 10, Journal(ETAG, 11), False),
        ({"content-range": "bytes 0-9/10"}, 10, JOURNAL, False),
        ({}, 10, JOURNAL, False),
    ],
)
def test_unsatisfied_ranges(
    headers: dict[str, str],
    part_bytes: int,
    journal: Journal,
    complete: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """A 416 finishes a part of the object's length, if it is shown to be the same object's."""
    outcome = judge(416, headers, part_bytes, journal)
    if complete:
        assert outcome == AlreadyComplete(part_bytes)
    else:
        assert isinstance(outcome, StartOver)


@pytest.mark.parametrize("status", [206, 416])
def test_ranges_not_asked_for(status: int) -> None:
    """An answer about a range is of no use where none was asked for, and must not loop."""
    outcome = judge_unranged(status, FITTING)
    assert isinstance(outcome, Rejected)
    assert outcome.error_code == "unexpected_partial"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-range": "bytes 0-9/10"}, Restart(10, None, delimited=True)),
        (
            {"content-range": "bytes 0-9/10", "content-length": "10", "etag": ETAG},
            Restart(10, ETAG, delimited=True),
        ),
        (
            {"content-range": "bytes 0-3/10", "etag": ETAG},
            Restart(10, ETAG, delimited=True, until=4),
        ),
        ({"content-range": "bytes 0-3/10"}, "unexpected_partial"),
        ({"content-range": "bytes 0-3/*", "etag": ETAG}, "unexpected_partial"),
        ({"content-range": "bytes 0-9/10", "content-length": "4"}, "bad_length"),
    ],
)
def test_whole_files_as_ranges(headers: dict[str, str], expected: Outcome | str) -> None:
    """A 206 nobody asked for is a 200 if it is the whole; its start, if the rest can be had."""
    outcome = judge_unranged(206, headers)
    if isinstance(expected, str):
        assert isinstance(outcome, Rejected)
        assert outcome.error_code == expected
    else:
        assert outcome == expected


@pytest.mark.parametrize("status", [400, 401, 403])
def test_refusals(status: int) -> None:
    """A refusal is left to be told from expiry by its body."""
    assert judge(status, {"content-encoding": "gzip"}) == Refused(status)


@pytest.mark.parametrize(
    ("status", "error_code", "wants_new_url"),
    [
        (404, "missing", True),
        (410, "missing", True),
        (408, "storage_busy", False),
        (429, "storage_busy", False),
        (503, "storage_busy", False),
        (500, "storage_error", False),
        (504, "storage_error", False),
        (405, "storage_refused", False),
        (302, "unexpected_redirect", False),
        (204, "unexpected_status", False),
        (0, "unexpected_status", False),
    ],
)
def test_errors(status: int, error_code: str, wants_new_url: bool) -> None:  # noqa: FBT001
    """Every other status is rejected with a code, and with the wait that the server asks for."""
    outcome = judge(status, {"retry-after": "9"})
    assert isinstance(outcome, Rejected)
    assert (outcome.error_code, outcome.wants_new_url) == (error_code, wants_new_url)
    assert outcome.retry_after_seconds == (None if status == 302 else 9.0)


numbers = st.integers(0, 12).map(str) | st.sampled_from(["*", "-5", "1e9", "9" * 25, "5, 5"])
content_ranges = (
    st.builds("bytes {}-{}/{}".format, numbers, numbers, numbers)
    | st.builds("bytes */{}".format, numbers)
    | st.text(max_size=20)
)
etags = st.sampled_from([ETAG, '"b"', 'W/"abc"', "", '"']) | st.text(max_size=8)
answers = st.fixed_dictionaries(
    {},
    optional={
        "content-range": content_ranges,
        "content-length": numbers,
        "etag": etags,
        "transfer-encoding": st.sampled_from(["chunked", "gzip", ""]),
        "content-encoding": st.sampled_from(["identity", "", "br"]),
        "retry-after": st.text(max_size=10),
    },
)
journals = st.builds(
    Journal, st.none() | st.sampled_from([ETAG, '"b"', 'W/"abc"']), st.none() | st.integers(0, 12)
)


@given(
    status=st.sampled_from([200, 206, 206, 206, 416]) | st.integers(-1, 999),
    headers=answers,
    part_bytes=st.integers(0, 12),
    journal=journals,
)
def test_bytes_are_never_appended_at_a_wrong_offset(
    status: int, headers: dict[str, str], part_bytes: int, journal: Journal
) -> None:
    """Whatever comes back, a part only grows by bytes of its own object from where it ends."""
    asked_range = "range" in request_headers(part_bytes, journal)
    outcome = judge_response(status, headers, part_bytes, journal, asked_range=asked_range, now=NOW)
    if isinstance(outcome, Append):
        assert asked_range
        assert status == 206
        assert headers["content-range"].lower().startswith(f"bytes {part_bytes}-")
        assert headers["content-range"].endswith(f"/{outcome.total_bytes}")
        assert headers["etag"] == journal.etag == outcome.etag
        assert is_strong(outcome.etag)
        assert outcome.until is None or part_bytes < outcome.until < outcome.total_bytes
        assert journal.total_bytes in {None, outcome.total_bytes}
        assert part_bytes < outcome.total_bytes
    if isinstance(outcome, AlreadyComplete):
        assert asked_range
        assert status == 416
        assert outcome.total_bytes == part_bytes
    if isinstance(outcome, Restart):
        assert status == 200 or (status == 206 and not asked_range)
    if isinstance(outcome, StartOver):
        assert asked_range
