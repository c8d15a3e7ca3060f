"""What an answer of the API means, one pure function per endpoint.

A verdict is about one run, a judgement about a request. No run is ever blamed for an answer
that could as well be about the key, the service, the network or another run of its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from downloader.rules.answer_body import (
    Failed,
    Finished,
    NotYet,
    Verdict,
    detail_of,
    entries_of,
    is_entry,
    run_id_of,
    verdict_of,
)
from downloader.rules.http_values import retry_after_seconds
from downloader.rules.json_reading import Unreadable, read_json
from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

__all__ = [
    "MAX_BODY_BYTES",
    "Answered",
    "Blocked",
    "Failed",
    "Finished",
    "Forbidden",
    "Judgement",
    "NotYet",
    "RetryLater",
    "Suspect",
    "Verdict",
    "judge_bulk",
    "judge_single",
]

MAX_BODY_BYTES: Final = 1024 * 1024
"""Five URLs of 16 KiB need a fraction of this; a longer body is not read."""

_MAX_UNASKED: Final = 10
_MAX_KEY_CHARACTERS: Final = 60

_RETRY_CODES: Final = {
    408: "api_timeout",
    409: "conflict",
    425: "too_early",
    429: "throttled",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
_SLOWS_ALL: Final = frozenset({429, 503})
_SUSPECT_CODES: Final = {
    400: "bad_request",
    404: "not_found",
    422: "invalid_request",
}


MIN_SECRET_CHARACTERS: Final = 8
"""A shorter key is no secret (a simulator's, say), and its letters are parts of words."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A verdict for every run asked for, and the keys of the answer that no run asked for has."""

    verdicts: Mapping[int, Verdict]
    unasked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suspect:
    """A refusal: of one run, or of all that is asked for; which it is, others will tell."""

    status: int
    error_code: str
    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Forbidden:
    """403: the key, or a run that belongs to somebody else; who is to blame shows by splitting."""

    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """The whole service is closed to us; no run is to blame."""

    reason: Literal["key_refused", "payment_required"]
    message: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Nothing is said of the runs; `slow_all` where the service asks to be asked less."""

    error_code: str
    message: str
    retry_after_seconds: float | None = None
    slow_all: bool = False


Judgement = Answered | Suspect | Forbidden | Blocked | RetryLater


def judge_bulk(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    asked: Sequence[int],
    now: datetime,
) -> Judgement:
    """Judge an answer of the bulk endpoint to a request for the runs `asked`. Never raises."""
    content = _read(body)
    general = _judge_status(status, headers, content, now)
    if general is not None:
        return general
    if 200 <= status <= 299:
        entries = entries_of(content)
        return _unreadable(status) if entries is None else _answered(entries, asked)
    return _suspect(status, "batch", content, retry_after_seconds(headers, now))


def judge_single(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    run_id: int,
    now: datetime,
) -> Judgement:
    """Judge an answer of the single-run endpoint. Never raises.

    A refusal may be about this run, or be what everybody gets: it does not say which.
    """
    content = _read(body)
    general = _judge_status(status, headers, content, now)
    if general is not None:
        return general
    if 200 <= status <= 299:
        return _judge_single_content(status, content, run_id)
    return _suspect(status, "run", content, retry_after_seconds(headers, now))


def without(secret: str, judgement: Judgement) -> Judgement:
    """Take a secret out of the provider's words, which are recorded, logged and shown.

    URLs stay as they are: they are used, and redacted where they are shown.
    """
    if len(secret) < MIN_SECRET_CHARACTERS:
        return judgement

    def clean(text: str) -> str:
        return text.replace(secret, "(key)")

    if not isinstance(judgement, Answered):
        return replace(judgement, message=clean(judgement.message))
    verdicts: dict[int, Verdict] = {}
    for run_id, verdict in judgement.verdicts.items():
        word = None if verdict.remote_status is None else clean(verdict.remote_status)
        cleaned: Verdict = replace(verdict, remote_status=word)
        if isinstance(cleaned, Failed):
            cleaned = replace(cleaned, message=clean(cleaned.message))
        verdicts[run_id] = cleaned
    return Answered(verdicts, tuple(clean(text) for text in judgement.unasked))


def _judge_single_content(status: int, content: object, run_id: int) -> Judgement:
    if content is None or isinstance(content, str) or is_entry(content):
        return Answered({run_id: verdict_of(content)})
    entries = entries_of(content)
    return _unreadable(status) if entries is None else _answered(entries, [run_id])


def _judge_status(
    status: int, headers: Mapping[str, str], content: object, now: datetime
) -> Judgement | None:
    """Judge the statuses that mean the same for a batch and a run alone; None for the others."""
    if status == 401:
        # The service's words are left out: they may repeat the key.
        return Blocked("key_refused", "The service refused the API key (401).")
    if status == 402:
        message = _sentence("The service asks for payment (402)", content)
        return Blocked("payment_required", message)
    if status == 403:
        message = _sentence("The service forbids access (403)", content)
        return Forbidden(message, retry_after_seconds(headers, now))
    if status in _RETRY_CODES:
        return RetryLater(
            _RETRY_CODES[status],
            _sentence(f"The service asks to come back later ({status})", content),
            retry_after_seconds(headers, now),
            slow_all=status in _SLOWS_ALL,
        )
    if 300 <= status <= 399:
        message = f"The service redirects ({status}), which is not followed with the API key."
        return RetryLater("unexpected_redirect", message, retry_after_seconds(headers, now))
    if not 200 <= status <= 599:
        message = f"The service answered with status {status}."
        return RetryLater("unexpected_status", message, retry_after_seconds(headers, now))
    return None


def _answered(entries: Iterable[tuple[str, object]], asked: Sequence[int]) -> Answered:
    verdicts: dict[int, Verdict] = {run_id: NotYet(None) for run_id in asked}
    unasked: list[str] = []
    for key, value in entries:
        run_id = run_id_of(key)
        if run_id is not None and run_id in verdicts:
            verdicts[run_id] = verdict_of(value)
        elif len(unasked) < _MAX_UNASKED:
            unasked.append(clean_text(key, _MAX_KEY_CHARACTERS))
    return Answered(verdicts, tuple(unasked))


def _suspect(status: int, what: str, content: object, retry_after: float | None) -> Suspect:
    return Suspect(
        status,
        "server_error" if status >= 500 else _SUSPECT_CODES.get(status, "refused"),
        _sentence(f"The service refused the {what} ({status})", content),
        retry_after,
    )


def _read(body: bytes) -> object:
    return Unreadable.UNREADABLE if len(body) > MAX_BODY_BYTES else read_json(body)


def _unreadable(status: int) -> RetryLater:
    return RetryLater(
        "unreadable_answer", f"The service's answer ({status}) has no shape that is known."
    )


def _sentence(start: str, content: object) -> str:
    detail = detail_of(content)
    return clean_text(f"{start}: {detail}") if detail else f"{start}."
