"""Presigned URLs: how each store writes them, and how it refuses them.

The signature is a real HMAC over the method, the path and the query **as sent**: a client that
re-escapes a URL gets SignatureDoesNotMatch, where some stores would forgive it. The parameters
carry escapes that a normalising client changes (`%2F`, `%7E`, `+`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SECRET: Final = b"the simulator signs for this machine alone"
_TEMPORARY_CLAIM: Final = 10
"""How many times longer than it lives a URL by temporary credentials says that it will."""


@dataclass(frozen=True)
class Refusal:
    """A status and the XML that comes with it."""

    status: int
    body: bytes


def s3_error(status: int, code: str, message: str, **elements: str) -> Refusal:
    """S3's form of an error: `<Error><Code>…</Code><Message>…</Message>…</Error>`."""
    parts = {"Code": code, "Message": message, **elements}
    parts |= {"RequestId": "SIMULATED00000001", "HostId": "c2ltdWxhdGVk"}
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in parts.items())
    return Refusal(
        status, f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()
    )


@dataclass(frozen=True)
class Terms:
    """When a URL was signed, for how long, and when it dies (epoch seconds)."""

    signed_at: datetime
    expires_seconds: int
    dies_at: float

    @property
    def says(self) -> datetime:
        """When the URL itself says that it expires."""
        return self.signed_at + timedelta(seconds=self.expires_seconds)


def _compact(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%SZ")


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _v4(prefix: str, algorithm: str, scope: str) -> Callable[[Terms], list[str]]:
    """Write the parameters of AWS signature version 4, and of Google's version of it."""

    def parameters(terms: Terms) -> list[str]:
        credential = quote(f"SIMULATOR/{terms.signed_at:%Y%m%d}/{scope}", safe="")
        return [
            f"{prefix}-Algorithm={algorithm}",
            f"{prefix}-Credential={credential}",
            f"{prefix}-Date={_compact(terms.signed_at)}",
            f"{prefix}-Expires={terms.expires_seconds}",
            f"{prefix}-SignedHeaders=host",
        ]

    return parameters


_aws = _v4("X-Amz", "AWS4-HMAC-SHA256", "us-east-1/s3/aws4_request")
_google = _v4("X-Goog", "GOOG4-RSA-SHA256", "auto/storage/goog4_request")


def _temporary(terms: Terms) -> list[str]:
    token = base64.b64encode(f"session until {terms.dies_at}".encode()).decode()
    return [*_aws(terms), f"X-Amz-Security-Token={quote(token, safe='')}"]


def _v4_moment(prefix: str) -> Callable[[Mapping[str, str]], float]:
    return lambda query: datetime.strptime(query[f"{prefix}-Date"], "%Y%m%dT%H%M%S%z").timestamp()


def _v4_expiry(prefix: str) -> Callable[[Mapping[str, str]], float]:
    begin = _v4_moment(prefix)
    return lambda query: begin(query) + int(query[f"{prefix}-Expires"])


_aws_begin = _v4_moment("X-Amz")


def _temporary_expiry(query: Mapping[str, str]) -> float:
    token = base64.b64decode(query["X-Amz-Security-Token"]).decode()
    return float(token.removeprefix("session until "))


def _epoch_expiry(query: Mapping[str, str]) -> float:
    return float(query["Expires"])


def _azure_moment(name: str) -> Callable[[Mapping[str, str]], float]:
    return lambda query: datetime.strptime(query[name], "%Y-%m-%dT%H:%M:%S%z").timestamp()


def _has_expired(status: int, code: str) -> Callable[[str, str], Refusal]:
    def refuse(now: str, expires: str) -> Refusal:
        return s3_error(status, code, "Request has expired", Expires=expires, ServerTime=now)

    return refuse


@dataclass(frozen=True)
class Store:
    """How one kind of store writes a URL and what it says of an expired one."""

    parameters: Callable[[Terms], list[str]]
    expiry: Callable[[Mapping[str, str]], float]
    expired: Callable[[str, str], Refusal]
    """Takes the server's time and the expiry, both ISO."""
    signature: str = "X-Amz-Signature"
    begin: Callable[[Mapping[str, str]], float] | None = _aws_begin
    """From when on a URL is good by its own parameters; None: it does not say."""
    not_yet: Callable[[str, str], Refusal] = lambda now, _: s3_error(
        403, "AccessDenied", "Request is not valid yet", ServerTime=now
    )
    """Takes the server's time and the beginning, both ISO."""


STORES: Final[Mapping[str, Store]] = {
    "s3": Store(_aws, _v4_expiry("X-Amz"), _has_expired(403, "AccessDenied")),
    "s3-temporary": Store(
        _temporary,
        _temporary_expiry,
        lambda now, _: s3_error(
            400, "ExpiredToken", "The provided token has expired.", ServerTime=now
        ),
    ),
    "s3-v2": Store(
        lambda terms: [
            "AWSAccessKeyId=SIMULATOR",
            f"Expires={int(terms.says.timestamp())}",
        ],
        _epoch_expiry,
        _has_expired(403, "AccessDenied"),
        signature="Signature",
        begin=None,
    ),
    "cloudfront": Store(
        lambda terms: [
            f"Expires={int(terms.says.timestamp())}",
            "Key-Pair-Id=KSIMULATOR",
        ],
        _epoch_expiry,
        lambda _now, _expires: s3_error(403, "AccessDenied", "Access denied"),
        signature="Signature",
        begin=None,
    ),
    "r2": Store(_aws, _v4_expiry("X-Amz"), _has_expired(403, "ExpiredRequest")),
    "gcs": Store(
        _google,
        _v4_expiry("X-Goog"),
        lambda now, expires: s3_error(
            400,
            "ExpiredToken",
            "Invalid argument.",
            Details=f"The provided token has expired. Request signature expired at: {expires}",
            ServerTime=now,
        ),
        signature="X-Goog-Signature",
        begin=_v4_moment("X-Goog"),
    ),
    "azure": Store(
        lambda terms: [
            "sv=2024-11-04",
            f"st={quote(_iso(terms.signed_at), safe='')}",
            f"se={quote(_iso(terms.says), safe='')}",
            "sr=b",
            "sp=r",
        ],
        _azure_moment("se"),
        lambda now, expires: s3_error(
            403,
            "AuthenticationFailed",
            "Server failed to authenticate the request.",
            AuthenticationErrorDetail=(
                f"Signature not valid in the specified time frame: Expiry [{expires}] - "
                f"Current [{now}]"
            ),
        ),
        signature="sig",
        begin=_azure_moment("st"),
        not_yet=lambda now, begin: s3_error(
            403,
            "AuthenticationFailed",
            "Server failed to authenticate the request.",
            AuthenticationErrorDetail=(
                f"Signature not valid in the specified time frame: Start [{begin}] - "
                f"Current [{now}]"
            ),
        ),
    ),
    "b2": Store(
        _aws,
        _v4_expiry("X-Amz"),
        lambda now, _: s3_error(401, "UnauthorizedAccess", "expired_auth_token", ServerTime=now),
    ),
}


def _signature(method: str, path: str, query: str) -> str:
    text = f"{method}\n{path}\n{query}".encode("latin-1")
    return hmac.new(_SECRET, text, hashlib.sha256).hexdigest()


def presigned(origin: str, path: str, *, store: str, now: float, lifetime: float) -> str:
    """Sign a URL for GET of `path`, from `now` (epoch seconds) on for `lifetime` seconds."""
    claimed = lifetime * _TEMPORARY_CLAIM if store == "s3-temporary" else lifetime
    # Whole seconds only: a URL that is to live lives a little longer, one that is not is dead.
    says = math.ceil(now + claimed) if claimed > 0 else math.floor(now + claimed)
    # No store takes an expiry below one second: a URL that has expired was signed earlier.
    signed_at = min(math.floor(now), says - 1)
    terms = Terms(datetime.fromtimestamp(signed_at, UTC), says - signed_at, now + lifetime)
    kind = STORES[store]
    name = path.rpartition("/")[2]
    parameters = kind.parameters(terms)
    parameters.append(f"response-content-disposition=attachment%3B+filename%3D%22a%7E{name}%22")
    query = "&".join(parameters)
    return f"{origin}{path}?{query}&{kind.signature}={_signature('GET', path, query)}"


def refusal(method: str, path: str, query: str, *, store: str, now: float) -> Refusal | None:
    """Why this request is refused, or None; `path` and `query` as they came, still escaped."""
    kind = STORES[store]
    signed, found, given = query.rpartition(f"&{kind.signature}=")
    if not found:
        return s3_error(403, "AccessDenied", "Access Denied")
    if not hmac.compare_digest(given, _signature(method, path, signed)):
        return s3_error(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            SignatureProvided=given,
            StringToSign=f"{method}\n{path}\n{query}",
        )
    parameters = {name: values[0] for name, values in parse_qs(signed).items()}
    if kind.begin is not None and now < (begin := kind.begin(parameters)):
        return kind.not_yet(_iso_of(now), _iso_of(begin))
    dies_at = kind.expiry(parameters)
    return expired(store=store, now=now, dies_at=dies_at) if now >= dies_at else None


def expired(*, store: str, now: float, dies_at: float) -> Refusal:
    """Return what the store says to a URL that has expired."""
    return STORES[store].expired(_iso_of(now), _iso_of(dies_at))


def _iso_of(seconds: float) -> str:
    return _iso(datetime.fromtimestamp(seconds, UTC))
