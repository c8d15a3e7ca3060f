"""Where a request goes: an address taken apart, and the one that a redirect leads to."""

from __future__ import annotations

import functools
import re
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import httpx

from downloader.rules.answer_body import is_usable_url
from downloader.transfer.problems import unusable_redirect, unusable_url

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")
_MAX_CHARACTERS: Final = 65_536  # httpx's
_ABSOLUTE: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Browsers escape this in a path (https://url.spec.whatwg.org/#path-percent-encode-set).
_AS_IT_IS: Final = "".join(map(chr, range(33, 127)))
_AS_IT_IS_IN_A_PATH: Final = "".join(sorted(set(_AS_IT_IS) - set('"<>^`{}')))


class Address(NamedTuple):
    """A URL, as every engine reads it."""

    origin: str  # scheme, host and port; ASCII
    host: str  # ASCII, without brackets
    target: str  # what goes into the request line; ASCII


def address_of(url: str) -> Address:
    """Take a URL apart.

    Raises:
        TransferError: it is none, or not of http or https.

    """
    if len(url) > _MAX_CHARACTERS or _UNPRINTABLE.search(url):
        raise unusable_url("The URL is none that can be asked for.")
    try:
        parts = urlsplit(url)
        scheme, origin, host = _origin(parts.scheme, parts.netloc)
        target = _target(url, parts.netloc)
    except (httpx.InvalidURL, ValueError):
        raise unusable_url("The URL is none that can be asked for.") from None
    if scheme not in ("http", "https"):
        raise unusable_url("The URL is neither of http nor of https.")
    # What some client unescapes leads elsewhere than we think; of an IPv6 address it is the zone.
    if not host or ("%" in host and ":" not in host):
        raise unusable_url("The URL's host name is none that can be looked up.")
    return Address(origin, host, target)


@functools.lru_cache(maxsize=16)  # run after run is at the same storage
def _origin(scheme: str, netloc: str) -> tuple[str, str, str]:
    """Return scheme, origin and host as httpx reads them.

    Of the origin alone: httpx would look at each character of a long signature, twice.
    """
    parsed = httpx.URL(f"{scheme}://{netloc}")
    return (
        parsed.scheme,
        f"{parsed.scheme}://{parsed.netloc.decode('ascii')}",
        parsed.raw_host.decode("ascii"),
    )


def _target(url: str, netloc: str) -> str:
    """Return what goes into the request line: path and query as given.

    As browsers do it, spaces at its end are dropped, and what is raw there and cannot be is
    escaped: a space, what is not ASCII, and in a path quotes, braces and the like.
    """
    _, _, after = url.partition("://")
    rest = after[len(netloc) :].partition("#")[0].rstrip(" ")
    if not rest.startswith("/"):
        rest = "/" + rest
    path, mark, query = rest.partition("?")
    return quote(path, safe=_AS_IT_IS_IN_A_PATH) + mark + quote(query, safe=_AS_IT_IS)


def redirected(url: str, location: str) -> str:
    """Return the URL that a redirect leads to, byte for byte where it stands alone.

    Raises:
        TransferError: it leads to where we do not go.

    """
    location = location.strip()
    try:
        if _ABSOLUTE.match(location):
            target = location
        elif location.startswith("/") and not location.startswith("//"):
            target = "{}://{}".format(*urlsplit(url)) + location
        else:
            target = urljoin(url, location)
        if is_usable_url(target):
            return target
    except ValueError:  # brackets, port or host make no sense
        pass
    raise unusable_redirect("only http and https are, without credentials")
