"""When a presigned URL lives, and how to tell that it was refused for being too old, or too young.

Which store stands behind the service's URLs is undocumented, so that every common way of
writing the expiry is read: S3 v4 and its kin, Google Cloud Storage, S3 v2, Azure, CloudFront,
Tencent COS.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from downloader.rules.http_values import parse_http_date
from downloader.rules.json_reading import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPIRY_MARGIN_SECONDS: Final = 10.0
"""A URL with less than this to live is not used: a store judges when the request arrives."""

AHEAD_SECONDS: Final = 2.0
"""So closely clocks cannot be compared: a Date has whole seconds, and takes a while to come."""

BODY_HEAD_BYTES: Final = 16 * 1024
"""How much of a refusal's body is read: the code stands at its start."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""An expiry before this is no date: `Expires=3600` means something else."""

_PLAUSIBLE_YEARS: Final = range(2000, 2200)
"""A clock outside is broken, or lies: what is reckoned from it would be no date."""

_DATED_PREFIXES: Final = ("x-amz", "x-goog", "x-oss")
_DATES: Final = frozenset(f"{prefix}-date" for prefix in _DATED_PREFIXES)
_COMPACT_DATE: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_ISO_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.IGNORECASE,
)
_CLOUDFRONT_ALPHABET: Final = str.maketrans("-_~", "+=/")
_MAX_POLICY_CHARACTERS: Final = 65_536

_REFUSALS: Final = frozenset({400, 401, 403})
# The name of the object and its bucket may hold any word, "expired" among them.
_NAMES: Final = re.compile(
    r"<(key|resource|bucketname|bucket|requestid|hostid|canonicalrequest|stringtosign)>[^<]*"
)
_SERVER_TIME: Final = re.compile(rb"<ServerTime>([^<]{1,40})</ServerTime>", re.IGNORECASE)
_REQUEST_TIME: Final = re.compile(rb"<RequestTime>([^<]{1,40})</RequestTime>", re.IGNORECASE)
# S3, MinIO (RequestNotReadyYet), Amazon's signatures, and words of others.
_NOT_YET: Final = re.compile(
    r"not yet (valid|current)|not valid yet|not ?yet ?valid|notreadyyet|not valid before"
)
_SKEWED: Final = "requesttimetooskewed"
_COS_SPAN: Final = re.compile(r"([0-9]{9,11});([0-9]{9,11})")


def url_expires_at(url: str) -> datetime | None:
    """Return when the URL expires by the store's clock (UTC); None if it does not say.

    Where it says so in several ways, the earliest holds. Never raises.
    """
    parameters = _parameters(url)
    expiries = [*_dated(parameters), *_absolute(parameters)]
    return min((expiry for expiry in expiries if expiry >= _EARLIEST), default=None)


def url_valid_from(url: str) -> datetime | None:
    """Return from when on the URL is valid by the store's clock (UTC); None if it does not say.

    Where it says so in several ways, the latest holds. Never raises.
    """
    parameters = _parameters(url)
    starts = [*_signed(parameters), *_starts(parameters)]
    return max((start for start in starts if start >= _EARLIEST), default=None)


def seconds_until_valid(
    url: str, status: int, server_date_header: str | None, body: bytes, now: datetime
) -> float | None:
    """Return how long a URL that was just refused is yet to wait until it is valid, in seconds.

    None: it was not refused for that. 0: it was, and nothing tells how long. The URL's own
    beginning is compared with the time of who refused it, since a clock is ahead somewhere.
    """
    if status not in _REFUSALS:
        return None
    text = _said(body)
    says_so = _NOT_YET.search(text) is not None
    starts = url_valid_from(url)
    if starts is None and _SKEWED in text and (found := _REQUEST_TIME.search(body)):
        said = found[1].decode("latin-1")
        starts = _compact_date(said) or parse_http_date(said) or _iso_time(said)
    if starts is not None:
        offset = clock_offset(server_date_header, body, now) or timedelta(0)
        left = (starts - (now + offset)).total_seconds()
        if left > (0 if says_so or _SKEWED in text else AHEAD_SECONDS):
            return left
    return 0.0 if says_so else None


def is_usable(
    expires_at: datetime | None,
    now: datetime,
    margin_seconds: float = EXPIRY_MARGIN_SECONDS,
) -> bool:
    """Tell whether a request may still start; `now` is the store's time where that is known."""
    return expires_at is None or (expires_at - now).total_seconds() > margin_seconds


def says_expired(status: int, body_head: bytes) -> bool:
    """Tell whether a refusal of the storage means that the URL has expired.

    The status is 400, 401 or 403; the body, of which 16 KiB are looked at, has one of the
    codes `ExpiredToken`, `ExpiredRequest`, `RequestExpired`, `expired_auth_token`,
    `RequestTimeTooSkewed`, or a text with "expired" or Azure's "specified time frame". Ask
    `seconds_until_valid` first: some of them are said of what is not valid yet as well.
    """
    if status not in _REFUSALS:
        return False
    text = _said(body_head)
    return "expired" in text or "specified time frame" in text or _SKEWED in text


def _said(body_head: bytes) -> str:
    return _NAMES.sub("", body_head[:BODY_HEAD_BYTES].decode("utf-8", "replace").lower())


def clock_offset(
    server_date_header: str | None, body: bytes | None, now: datetime
) -> timedelta | None:
    """Return the server's clock minus ours, or None if it does not tell a time that can be right.

    `ServerTime` in an error body of S3 wins over the Date header, which a proxy may have set.
    """
    found = _SERVER_TIME.search((body or b"")[:BODY_HEAD_BYTES])
    server_time = _iso_time(found[1].decode("latin-1")) if found else None
    if server_time is None:
        server_time = parse_http_date(server_date_header)
    if server_time is None or server_time.year not in _PLAUSIBLE_YEARS:
        return None
    return server_time - now


@lru_cache(maxsize=1)  # one URL is asked for both of its times
def _parameters(url: str) -> list[tuple[str, str]]:
    query = url.partition("?")[2].partition("#")[0]
    found = []
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        # Not unquote_plus: the offset of an Azure time has a plus sign.
        found.append((unquote(name).lower(), unquote(value)))
    return found


def _dated(parameters: list[tuple[str, str]]) -> Iterator[datetime]:
    """Yield date plus lifetime: S3 v4, Google Cloud Storage v4 and OSS v4."""
    for prefix in _DATED_PREFIXES:
        dates = [_compact_date(value) for name, value in parameters if name == f"{prefix}-date"]
        signed_at = min((date for date in dates if date is not None), default=None)
        for name, value in parameters:
            if name == f"{prefix}-expires" and signed_at is not None:
                expiry = _after(signed_at, value)
                if expiry is not None:
                    yield expiry


def _absolute(parameters: list[tuple[str, str]]) -> Iterator[datetime]:
    """Yield points in time: S3 v2, CloudFront and Google's `Expires`; Azure's `se`; policies."""
    for name, value in parameters:
        expiry: datetime | None = None
        if name == "expires":
            expiry = _after(_EPOCH, value)
        elif name == "se":
            expiry = _iso_time(value)
        elif name == "policy":
            yield from _policy_dates(value, "DateLessThan")
        elif name == "q-sign-time" and (span := _COS_SPAN.fullmatch(value)):
            expiry = _after(_EPOCH, span[2])
        if expiry is not None:
            yield expiry


def _signed(parameters: list[tuple[str, str]]) -> Iterator[datetime]:
    """Yield when it was signed, as S3 v4, Google Cloud Storage v4 and OSS v4 have it."""
    for name, value in parameters:
        if name in _DATES and (date := _compact_date(value)) is not None:
            yield date


def _starts(parameters: list[tuple[str, str]]) -> Iterator[datetime]:
    """Yield points in time: Azure's `st`, policies, Tencent's span."""
    names = {name for name, _ in parameters}
    for name, value in parameters:
        start: datetime | None = None
        if name == "st" and names & {"se", "sig"}:
            start = _iso_time(value)
        elif name == "policy":
            yield from _policy_dates(value, "DateGreaterThan")
        elif name == "q-sign-time" and (span := _COS_SPAN.fullmatch(value)):
            start = _after(_EPOCH, span[1])
        if start is not None:
            yield start


def _compact_date(text: str) -> datetime | None:
    if _COMPACT_DATE.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text)  # strptime takes ten times as long
    except ValueError:
        return None


def _after(start: datetime, seconds: str) -> datetime | None:
    if _SECONDS.fullmatch(seconds) is None:
        return None
    try:
        return start + timedelta(seconds=float(seconds))
    except OverflowError:
        return None


def _iso_time(text: str) -> datetime | None:
    if _ISO_TIME.fullmatch(text) is None:
        return None
    try:
        parsed = datetime.fromisoformat(text.upper())
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _policy_dates(encoded: str, condition: str) -> Iterator[datetime]:
    """Yield what a condition on the date is in every statement of a CloudFront custom policy."""
    if len(encoded) > _MAX_POLICY_CHARACTERS:
        return
    try:
        policy = read_json(base64.b64decode(encoded.translate(_CLOUDFRONT_ALPHABET)))
    except ValueError:
        return
    statements = _member(policy, "Statement")
    for statement in statements if isinstance(statements, list) else [statements]:
        epoch = _member(_member(_member(statement, "Condition"), condition), "AWS:EpochTime")
        if isinstance(epoch, int | float | str) and not isinstance(epoch, bool):
            expiry = _after(_EPOCH, str(epoch))
            if expiry is not None:
                yield expiry


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None
