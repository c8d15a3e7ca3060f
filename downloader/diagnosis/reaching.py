"""Addresses: what may be shown of them; and calls that are waited for so long and no longer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import httpx

from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns, in a thread that is left to itself where it takes longer.

    Raises:
        TimeoutError: it takes longer.

    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not returned:
        raise TimeoutError
    return returned[0]


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL; what is none becomes a host that is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("https:")
    host = f"[{host}]" if ":" in host else host or "invalid"
    scheme = parts.scheme if parts.scheme in ("http", "https") else "https"
    return f"{scheme}://{host}" + ("" if port is None else f":{port}")


def show_proxy(proxy: str) -> str:
    """Return what may be shown of a proxy's address: not its user, not its password."""
    url = httpx.URL(proxy)
    port = "" if url.port is None else f":{url.port}"
    return clean_text(f"{url.scheme}://{url.host}{port}")
