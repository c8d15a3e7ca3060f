"""Addresses and connections: what may be shown of them, and whether they can be made, in time."""

from __future__ import annotations

import base64
import contextlib
import http.client
import ssl
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import httpx

from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from downloader.http import Authorities

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


def connect(
    origin: str, proxy: str | None, authorities: Authorities, *, timeout_seconds: float
) -> None:
    """Connect to an origin, with TLS where it is https, and send it nothing.

    Through an https proxy only the proxy itself is connected to: TLS within TLS is what the
    standard library cannot do.

    Raises:
        OSError: it cannot be reached, or cannot be trusted.
        ValueError: the origin is none.

    """
    context = ssl.create_default_context(cafile=authorities.file, capath=authorities.folder)
    target = urlsplit(origin)
    first = target if proxy is None else urlsplit(proxy)
    tunnelled = proxy is not None and (first.scheme, target.scheme) == ("http", "https")
    connection: http.client.HTTPConnection
    if first.scheme == "https" or tunnelled:
        connection = http.client.HTTPSConnection(
            first.hostname or "", first.port, timeout=timeout_seconds, context=context
        )
        if tunnelled:
            connection.port = first.port or 80
            connection.set_tunnel(target.hostname or "", target.port, _credentials(proxy))
    else:
        connection = http.client.HTTPConnection(
            first.hostname or "", first.port, timeout=timeout_seconds
        )
    answers: list[http.client.HTTPResponse] = []

    def answer(*arguments: Any, **options: Any) -> http.client.HTTPResponse:  # noqa: ANN401 - its own
        answers.append(http.client.HTTPResponse(*arguments, **options))
        return answers[-1]

    # Of a proxy that refuses: some versions of Python leave it open.
    connection.response_class = answer  # type: ignore[assignment] # called as the class is
    try:
        with contextlib.closing(connection):
            try:
                connection.connect()
            finally:
                for one in answers:
                    one.close()
    except http.client.HTTPException as error:  # a proxy that does not speak HTTP
        raise OSError(f"the proxy's answer is none ({type(error).__name__})") from None


def _credentials(proxy: str | None) -> dict[str, str]:
    """Return the header by which a proxy knows us, where its address has a user (RFC 9110, 11)."""
    parts = urlsplit(proxy or "")
    if parts.username is None:
        return {}
    named = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(named.encode()).decode("ascii")}


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
