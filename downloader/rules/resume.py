"""Whether bytes may be added to the part on disk: Range, If-Range and Content-Range (RFC 9110).

Bytes are appended only where everything shows that they belong to the same object; otherwise
the transfer starts again from zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.rules.codings import compression
from downloader.rules.http_values import (
    parse_content_length,
    parse_content_range,
    parse_http_date,
    retry_after_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# RFC 9110 section 8.8.3, ASCII only, since it goes out again in a header; an empty tag vouches
# for nothing.
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,1024}"')

STRONG_AFTER_SECONDS: Final = 60.0
"""How long before its answer's Date an object must have been modified last. RFC 9110 section
8.8.2.2 asks for a second by one clock; whether it is one clock nobody tells, and a minute is what
RFC 7232 asked for."""

_MISSING: Final = frozenset({404, 410})
_REFUSALS: Final = frozenset({400, 401, 403})
_BUSY: Final = frozenset({408, 425, 429, 503})


@dataclass(frozen=True, slots=True)
class Journal:
    """What is recorded of the object whose part is on disk; the length in bytes.

    `last_modified` is the header's text, where it is a strong validator; `digests` is what the
    storage has told of the whole object, as `digests.to_text` writes it.
    """

    etag: str | None
    total_bytes: int | None
    last_modified: str | None = None
    digests: str | None = None

    @property
    def validator(self) -> str | None:
        """What ties a range to the object (RFC 9110 section 13.1.5); None where nothing does."""
        return self.etag if is_strong(self.etag) else self.last_modified

    def is_same(self, other: Journal) -> bool:
        """Tell whether both are shown to be of one object."""
        ours, theirs = self.validator, other.validator
        return ours is not None and ours == theirs and self.total_bytes == other.total_bytes


NOTHING: Final = Journal(None, None)


@dataclass(frozen=True, slots=True)
class Append:
    """The body goes on where the part ends; the file will have `total_bytes`.

    Where less than the rest was sent, `until` is where that ends.
    """

    total_bytes: int
    etag: str | None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """The body is the whole object: write from zero.

    `delimited` says that HTTP itself shows where the body ends (a length, or chunks), so that
    a cut connection cannot pass for the end. Where only the object's start was sent, `until` is
    where that ends.
    """

    total_bytes: int | None
    etag: str | None
    delimited: bool
    last_modified: str | None = None
    until: int | None = None


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


def journal_of(headers: Mapping[str, str]) -> Journal:
    """Return what an answer of 200 or 206 says of its object, but for digests."""
    content_range = parse_content_range(headers.get("content-range"))
    if content_range is not None:
        total = content_range.total
    else:
        total = parse_content_length(headers.get("content-length", ""))
    etag, modified = _validators(headers)
    return Journal(etag, total, modified)


def strong_last_modified(headers: Mapping[str, str]) -> str | None:
    """Return an answer's Last-Modified where it is a strong validator (RFC 9110 section 8.8.2.2).

    It is, where the answer was made a minute or more after: nothing can then have been changed
    twice within the second that it names.
    """
    text = headers.get("last-modified")
    modified, sent = parse_http_date(text), parse_http_date(headers.get("date"))
    if text is None or modified is None or sent is None:
        return None
    if (sent - modified).total_seconds() < STRONG_AFTER_SECONDS:
        return None
    return text.strip() if text.strip().isprintable() else None


def request_headers(part_bytes: int, journal: Journal) -> dict[str, str]:
    """Return the headers to ask with, where `part_bytes` bytes of the object are on disk.

    A range is asked for only with a strong validator to tie it to the same object (RFC 9110
    section 13.1.5), and never beyond the recorded length. No encoding may be applied: the
    bytes are counted and hashed as they come.
    """
    headers = {"accept-encoding": "identity"}
    beyond = journal.total_bytes is not None and part_bytes > journal.total_bytes
    validator = journal.validator
    dated = validator is not None and parse_http_date(validator) is not None
    if part_bytes > 0 and not beyond and validator and (is_strong(validator) or dated):
        headers["range"] = f"bytes={part_bytes}-"
        headers["if-range"] = validator
    return headers


def judge_response(
    status: int,
    headers: Mapping[str, str],
    part_bytes: int,
    journal: Journal,
    *,
    asked_range: bool,
    now: datetime,
    compressed: bool = False,
) -> Outcome:
    """Say what to do with an answer of the storage, from its status and headers alone.

    `part_bytes` and `journal` are what the request was made with, `asked_range` whether it
    had a Range, `compressed` whether the part's bytes are. Never raises, whatever the server sent.
    """
    if status in {200, 206} and (problem := _encoding_problem(headers)) is not None:
        return problem
    if status == 200:
        return _judge_whole(headers)
    if status in {206, 416} and not asked_range:
        return _judge_unasked(status, headers)
    if status == 206:
        if compression(headers.get("content-encoding")) and not compressed:
            return StartOver("The rest was compressed, and the start is not.")
        return _judge_partial(headers, part_bytes, journal)
    if status == 416:
        return _judge_unsatisfied(headers, part_bytes, journal)
    if status in _REFUSALS:
        return Refused(status)
    return _judge_error(status, headers, now)


def _encoding_problem(headers: Mapping[str, str]) -> Rejected | None:
    transfers = {
        coding.strip().lower() for coding in headers.get("transfer-encoding", "").split(",")
    }
    if transfers - {"", "identity", "chunked"}:
        return Rejected(
            "encoded_content", "The storage compressed the transfer although it was asked not to."
        )
    return None


def _judge_whole(headers: Mapping[str, str]) -> Restart | Rejected:
    etag, modified = _validators(headers)
    # RFC 9112 section 6.3: chunks override a length.
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return Restart(None, etag, delimited=True, last_modified=modified)
    length = headers.get("content-length")
    if length is None:
        return Restart(None, etag, delimited=False, last_modified=modified)
    total = parse_content_length(length)
    if total is None:
        return _bad_length()
    return Restart(total, etag, delimited=True, last_modified=modified)


def _judge_unasked(status: int, headers: Mapping[str, str]) -> Restart | Rejected:
    """Judge an answer about a range though none was asked for: it may be the whole, or its start.

    A start is of use where the rest can be asked for.
    """
    said = f"The storage answered {status} though no range was asked for."
    found = parse_content_range(headers.get("content-range")) if status == 206 else None
    if found is None or found.first != 0 or found.last is None or found.total is None:
        return Rejected("unexpected_partial", said)
    if not _has_length_of(headers, found.last + 1):
        return _bad_length()
    etag, modified = _validators(headers)
    until = None if found.last + 1 == found.total else found.last + 1
    if until is not None and etag is None and modified is None:
        return Rejected("unexpected_partial", said)
    return Restart(found.total, etag, delimited=True, last_modified=modified, until=until)


def _has_length_of(headers: Mapping[str, str], size: int) -> bool:
    """Tell whether an answer states no other length for its body."""
    length = headers.get("content-length")
    if length is None or "chunked" in headers.get("transfer-encoding", "").lower():
        return True
    return parse_content_length(length) == size


def _is_of(headers: Mapping[str, str], journal: Journal) -> bool:
    """Tell whether an answer is shown to be about the object of the part."""
    if is_strong(journal.etag):
        return headers.get("etag") == journal.etag
    modified = journal.last_modified
    return modified is not None and headers.get("last-modified", "").strip() == modified


def _judge_partial(
    headers: Mapping[str, str], part_bytes: int, journal: Journal
) -> Append | StartOver | Rejected:
    if not _is_of(headers, journal):
        return StartOver("The object has changed since its first part was fetched.")
    content_range = parse_content_range(headers.get("content-range"))
    if content_range is None or content_range.first is None or content_range.last is None:
        return StartOver("The storage sent a part without saying which one.")
    if content_range.first != part_bytes:
        return StartOver("The storage sent another part than the one asked for.")
    if content_range.total is None or journal.total_bytes not in {None, content_range.total}:
        return StartOver("The object's length is not the one recorded.")
    if not _has_length_of(headers, content_range.last - content_range.first + 1):
        if parse_content_length(headers["content-length"]) is None:
            return _bad_length()
        return StartOver("The length of the part sent contradicts its range.")
    until = content_range.last + 1
    return Append(
        content_range.total, journal.etag, None if until == content_range.total else until
    )


def _judge_unsatisfied(
    headers: Mapping[str, str], part_bytes: int, journal: Journal
) -> AlreadyComplete | StartOver:
    content_range = parse_content_range(headers.get("content-range"))
    # Another object may be as long: only what is shown to be the same is whole.
    if (
        _is_of(headers, journal)
        and content_range is not None
        and content_range.first is None
        and content_range.total == part_bytes
        and journal.total_bytes in {None, part_bytes}
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
        said = (
            "answered that nothing has changed, which nobody asked"
            if status == 304
            else "redirected, and did not say where to"
        )
        return Rejected("unexpected_redirect", f"The storage {said} ({status}).")
    if 400 <= status <= 499:
        return Rejected("storage_refused", f"The storage refused the request ({status}).", wait)
    return Rejected("unexpected_status", f"The storage answered with status {status}.", wait)


def _bad_length() -> Rejected:
    return Rejected("bad_length", "The storage stated a length that cannot be right.")


def _validators(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the strong validator there is: an ETag, else a Last-Modified."""
    etag = _strong(headers)
    return etag, strong_last_modified(headers) if etag is None else None


def _strong(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("etag")
    return etag if is_strong(etag) else None
