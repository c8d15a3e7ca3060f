from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.http_values import (
    MAX_FILE_BYTES,
    ContentRange,
    parse_content_length,
    parse_content_range,
    parse_http_date,
    retry_after_seconds,
)

NOW = datetime(2025, 1, 1, 12, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun Nov  6 08:49:37 1994", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 06 Nov 1994 09:49:37 +0100", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Fri, 31 Dec 9999 23:00:00 -2300", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Sun, 06 Nov 1994 08:49:37 GMT" + " " * 99, None),
    ],
)
def test_dates(value: str | None, parsed: datetime | None) -> None:
    """All three forms of an HTTP-date are read, and garbage is none."""
    assert parse_http_date(value) == parsed


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "5"}, 5.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "99999"}, 300.0),
        ({"retry-after": "9" * 400}, 300.0),
        ({"retry-after": "Wed, 01 Jan 2025 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 01 Jan 2025 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 01 Jan 2100 11:00:00 GMT"}, 300.0),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "\N{FULLWIDTH DIGIT FIVE}"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "soon", "x-ratelimit-reset": "4"}, 4.0),
        ({"retry-after": "1", "x-ratelimit-reset": "4"}, 1.0),
        ({"x-ratelimit-reset": "2.5"}, 2.5),
        ({"x-ratelimit-reset": str(EPOCH + 20)}, 20.0),
        ({"x-ratelimit-reset": str((EPOCH + 20) * 1000)}, 20.0),
        ({"x-ratelimit-reset": str(EPOCH - 20)}, 0.0),
        ({"x-ratelimit-reset": "soon"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """A wait is read from seconds, a date or a rate limit's reset, and kept within bounds."""
    assert retry_after_seconds(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ("0", 0),
        ("12", 12),
        ("12, 12", 12),
        ("12,13", None),
        ("-5", None),
        ("+5", None),
        ("1e9", None),
        ("1_0", None),
        ("\N{FULLWIDTH DIGIT FIVE}", None),
        ("", None),
        (",", None),
        ("12,", None),
        ("99999999999999999999999", None),
        (str(MAX_FILE_BYTES), MAX_FILE_BYTES),
        (str(MAX_FILE_BYTES + 1), None),
    ],
)
def test_content_length(value: str, length: int | None) -> None:
    """A length is digits, the same each time it is stated, and not absurd."""
    assert parse_content_length(value) == length


@pytest.mark.parametrize(
    ("value", "content_range"),
    [
        ("bytes 0-4/5", ContentRange(0, 4, 5)),
        ("Bytes 2-3/*", ContentRange(2, 3, None)),
        ("bytes */5", ContentRange(None, None, 5)),
        ("bytes */*", None),
        ("bytes 4-3/5", None),
        ("bytes 0-5/5", None),
        ("bytes -1-4/5", None),
        ("bytes=0-4/5", None),
        ("items 0-4/5", None),
        ("bytes 0-4", None),
        ("bytes 0-4/5, bytes 5-9/10", None),
        ("bytes 0-99999999999999999999/99999999999999999999999", None),
        ("", None),
        (None, None),
    ],
)
def test_content_range(value: str | None, content_range: ContentRange | None) -> None:
    """A range that is malformed or contradicts itself is none."""
    assert parse_content_range(value) == content_range


texts = st.text(max_size=40) | st.text("0123456789-/*,. bytesGMT:+", max_size=30)


@given(texts, texts)
def test_no_value_raises(value: str, other: str) -> None:
    """Whatever a field holds, reading it gives a bounded value or None."""
    seconds = retry_after_seconds({"retry-after": value, "x-ratelimit-reset": other}, NOW)
    assert seconds is None or 0 <= seconds <= 300
    length = parse_content_length(value)
    assert length is None or 0 <= length <= MAX_FILE_BYTES
    parse_content_range(value)
    parse_content_range(f"bytes {value}/{other}")
    parse_http_date(value)
