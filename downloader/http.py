"""How HTTP clients are made: nothing followed, nothing decoded, nothing remembered.

The API's client and the storage's share these rules and nothing else: the one has the key, the
other must never see it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import ssl
import threading
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Final

import httpcore
import httpx

from downloader import __version__
from downloader.certificates import proxy_refused
from downloader.logger import TELLTALES
from downloader.network import Backend, Stream, is_ours
from downloader.proxies import environment_proxies
from downloader.trust import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from downloader.proxies import Proxies

REQUEST_HEADERS: Final = {
    "user-agent": f"downloader/{__version__}",
    "accept-encoding": "identity",  # bytes are counted and hashed as they come
}
"""What every client says of itself."""

_KEPT_SECONDS: Final = 5.0  # a connection that is idle
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

    Without `proxies` those of the environment are not asked. A request is made within `waits`.

    Raises:
        ConfigurationError: the environment's proxy or TLS settings cannot be used.

    """
    return httpx.Client(
        follow_redirects=False,
        timeout=timeout,
        headers={**REQUEST_HEADERS, **headers},
        event_hooks={"response": [on_response]},
        cookies=_NoCookies(),
        trust_env=False,
        transport=_Transport(environment_proxies() if proxies else None, keepalive_connections),
    )


class _Transport(httpx.BaseTransport):
    """httpcore, on connections of ours: a pool for each proxy, and one for none."""

    def __init__(self, proxies: Proxies | None, keepalive_connections: int) -> None:
        self._proxies = proxies
        self._keepalive_connections = keepalive_connections
        self._context = tls_context()
        self._pools: dict[str | None, httpcore.ConnectionPool] = {}
        self._lock = threading.Lock()
        if proxies is not None:
            proxies.see_that_httpx_can(None)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Make one request."""
        url = request.url
        proxy = None if self._proxies is None else self._proxies.of(str(url))
        with _in_words_of_httpx():
            answer = self._pool(proxy).handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        response = httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )
        stream = answer.extensions["network_stream"]
        if isinstance(stream, Stream):
            stream.expect_body(_body_size(response.headers))
        return response

    def _pool(self, proxy: str | None) -> httpcore.ConnectionPool:
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = self._new_pool(proxy)
            return self._pools[proxy]

    def _new_pool(self, proxy: str | None) -> httpcore.ConnectionPool:
        url = None if proxy is None else httpx.Proxy(proxy)
        # No bound on connections: the number of threads is one, and waiting for a connection
        # would only hide a leak.
        return httpcore.ConnectionPool(
            ssl_context=self._context,
            proxy=None
            if url is None
            else httpcore.Proxy(
                httpcore.URL(
                    scheme=url.url.raw_scheme,
                    host=url.url.raw_host,
                    port=url.url.port,
                    target=b"/",
                ),
                auth=url.raw_auth,
                ssl_context=self._context if url.url.scheme == "https" else None,
            ),
            max_connections=None,
            max_keepalive_connections=self._keepalive_connections,
            keepalive_expiry=_KEPT_SECONDS,
            network_backend=Backend(),
        )

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _in_words_of_httpx():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


def _body_size(headers: httpx.Headers) -> float | None:
    """Return how long a body is (RFC 9112, section 6.3); None where it ends with an empty line."""
    if "transfer-encoding" in headers:
        return None
    length = headers.get("content-length", "").partition(",")[0].strip()
    return int(length) if length.isascii() and length.isdigit() else math.inf


@contextlib.contextmanager
def _in_words_of_httpx() -> Iterator[None]:
    """Raise what httpcore raises as the errors of httpx, which have the same names."""
    try:
        yield
    except _OF_HTTPCORE as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error


_OF_HTTPCORE: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


def _is_not_ours(_record: logging.LogRecord) -> bool:
    """Let only what other users of these libraries do be told: ours would be told with its URL."""
    return not is_ours()


for _name in TELLTALES:
    if _name.startswith("http"):
        logging.getLogger(_name).addFilter(_is_not_ours)


class _NoCookies(CookieJar):
    """Remembers nothing, and does not even read: one answer has no say in the next request."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Take no cookie."""


def has_cause(error: BaseException | None, wanted: Callable[[BaseException], bool]) -> bool:
    """Tell whether an error, or one that is behind it, is of a kind."""
    while error is not None:
        if wanted(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_of_trust(error: Exception) -> bool:
    """Tell whether what failed is the look at a certificate."""
    return has_cause(error, lambda one: isinstance(one, ssl.SSLCertVerificationError))


def proxy_words(error: httpx.ProxyError) -> str:
    """Return what a proxy said that gives no connection: httpcore's text begins with the status."""
    status = str(error)[:3]
    return proxy_refused(int(status)) if status.isdigit() else words_of(error)


def words_of(error: Exception) -> str:
    """Return an error's own words, without a full stop: they name hosts and system errors.

    The bytes that a protocol error quotes are left out: they may be our own header, or a URL
    that a peer has sent back.
    """
    said = _QUOTED_BYTES.sub("", str(error))[:_WORDS_CHARACTERS].rstrip(".")
    return said or type(error).__name__
