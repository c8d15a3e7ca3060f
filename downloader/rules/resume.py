"""Whether bytes may be added to the part on disk: Range, If-Range and Content-Range (RFC 9110).

Bytes are appended only where everything shows that they belong to the same object; otherwise
the transfer starts again from zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.rules.http_values import (
    parse_content_length,
    parse_content_range,
    retry_after_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# RFC 9110 section 8.8.3, ASCII only, since it goes out again in a header; an empty tag vouches
# for nothing.
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,1024}"')

_MISSING: Final = frozenset({404, 410})
_REFUSALS: Final = frozenset({400, 401, 403})
_BUSY: Final = frozenset({408, 425, 429, 503})


@dataclass(frozen=True, slots=True)
class Journal:
    """What is recorded of the object whose part is on disk; the length in bytes."""

    etag: str | None
    total_bytes: int | None


@dataclass(frozen=True, slots=True)
class Append:
    """The body goes on where the part ends; the file will have `total_bytes`."""

    total_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Restart:
    """The body is the whole object: write from zero.

    `delimited` says that HTTP itself shows where the body ends (a length, or chunks), so that
    a cut connection cannot pass for the end.
    """

    total_bytes: int | None
    etag: str | None
    delimited: bool


@dataclass(frozen=True, slots=True)
class AlreadyComplete:
    """Nothing is left to fetch: the part has the object's length. Verify and finish."""

    total_bytes: int


@dataclass(frozen=True, slots=True)
class StartOver:
    """The answer does not fit the part: discard the part and ask again without Range."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """400, 401 or 403: the body's first bytes tell whether the URL has expired."""

    status: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """An answer without usable bytes; `wants_new_url` where only another URL can help."""

    error_code: str
    message: str
    retry_after_seconds: float | None = None
    wants_new_url: bool = False


Outcome = Append | Restart | AlreadyComplete | StartOver | Refused | Rejected


def is_strong(etag: str | None) -> bool:
    """Tell whether an ETag proves equality byte for byte (RFC 9110 section 8.8.3.2)."""
    return etag is not None and _STRONG_ETAG.fullmatch(etag) is not None


def request_headers(part_bytes: int, journal: Journal) -> dict[str, str]:
    """Return the headers to ask with, where `part_bytes` bytes of the object are on disk.

    A range is asked for only with a strong ETag to tie it to the same object (RFC 9110
    section 13.1.5), and never beyond the recorded length. No encoding may be applied: the
    bytes are counted and hashed as they come.
    """
    headers = {"accept-encoding": "identity"}
    beyond = journal.total_bytes is not None and part_bytes > journal.total_bytes
    if part_bytes > 0 and not beyond and journal.etag is not None and is_strong(journal.etag):
        headers["range"] = f"bytes={part_bytes}-"
        headers["if-range"] = journal.etag
    return headers


def judge_response(
    status: int,
    headers: Mapping[str, str],
    part_bytes: int,
    journal: Journal,
    *,
    asked_range: bool,
    now: datetime,
) -> Outcome:
    """Say what to do with an answer of the storage, from its status and headers alone.

    `part_bytes` and `journal` are what the request was made with, `asked_range` whether it
    had a Range. Never raises, whatever the server sent.
    """
    if status in {200, 206} and (problem := _encoding_problem(headers)) is not None:
        return problem
    if status == 200:
        return _judge_whole(headers)
    if status in {206, 416} and not asked_range:
        return Rejected(
            "unexpected_partial", f"The storage answered {status} though no range was asked for."
        )
    if status == 206:
        return _judge_partial(headers, part_bytes, journal)
    if status == 416:
        return _judge_unsatisfied(headers, part_bytes, journal)
    if status in _REFUSALS:
        return Refused(status)
    return _judge_error(status, headers, now)


def _encoding_problem(headers: Mapping[str, str]) -> Rejected | None:
    encodings = {
        coding.strip().lower() for coding in headers.get("content-encoding", "").split(",")
    }
    transfers = {
        coding.strip().lower() for coding in headers.get("transfer-encoding", "").split(",")
    }
    if encodings - {"", "identity"} or transfers - {"", "identity", "chunked"}:
        return Rejected(
            "encoded_content", "The storage compressed the file although it was asked not to."
        )
    return None


def _judge_whole(headers: Mapping[str, str]) -> Restart | Rejected:
    etag = _strong(headers)
    # RFC 9112 section 6.3: chunks override a length.
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return Restart(None, etag, delimited=True)
    length = headers.get("content-length")
    if length is None:
        return Restart(None, etag, delimited=False)
    total = parse_content_length(length)
    if total is None:
        return _bad_length()
    return Restart(total, etag, delimited=True)


def _judge_partial(
    headers: Mapping[str, str], part_bytes: int, journal: Journal
) -> Append | StartOver | Rejected:
    etag = _strong(headers)
    if etag is None or etag != journal.etag:
        return StartOver("The object has changed since its first part was fetched.")
    content_range = parse_content_range(headers.get("content-range"))
    if content_range is None or content_range.first is None or content_range.last is None:
        return StartOver("The storage sent a part without saying which one.")
    if content_range.first != part_bytes:
        return StartOver("The storage sent another part than the one asked for.")
    if content_range.total is None or journal.total_bytes not in {None, content_range.total}:
        return StartOver("The object's length is not the one recorded.")
    length = headers.get("content-length")
    if length is not None and "chunked" not in headers.get("transfer-encoding", "").lower():
        body_bytes = parse_content_length(length)
        if body_bytes is None:
            return _bad_length()
        if body_bytes != content_range.last - content_range.first + 1:
            return StartOver("The length of the part sent contradicts its range.")
    return Append(content_range.total, etag)


def _judge_unsatisfied(
    headers: Mapping[str, str], part_bytes: int, journal: Journal
) -> AlreadyComplete | StartOver:
    content_range = parse_content_range(headers.get("content-range"))
    etag = _strong(headers)
    if (
        content_range is not None
        and content_range.first is None
        and content_range.total == part_bytes
        and journal.total_bytes in {None, part_bytes}
        and etag in {None, journal.etag}
    ):
        return AlreadyComplete(part_bytes)
    return StartOver("The object is not as long as the part that is held of it.")


def _judge_error(status: int, headers: Mapping[str, str], now: datetime) -> Rejected:
    wait = retry_after_seconds(headers, now)
    if status in _MISSING:
        return Rejected(
            "missing", f"The storage has no file at the URL ({status}).", wait, wants_new_url=True
        )
    if status in _BUSY:
        return Rejected("storage_busy", f"The storage asked to come back later ({status}).", wait)
    if 500 <= status <= 599:
        return Rejected("storage_error", f"The storage failed with status {status}.", wait)
    if 300 <= status <= 399:
        return Rejected("unexpected_redirect", f"The storage redirected without end ({status}).")
    if 400 <= status <= 499:
        return Rejected("storage_refused", f"The storage refused the request ({status}).", wait)
    return Rejected("unexpected_status", f"The storage answered with status {status}.", wait)


def _bad_length() -> Rejected:
    return Rejected("bad_length", "The storage stated a length that cannot be right.")


def _strong(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("etag")
    return etag if is_strong(etag) else None
