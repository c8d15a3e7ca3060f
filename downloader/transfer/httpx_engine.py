"""The engine on httpx: works everywhere, the baseline."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urljoin, urlsplit

import httpx

from downloader.http import expect_within, make_client, words_of
from downloader.rules.answer_body import is_usable_url
from downloader.rules.decisions import Problem, ProblemKind
from downloader.rules.hosts import may_redirect
from downloader.transfer.engine import MAX_REDIRECTS, Timing, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from downloader.transfer.engine import Sink
    from downloader.transfer.guard import Guard

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LOCATION: Final = "location"
_ABSOLUTE: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class HttpxEngine:
    """Transfers by one synchronous httpx client, shared by all threads."""

    name = "httpx"

    def __init__(self, timing: Timing, *, connections: int) -> None:
        self._timing = timing
        self._client = make_client(
            httpx.Timeout(timing.stall_seconds, connect=timing.connect_seconds),
            keepalive_connections=connections,
            headers={"accept": "*/*"},
            on_response=_keep_location,
        )

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def fetch(self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard) -> None:
        """GET `url` into `sink`; see `Engine.fetch`."""
        given = url
        problem = Problem(
            ProblemKind.WRONG_OBJECT,
            "too_many_redirects",
            f"The storage redirected more than {MAX_REDIRECTS} times.",
        )
        try:
            for _ in range(MAX_REDIRECTS + 1):
                guard.check()
                location = self._fetch_once(url, headers, sink, guard)
                if location is None:
                    return
                url = _redirected(url, location)
                if not may_redirect(_host(given), _host(url)):
                    raise _unusable_redirect("it leads from the internet into a private network")
        except httpx.TimeoutException as error:
            problem = self._timed_out(error)
        except (httpx.TransportError, ssl.SSLError) as error:
            said = words_of(error)
            problem = Problem(ProblemKind.TRANSIENT, "network", f"The transfer broke off: {said}.")
        finally:
            expect_within(None)
        # Raised from here, none has a protocol error behind it that quotes what a peer sent.
        guard.check()  # it may have been woken by a shutdown of its socket
        raise TransferError(problem)

    def _fetch_once(
        self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard
    ) -> str | None:
        """Make one request; return where it redirects to, None when the sink has the body."""
        try:
            request = self._client.build_request("GET", url, headers=dict(headers))
            request.url = _ExactURL(url)
        except (httpx.InvalidURL, ValueError):
            raise _unusable_url("The URL is none that can be asked for.") from None
        expect_within(self._timing.connect_seconds + self._timing.stall_seconds)
        try:
            response = self._client.send(request, stream=True)
        except UnicodeError:  # no host name: the resolver's encoding does not take it
            raise _unusable_url("The URL's host name is none that can be looked up.") from None
        with contextlib.closing(response), guard.waking(_waker(response)):
            location = response.extensions.get(_LOCATION)
            if location is not None:
                return str(location)
            # httpx joins repeated headers by ", "; the rules know that form.
            sink.begin(response.status_code, {k.lower(): v for k, v in response.headers.items()})
            with contextlib.closing(self._bytes(response)) as chunks:
                for chunk in chunks:
                    guard.check()
                    if not sink.write(chunk):
                        break
            guard.check()  # woken from a body without a length, the end looks like any other
        return None

    def _bytes(self, response: httpx.Response) -> Generator[bytes]:
        """Yield the body as sent, ending transfers below the floor speed."""
        timing = self._timing
        started, received = time.monotonic(), 0
        # What frames a body, chunk by chunk, can drip for days without a byte of the body itself.
        expect_within(timing.stall_seconds)
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
            expect_within(timing.stall_seconds)

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


class _ExactURL(httpx.URL):
    """A URL that goes out byte for byte, to a proxy too: a signature covers the very bytes.

    httpx would escape and normalise. Its `target` extension would replace what a proxy is
    asked for as well, which is another form of the address.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._target = _target(url)

    @property
    def raw_path(self) -> bytes:
        return self._target


def _target(url: str) -> bytes:
    """Return what goes into the request line: path and query as given, non-ASCII escaped."""
    parts = urlsplit(url)
    _, _, after = url.partition("://")
    rest = after[len(parts.netloc) :].partition("#")[0]
    if not rest.startswith("/"):
        rest = "/" + rest
    # Every ASCII character stays as it is; a raw non-ASCII one cannot go into a request line.
    return quote(rest, safe="".join(map(chr, range(33, 127)))).encode("ascii")


def _keep_location(response: httpx.Response) -> None:
    """Take Location away from httpx: it would build a next request, and fail where it cannot."""
    if response.status_code in _REDIRECTS:
        response.extensions[_LOCATION] = response.headers.pop(_LOCATION, None)


def _redirected(url: str, location: str) -> str:
    """Return the address that a redirect leads to, byte for byte where it stands alone."""
    location = location.replace(" ", "%20")  # not allowed, seen, and meant so
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
    raise _unusable_redirect("only http and https are, without credentials")


def _host(url: str) -> str:
    """Return the host that a request for a URL goes to, as the client reads it."""
    try:
        return httpx.URL(url).raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        return ""  # there is none: the request will say so


def _unusable_redirect(why: str) -> TransferError:
    return TransferError(
        Problem(
            ProblemKind.WRONG_OBJECT,
            "unusable_redirect",
            f"The storage redirected to an address that is not followed: {why}.",
        )
    )


def _unusable_url(why: str) -> TransferError:
    return TransferError(Problem(ProblemKind.WRONG_OBJECT, "unusable_url", why))


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
