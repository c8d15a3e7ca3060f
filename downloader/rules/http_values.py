"""Reading of HTTP field values that a server may have got wrong: dates, lengths, ranges, waits."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RETRY_AFTER_SECONDS: Final = 300.0
"""The longest wait that a server can ask for at once: past that, asking again costs little."""

MAX_FILE_BYTES: Final = 2**40
"""One TiB. A run's audio has at most hundreds of MB; a larger length is a mistake."""

_MAX_DATE_CHARACTERS: Final = 64
_SMALLEST_EPOCH_SECONDS: Final = 1e9
"""X-RateLimit-Reset below this is a number of seconds to wait: as a date it would be 2001."""
_SMALLEST_EPOCH_MILLISECONDS: Final = 1e11

_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,400}(?:\.[0-9]{0,400})?")
_LENGTH: Final = re.compile(r"[0-9]{1,19}")
_CONTENT_RANGE: Final = re.compile(
    r"bytes[ \t]+(?:(?P<first>[0-9]{1,19})-(?P<last>[0-9]{1,19})|(?P<unsatisfied>\*))"
    r"/(?P<total>[0-9]{1,19}|\*)",
    re.IGNORECASE,
)


class ContentRange(NamedTuple):
    """A Content-Range (RFC 9110 section 14.4): offsets in bytes, `last` included.

    `first` and `last` are None in the form `*/N` of a 416; `total` is None where it says `*`.
    """

    first: int | None
    last: int | None
    total: int | None


def parse_http_date(value: str | None) -> datetime | None:
    """Return an HTTP-date (RFC 9110 section 5.6.7, all three forms) in UTC; None for garbage."""
    if value is None or len(value) > _MAX_DATE_CHARACTERS or not value.isascii():
        return None
    try:
        parsed = parsedate_to_datetime(value.strip())
        # HTTP knows no zone but GMT, and asctime's form has none.
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def retry_after_seconds(
    headers: Mapping[str, str], now: datetime, cap_seconds: float = MAX_RETRY_AFTER_SECONDS
) -> float | None:
    """Return how many seconds the server asks to wait, from 0 to the cap; None if it does not say.

    Retry-After in seconds or as a date (RFC 9110 section 10.2.3), else X-RateLimit-Reset as the
    service's SDK reads it (epoch seconds), or as seconds from now where the number is small.
    A moment is meant by the server's clock: it counts from the answer's own Date, where it has one.
    """
    now = parse_http_date(headers.get("date")) or now
    asked = _retry_after(headers.get("retry-after"), now)
    if asked is None:
        asked = _rate_limit_reset(headers.get("x-ratelimit-reset"), now)
    return None if asked is None else max(0.0, min(asked, cap_seconds))


def _retry_after(value: str | None, now: datetime) -> float | None:
    seconds = _decimal(value)
    if seconds is not None:
        return seconds
    date = parse_http_date(value)
    return None if date is None else (date - now).total_seconds()


def _rate_limit_reset(value: str | None, now: datetime) -> float | None:
    reset = _decimal(value)
    if reset is None or reset < _SMALLEST_EPOCH_SECONDS:
        return reset
    if reset >= _SMALLEST_EPOCH_MILLISECONDS:
        reset /= 1000
    return reset - now.timestamp()


def _decimal(value: str | None) -> float | None:
    if value is None or _DECIMAL.fullmatch(value.strip(" \t")) is None:
        return None
    return float(value)


def parse_content_length(value: str) -> int | None:
    """Return a Content-Length in bytes; None if it is no length, or beyond `MAX_FILE_BYTES`.

    The same length several times in one field counts once (RFC 9110 section 8.6).
    """
    values = {part.strip(" \t") for part in value.split(",")}
    text = values.pop()
    if values or _LENGTH.fullmatch(text) is None:
        return None
    length = int(text)
    return length if length <= MAX_FILE_BYTES else None


def parse_content_range(value: str | None) -> ContentRange | None:
    """Return a Content-Range in bytes; None if absent, malformed or contradictory."""
    found = _CONTENT_RANGE.fullmatch(value.strip(" \t")) if value is not None else None
    if found is None:
        return None
    total = None if found["total"] == "*" else int(found["total"])
    if found["unsatisfied"]:
        return None if total is None else ContentRange(None, None, total)
    first, last = int(found["first"]), int(found["last"])
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)
