"""Which proxy the environment names for a URL: read once, for clients of every make.

The variables are those that everybody reads: HTTP_PROXY and HTTPS_PROXY for URLs of that scheme,
ALL_PROXY for what is left, and NO_PROXY for whom to ask directly; in lower case they count first.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.request import getproxies

import httpx

from downloader.errors import ConfigurationError
from downloader.logger import get_logger
from downloader.rules.no_proxy import EVERYTHING, Direct, is_direct, read_no_proxy
from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOCKS: Final = ("socks5", "socks5h")
_SCHEMES: Final = ("http", "https", *_SOCKS)
_SHOWN_CHARACTERS: Final = 100

_log = get_logger(__name__)


@dataclass(frozen=True)
class Proxies:
    """The proxy for each scheme of a URL, by the variable that names it."""

    of_scheme: Mapping[str, tuple[str, str]]  # scheme -> variable, address
    direct: tuple[Direct, ...] = ()
    unreadable: tuple[str, ...] = ()  # entries of NO_PROXY

    def of(self, url: str) -> str | None:
        """Return the address of the proxy for a URL; None where it is asked directly.

        Raises:
            ConfigurationError: it is one that cannot be used.

        """
        scheme = url.partition(":")[0].lower()  # asked for each file: httpx.URL takes its time
        variable, proxy = self.of_scheme.get(scheme, ("", ""))
        if not proxy or is_direct(self.direct, url):
            return None
        return _usable(variable, proxy)

    def see_that_httpx_can(self, url: str | None) -> None:
        """Look whether httpx can ask the proxy for a URL, by default for any of https.

        Raises:
            ConfigurationError: it is one of SOCKS, and the package for that is not there.

        """
        variable, proxy = self.of_scheme.get(httpx.URL(url or "https:").scheme, ("", ""))
        if proxy.startswith(_SOCKS) and importlib.util.find_spec("socksio") is None:
            raise ConfigurationError(
                f"{variable} names a SOCKS proxy, for which httpx needs the package socksio: "
                "pip install 'httpx[socks]', or set HTTPS_PROXY to an http proxy."
            )


def environment_proxies() -> Proxies:
    """Return the proxies that the environment names.

    ALL_PROXY need only be usable where HTTPS_PROXY does not take its place: plain http is asked
    for by few.

    Raises:
        ConfigurationError: one of them cannot be used.

    """
    found = getproxies()  # of macOS's settings too, where the environment has none
    direct, unreadable = _no_proxy(found.get("no", ""))
    of_scheme: dict[str, tuple[str, str]] = {}
    if any(one == EVERYTHING for one in direct):
        return Proxies(of_scheme, direct, unreadable)
    for scheme in ("http", "https"):
        for name in (scheme, "all"):
            if found.get(name):
                of_scheme[scheme] = (f"{name.upper()}_PROXY", _with_scheme(found[name]))
                break
    for scheme, (variable, proxy) in of_scheme.items():
        if scheme == "https" or variable != "ALL_PROXY":
            _usable(variable, proxy)
    return Proxies(of_scheme, direct, unreadable)


@functools.lru_cache(maxsize=8)  # said once
def _no_proxy(text: str) -> tuple[tuple[Direct, ...], tuple[str, ...]]:
    direct, unreadable = read_no_proxy(text)
    if unreadable:
        _log.warning("no_proxy.unreadable", entries=shown_entries(unreadable))
    return direct, unreadable


def shown_entries(entries: tuple[str, ...]) -> str:
    """Return entries of NO_PROXY as they may be shown."""
    return clean_text(", ".join(entries), _SHOWN_CHARACTERS)


def _with_scheme(proxy: str) -> str:
    """Return a proxy's address with a scheme that is known: http by default, SOCKS is SOCKS 5."""
    scheme, mark, rest = proxy.partition("://")
    if not mark:
        return f"http://{proxy}"
    scheme = scheme.lower()
    return f"{'socks5h' if scheme == 'socks' else scheme}://{rest}"


@functools.lru_cache(maxsize=8)
@functools.lru_cache(maxsize=8)
def _usable(variable: str, proxy: str) -> str:
    try:
        url = httpx.Proxy(proxy).url
        usable = bool(url.host) and url.scheme in _SCHEMES
    except (httpx.InvalidURL, ValueError):
        usable = False
    if usable:
        return proxy
    raise ConfigurationError(  # without its address: a proxy has a password
        f"{variable} cannot be used: it is to be the address of an http, https or SOCKS 5 proxy, "
        "such as http://proxy.example:3128. Proxies are read from HTTPS_PROXY, HTTP_PROXY and "
        "ALL_PROXY."
    )
