"""What a body of the API says of a run: a URL, a status, or why a request was refused.

The service's page, its samples, its SDK and its sibling endpoints disagree on the shape, so
every shape that any of them shows is read, and nothing is guessed beyond.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_URL_BYTES: Final = 16 * 1024
"""No store signs longer URLs, and no HTTP server takes them."""

UNUSABLE_URL: Final = "UNUSABLE_URL"
"""`remote_status` of a run whose URL cannot be fetched: not the run's fault, so polled again."""

UNREADABLE: Final = "UNREADABLE_ANSWER"
"""`remote_status` of a run of which the answer says something in no known shape."""

NOT_FOUND: Final = "HTTP 404"
"""`remote_status` of a run of which the service says that there is none, as of no other."""

FAILED_STATUSES: Final = frozenset(
    {
        "ERROR",  # `TaskStatus` of the service's SDK
        "TIMEOUT",
        "PAYMENT_REQUIRED",
        "FAILED",
        "FAILURE",
        "CANCELLED",
        "CANCELED",
        "REJECTED",
        "EXPIRED",
    }
)
_UNFINISHED_STATUSES: Final = frozenset(
    {"SUCCESS", "PENDING", "QUEUED", "RUNNING", "PROCESSING", "IN_PROGRESS", "STARTED", "CREATED"}
)

_URL_NAMES: Final = ("output_url", "file_url")
"""The schema's name, and that of the single-run endpoint with `output_type=file_url`."""
_ID_NAMES: Final = ("run_id", "id")
_ENTRY_NAMES: Final = frozenset({*_URL_NAMES, "status", "exception_reason"})
_DETAIL_NAMES: Final = ("detail", "message", "error", "exception_reason")
_MAX_DETAILS: Final = 5
_RUN_ID: Final = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Finished:
    """The run has a file to fetch; the URL is byte for byte the server's."""

    url: str = field(repr=False)
    remote_status: str | None


@dataclass(frozen=True, slots=True)
class NotYet:
    """The run is not finished, or nothing is said of it: poll later.

    `unknown` says that the service answers for other runs, and that there is none such.
    """

    remote_status: str | None
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The run will never have a file: `provider_failed`, `bad_run` or `forbidden`."""

    error_code: str
    remote_status: str | None
    message: str


Verdict = Finished | NotYet | Failed


def is_usable_url(url: str) -> bool:
    """Tell whether a URL can be asked for: absolute http(s), a host, no credentials.

    No control characters, line ends or backslashes, no space before it or in the host, and at most
    16 KiB.
    """
    if len(url) > MAX_URL_BYTES or "\\" in url or url.startswith(" "):
        return False
    if not url.isprintable() and not all(
        one.isprintable() or unicodedata.category(one) == "Zs" for one in url
    ):
        return False
    try:
        if len(url.encode()) > MAX_URL_BYTES:
            return False
        parts = urlsplit(url)
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and not any(character.isspace() for character in parts.netloc)
        and valid_port
    )


def is_entry(value: object) -> bool:
    """Tell whether a JSON object speaks of one run, rather than being keyed by run ids."""
    return isinstance(value, dict) and not _ENTRY_NAMES.isdisjoint(value)


def verdict_of(entry: object) -> Verdict:
    """Say what an answer's value for one run means.

    A status that means failure counts even beside a URL. An unknown status never fails a run;
    a reason for an exception does, unless the status is a known one that means otherwise.
    """
    if entry is None:
        return NotYet(None)
    if isinstance(entry, str):
        return _verdict_of_text(entry)
    if not isinstance(entry, dict):
        return NotYet(UNREADABLE)
    status = _text(entry.get("status"))
    reason = _text(entry.get("exception_reason"))
    word = status.upper() if status is not None else None
    if word in FAILED_STATUSES:
        return _failed(status, reason)
    urls = [entry[name] for name in _URL_NAMES if entry.get(name)]
    if not urls:
        if reason is not None and word not in _UNFINISHED_STATUSES:
            return _failed(status, reason)
        return NotYet(status)
    for url in urls:
        if isinstance(url, str) and is_usable_url(url):
            return Finished(url, status)
    return NotYet(UNUSABLE_URL)


def entries_of(body: object) -> list[tuple[str, object]] | None:
    """Return the (id, value) pairs of a bulk answer; None where its shape is not known.

    Known are: an object keyed by run id; `{"results": …}` with such an object or with a list;
    a list of objects with `run_id` or `id`, or keyed by run id. Ids are as the server wrote
    them. A list with nothing readable in it is not a known shape.
    """
    results = body.get("results") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(results, dict | list):
        return _pairs_of(body)
    inner = _pairs_of(results)
    return None if inner is None else [*inner, *(pair for pair in body.items() if _is_id(pair[0]))]


def run_id_of(key: str) -> int | None:
    """Return the run id that a key of an answer stands for; None if it is no number."""
    return int(key) if _is_id(key) else None


def detail_of(body: object) -> str | None:
    """Return why a request was refused, in the server's words, cleaned; None if it says nothing.

    Reads FastAPI's `{"detail": [{"loc", "msg", "type"}]}`, a `detail` that is a string, and
    `message` or `error`. The rejected input that FastAPI echoes is left out.
    """
    if isinstance(body, str):
        return clean_text(body) or None
    if not isinstance(body, dict):
        return None
    for name in _DETAIL_NAMES:
        value = body.get(name)
        items = value if isinstance(value, list) else [value]
        words = [word for item in items[:_MAX_DETAILS] if (word := _detail_item(item))]
        if words:
            return clean_text("; ".join(words))
    return None


def _verdict_of_text(text: str) -> Verdict:
    """Say what a plain string means: the tts endpoint answers with the URL itself."""
    if is_usable_url(text):
        return Finished(text, None)
    if "/" in text:
        return NotYet(UNUSABLE_URL)
    status = _text(text)
    if status is not None and status.upper() in FAILED_STATUSES:
        return _failed(status, None)
    return NotYet(status)


def _failed(status: str | None, reason: str | None) -> Failed:
    said = ": ".join(word for word in (status, reason) if word is not None)
    return Failed("provider_failed", status, clean_text(f"The service says: {said}"))


def _text(value: object) -> str | None:
    return clean_text(value) or None if isinstance(value, str) else None


def _pairs_of(body: object) -> list[tuple[str, object]] | None:
    if isinstance(body, dict):
        known = not body or any(_is_id(name) for name in body)
        return list(body.items()) if known else None
    if isinstance(body, list):
        pairs = [pair for item in body for pair in _pairs_of_item(item)]
        return pairs if pairs or not body else None
    return None


def _pairs_of_item(item: object) -> Iterator[tuple[str, object]]:
    if not isinstance(item, dict):
        return
    for name in _ID_NAMES:
        run_id = item.get(name)
        if isinstance(run_id, int | str) and not isinstance(run_id, bool):
            yield str(run_id), item
            return
    for key, value in item.items():
        if _is_id(key):
            yield key, value


def _detail_item(item: object) -> str | None:
    if isinstance(item, str):
        return _text(item)
    if not isinstance(item, dict):
        return None
    message = _text(item.get("msg") or item.get("message"))
    location = item.get("loc")
    if message is None or not isinstance(location, list):
        return message
    where = ".".join(str(step) for step in location[:10] if isinstance(step, int | str))
    return f"{where}: {message}" if where else message


def _is_id(key: object) -> bool:
    return isinstance(key, str) and _RUN_ID.fullmatch(key) is not None
