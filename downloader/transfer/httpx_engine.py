"""The engine on httpx: works everywhere, the baseline."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urljoin, urlsplit

import httpx

from downloader import __version__
from downloader.rules.decisions import Problem, ProblemKind
from downloader.transfer.engine import MAX_REDIRECTS, Timing, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from downloader.transfer.engine import Sink
    from downloader.transfer.guard import Guard

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class HttpxEngine:
    """Transfers by one synchronous httpx client, shared by all threads."""

    name = "httpx"

    def __init__(self, timing: Timing, *, connections: int) -> None:
        self._timing = timing
        self._client = httpx.Client(
            follow_redirects=False,
            timeout=httpx.Timeout(timing.stall_seconds, connect=timing.connect_seconds),
            # No bound on connections: the number of threads is one, and waiting for a
            # connection would only hide a leak.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=connections),
            headers={"user-agent": f"downloader/{__version__}", "accept": "*/*"},
        )

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def fetch(self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard) -> None:
        """GET `url` into `sink`; see `Engine.fetch`."""
        try:
            for _ in range(MAX_REDIRECTS + 1):
                guard.check()
                location = self._fetch_once(url, headers, sink, guard)
                if location is None:
                    return
                url = _redirected(url, location)
        except httpx.TimeoutException as error:
            guard.check()
            raise TransferError(self._timed_out(error)) from None
        except (httpx.TransportError, httpx.InvalidURL, ssl.SSLError) as error:
            guard.check()  # woken by a shutdown of its socket
            raise TransferError(
                Problem(ProblemKind.TRANSIENT, "network", f"The transfer broke off: {_said(error)}")
            ) from None
        raise TransferError(
            Problem(
                ProblemKind.WRONG_OBJECT,
                "too_many_redirects",
                f"The storage redirected more than {MAX_REDIRECTS} times.",
            )
        )

    def _fetch_once(
        self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard
    ) -> str | None:
        """Make one request; return where it redirects to, None when the sink has the body."""
        request = self._client.build_request(
            # httpx would escape and normalise: a signature covers the very bytes.
            "GET",
            url,
            headers=dict(headers),
            extensions={"target": _target(url)},
        )
        response = self._client.send(request, stream=True)
        with contextlib.closing(response), guard.waking(_waker(response)):
            location = response.headers.get("location")
            if response.status_code in _REDIRECTS and location is not None:
                return str(location)
            # httpx joins repeated headers by ", "; the rules know that form.
            sink.begin(response.status_code, {k.lower(): v for k, v in response.headers.items()})
            with contextlib.closing(self._bytes(response)) as chunks:
                for chunk in chunks:
                    guard.check()
                    if not sink.write(chunk):
                        break
        return None

    def _bytes(self, response: httpx.Response) -> Generator[bytes]:
        """Yield the body as sent, ending transfers below the floor speed."""
        timing = self._timing
        started, received = time.monotonic(), 0
        for chunk in response.iter_raw():
            received += len(chunk)
            seconds = time.monotonic() - started
            if (
                seconds > timing.floor_after_seconds
                and received < seconds * timing.floor_bytes_per_second
            ):
                raise TransferError(
                    Problem(
                        ProblemKind.TRANSIENT,
                        "too_slow",
                        f"The transfer was slower than {timing.floor_bytes_per_second:.0f} bytes "
                        f"a second over {seconds:.0f} seconds.",
                    )
                )
            yield chunk

    def _timed_out(self, error: httpx.TimeoutException) -> Problem:
        if isinstance(error, httpx.ConnectTimeout):
            return Problem(
                ProblemKind.TRANSIENT,
                "network",
                f"The storage did not take a connection in {self._timing.connect_seconds:g} "
                "seconds.",
            )
        return Problem(
            ProblemKind.TRANSIENT,
            "stalled",
            f"The storage sent no byte for {self._timing.stall_seconds:g} seconds.",
        )


def _target(url: str) -> bytes:
    """Return what goes into the request line: path and query as given, non-ASCII escaped."""
    parts = urlsplit(url)
    _, _, after = url.partition("://")
    rest = after[len(parts.netloc) :].partition("#")[0]
    if not rest.startswith("/"):
        rest = "/" + rest
    # Every ASCII character stays as it is; a raw non-ASCII one cannot go into a request line.
    return quote(rest, safe="".join(map(chr, range(33, 127)))).encode("ascii")


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https"):
        raise TransferError(
            Problem(
                ProblemKind.WRONG_OBJECT,
                "unusable_redirect",
                f"The storage redirected to a {scheme or 'scheme-less'} address; only http and "
                "https are followed.",
            )
        )
    return target


def _said(error: Exception) -> str:
    """Return an error's own words; httpx's name connections and hosts, never a URL."""
    return (str(error) or type(error).__name__).rstrip(".")[:200] + "."


def _waker(response: httpx.Response) -> Callable[[], None]:
    """Return what ends a read that another thread is blocked in: shutting its socket down."""
    stream = response.extensions.get("network_stream")
    raw = stream.get_extra_info("socket") if stream is not None else None

    def wake() -> None:
        if isinstance(raw, socket.socket):
            with contextlib.suppress(OSError):
                # On the plain socket: TLS's own shutdown would wait for the peer.
                socket.socket.shutdown(raw, socket.SHUT_RDWR)

    return wake
