"""What may be shown of texts from outside: no query of a URL, no signature, no control characters.

A presigned URL is a password: whoever holds its query can fetch the file. Storage services
echo the signature and the string to sign in their error bodies, so such a body is never
shown before it has passed through here.
"""

from __future__ import annotations

import re
from typing import Final

MAX_TEXT_CHARACTERS: Final = 500
"""The longest excerpt of a provider's text that is kept: enough for a sentence and a code."""

MAX_SHOWN_URL_CHARACTERS: Final = 500
"""The longest redacted URL that is shown: hosts and paths of real stores are far shorter."""

_SCANNED_CHARACTERS: Final = 65_536
"""How much of a text is cleaned before it is cut to an excerpt, so that cost is bounded."""

_HIDDEN: Final = "…"

# A scheme has at most 16 characters here: an open-ended one would make the search quadratic.
# The slashes may be escaped as JSON does it.
_URL: Final = re.compile(
    r"""(?P<start>[a-z][a-z0-9+.-]{0,15}:(?:\\?/){2})(?P<rest>[^\s"<>]*)""", re.IGNORECASE
)
_RELATIVE_QUERY: Final = re.compile(r"""\?[^\s"<>=?]{1,256}=[^\s"<>]*""")

_EQUALS: Final = r"""(?:\\?["'])?\s*(?:=|%(?:25)?3D)\s*(?:\\?["'])?"""
_EQUALS_OR_COLON: Final = r"""(?:\\?["'])?\s*(?:=|:|%(?:25)?3D)\s*(?:\\?["'])?"""
_QUOTED_COLON: Final = r"""\\?["']\s*:\s*(?:\\?["'])?"""
_VALUE: Final = r"""[^\s"'<>&]+"""
_BOUNDARY: Final = r"(?:(?<![a-z0-9])|(?<=%3f)|(?<=%26)|(?<=%253f)|(?<=%2526))"

_SECRETS: Final = (
    # Names that mean nothing else: their value goes, however it is written.
    re.compile(
        r"(?P<name>x-(?:amz|goog|oss|obs|cos)-(?:signature|credential|security-token)"
        rf"|x-api-key|api[-_ ]?key|authorization)(?P<equals>{_EQUALS_OR_COLON})"
        rf"(?:(?:bearer|basic|aws4-hmac-sha256)\s+)?{_VALUE}",
        re.IGNORECASE,
    ),
    # Words of everyday language: only as a parameter or as a key of JSON.
    re.compile(
        r"(?P<name>signature|security-?token|access-?key-?id|accessid|key-pair-id|policy|token"
        rf"|{_BOUNDARY}sig)(?P<equals>{_EQUALS}|{_QUOTED_COLON}){_VALUE}",
        re.IGNORECASE,
    ),
)
_SECRET_ELEMENT: Final = re.compile(
    r"<(?P<element>SignatureProvided|StringToSign|StringToSignBytes|CanonicalRequest"
    r"|CanonicalRequestBytes|AWSAccessKeyId|OSSAccessKeyId|Token-0|AuthenticationErrorDetail)>"
    r"[^<]*",
    re.IGNORECASE,
)


def redact_url(url: str) -> str:
    """Return what may be shown of a URL: scheme, host and path, and "?…" where it had a query."""
    shown = _printable(url[:_SCANNED_CHARACTERS])
    found = _URL.match(shown)
    if found is None:
        return _cut(_redact_names(_bare(shown)), MAX_SHOWN_URL_CHARACTERS)
    location = found["start"] + _bare(shown[found.end("start") :], has_authority=True)
    return _cut(_redact_names(location), MAX_SHOWN_URL_CHARACTERS)


def redact_text(text: str) -> str:
    """Return the text with every URL in it redacted, and the value of every known secret name."""
    text = _SECRET_ELEMENT.sub(lambda found: f"<{found['element']}>{_HIDDEN}", text)
    text = _URL.sub(_redact_match, text)
    text = _RELATIVE_QUERY.sub(f"?{_HIDDEN}", text)
    return _redact_names(text)


def clean_text(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Return a text of somebody else's fit to be stored and shown on one line.

    Control characters, lone surrogates and invisible marks are dropped, white space becomes a
    single space, secrets are redacted, and at most `limit` characters are kept.
    """
    shown = _printable(text[:_SCANNED_CHARACTERS])
    return _cut(redact_text(" ".join(shown.split())), limit)


def _redact_match(found: re.Match[str]) -> str:
    rest = found["rest"]
    # A bracket or full stop that closes the sentence around the URL is not part of it.
    tail = rest[len(rest.rstrip("')].,;")) :]
    return found["start"] + _bare(rest[: len(rest) - len(tail)], has_authority=True) + tail


def _bare(location: str, *, has_authority: bool = False) -> str:
    """Drop query, fragment and, where it starts with an authority, the credentials."""
    before, mark, _ = location.partition("?")
    before = before.partition("#")[0]
    if has_authority:
        authority, slash, path = before.partition("/")
        before = authority.rpartition("@")[2] + slash + path
    return before + mark + _HIDDEN if mark else before


def _redact_names(text: str) -> str:
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: found["name"] + found["equals"] + _HIDDEN, text)
    return text


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else " " if character.isspace() else ""
        for character in text
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + _HIDDEN
