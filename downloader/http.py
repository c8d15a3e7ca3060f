"""How HTTP clients are made: nothing followed, nothing decoded, nothing remembered.

The API's client and the storage's share these rules and nothing else: the one has the key, the
other must never see it. What the environment says of proxies and certificates is read here, for
clients of every make.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import threading
import time
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import certifi
import httpcore
import httpx
from httpx._utils import URLPattern, get_environment_proxies

from downloader import __version__
from downloader.errors import ConfigurationError
from downloader.logger import TELLTALES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REQUEST_HEADERS: Final = {
    "user-agent": f"downloader/{__version__}",
    "accept-encoding": "identity",  # bytes are counted and hashed as they come
}
"""What every client says of itself."""

_QUOTED_BYTES: Final = re.compile(r""":? (?:bytearray\()?b['"].*""", re.DOTALL)
_WORDS_CHARACTERS: Final = 200


def make_client(
    timeout: httpx.Timeout,
    *,
    keepalive_connections: int,
    headers: Mapping[str, str],
    on_response: Callable[[httpx.Response], None],
    proxies: bool = True,
) -> httpx.Client:
    """Return a blocking client that any number of threads may share.

    Without `proxies` those of the environment are not asked.

    Raises:
        ConfigurationError: the environment's proxy or TLS settings cannot be used.

    """
    if proxies:
        environment_proxies()
    try:
        client = httpx.Client(
            follow_redirects=False,
            timeout=timeout,
            # No bound on connections: the number of threads is one, and waiting for a
            # connection would only hide a leak.
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=keepalive_connections
            ),
            headers={**REQUEST_HEADERS, **headers},
            event_hooks={"response": [on_response]},
            cookies=_NoCookies(),
            mounts=None if proxies else dict.fromkeys(("all://", "http://", "https://")),
        )
    except _UNUSABLE as error:
        raise _unusable_environment(error) from None  # a proxy has a password
    _keep_time(client)
    return client


class Proxies:
    """Which proxy the environment names for a URL, as httpx reads it."""

    def __init__(self, of_pattern: Mapping[str, str | None]) -> None:
        patterns = ((URLPattern(pattern), proxy) for pattern, proxy in of_pattern.items())
        self._patterns = sorted(patterns, key=lambda one: one[0])  # the narrowest first

    def of(self, url: str) -> str | None:
        """Return the address of the proxy for a URL; None where it is asked directly."""
        if not self._patterns:
            return None
        asked = httpx.URL(url)
        return next((proxy for pattern, proxy in self._patterns if pattern.matches(asked)), None)


def environment_proxies() -> Proxies:
    """Return the proxies that the environment names.

    Raises:
        ConfigurationError: one of them cannot be used.

    """
    try:
        found = get_environment_proxies()
        for proxy in filter(None, found.values()):
            url = httpx.Proxy(proxy).url
            if not url.host or url.scheme not in ("http", "https"):
                raise ValueError("no proxy of ours")
        return Proxies(found)
    except _UNUSABLE as error:
        raise _unusable_environment(error) from None  # a proxy has a password


class Authorities(NamedTuple):
    """Where the certificates are of those who vouch for servers: a file, or else a folder."""

    file: str | None
    folder: str | None


def environment_authorities() -> Authorities:
    """Return whom to trust, by the rule that httpx has: SSL_CERT_FILE, SSL_CERT_DIR, certifi.

    Raises:
        ConfigurationError: the file that the environment names cannot be used.

    """
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            ssl.create_default_context(cafile=file)
        except _UNUSABLE as error:
            raise _unusable_environment(error) from None  # a proxy has a password
        return Authorities(file, None)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return Authorities(None, folder)
    return Authorities(certifi.where(), None)


# ssl.SSLError is an OSError.
_UNUSABLE: Final = (httpx.InvalidURL, ImportError, OSError, ValueError)


def _unusable_environment(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        "The environment's proxy or TLS settings cannot be used "
        f"({type(error).__name__}): check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY (http and https "
        "proxies are supported), SSL_CERT_FILE and SSL_CERT_DIR."
    )


def expect_within(seconds: float | None) -> None:
    """Let this thread's reads go on for so many seconds from now, and fail after; None: for ever.

    A time-out on silence alone never ends an answer that comes a byte at a time, nor one of
    nothing but interim answers (status 100 to 199): whoever waits for an answer, or for the next
    piece of one, says here how long in all. A read past it raises `httpx.ReadTimeout`.
    """
    _thread.due = None if seconds is None else time.monotonic() + seconds


class _Thread(threading.local):
    due: float | None = None


_thread: Final = _Thread()


def _is_not_ours(_record: logging.LogRecord) -> bool:
    """Let only what other users of these libraries do be told: ours would be told with its URL."""
    return _thread.due is None


for _name in TELLTALES:
    if _name.startswith("http"):
        logging.getLogger(_name).addFilter(_is_not_ours)


class _NoCookies(CookieJar):
    """Remembers nothing, and does not even read: one answer has no say in the next request."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Take no cookie."""


def _keep_time(client: httpx.Client) -> None:
    """Have every connection of a client honour `expect_within`, those through proxies too."""
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001 - no public way to httpcore's backend; a test tells when it is lost
        if isinstance(transport, httpx.HTTPTransport):
            pool = transport._pool  # noqa: SLF001 - as above
            pool._network_backend = _TimedBackend(pool._network_backend)  # noqa: SLF001 - as above


class _TimedBackend(httpcore.NetworkBackend):
    """Makes connections whose reads keep to `expect_within`."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect."""
        return _TimedStream(
            self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        )

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        self._backend.sleep(seconds)


class _TimedStream(httpcore.NetworkStream):
    """A connection whose reads keep to `expect_within`."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what there is; wait for it no longer than the thread may."""
        if _thread.due is not None:
            left = _thread.due - time.monotonic()
            if left <= 0:
                raise httpcore.ReadTimeout("the answer took too long")
            timeout = left if timeout is None else min(timeout, left)
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Go on in TLS."""
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's signature
        """Return the socket, or whatever else is asked for."""
        return self._stream.get_extra_info(info)


def words_of(error: Exception) -> str:
    """Return an error's own words, without a full stop: they name hosts and system errors.

    The bytes that a protocol error quotes are left out: they may be our own header, or a URL
    that a peer has sent back.
    """
    said = _QUOTED_BYTES.sub("", str(error))[:_WORDS_CHARACTERS].rstrip(".")
    return said or type(error).__name__
