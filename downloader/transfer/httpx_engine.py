"""The engine on httpx: works everywhere, the baseline."""

from __future__ import annotations

import contextlib
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

import httpx

from downloader.http import expect_within, make_client, words_of
from downloader.transfer.pace import Pace
from downloader.transfer.problems import (
    broke_off,
    not_connected,
    stalled,
    unreachable,
    unusable_url,
)
from downloader.transfer.redirects import LOCATION, REDIRECTS, follow
from downloader.transfer.unusable import TOO_MANY_FILES, too_many_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Sink, Timing
    from downloader.transfer.guard import Guard


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

    def resize(self, connections: int) -> None:
        """Do nothing: only how many idle connections are kept follows from it, from the start."""

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def fetch(self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard) -> None:
        """GET `url` into `sink`; see `Engine.fetch`."""
        follow(url, guard, partial(self._request, headers, sink, guard))

    def _request(
        self, headers: Mapping[str, str], sink: Sink, guard: Guard, url: str, address: Address
    ) -> str | None:
        """Make one request, as `_fetch_once` does, and put what went wrong into our words."""
        try:
            return self._fetch_once(headers, sink, guard, url, address)
        except httpx.ConnectTimeout:
            failure: Exception = not_connected(address, self._timing)
        except httpx.TimeoutException:
            failure = stalled(self._timing)
        except (httpx.TransportError, ssl.SSLError) as error:
            if _has(error, lambda one: isinstance(one, OSError) and one.errno in TOO_MANY_FILES):
                failure = too_many_files()
            elif isinstance(error, httpx.ConnectError | httpx.ProxyError) and not _has(
                error, lambda one: isinstance(one, ssl.SSLCertVerificationError)
            ):
                failure = unreachable(address, words_of(error))
            else:
                failure = broke_off(words_of(error))
        finally:
            expect_within(None)
        # Raised from here, none has a protocol error behind it that quotes what a peer sent.
        guard.check()  # it may have been woken by a shutdown of its socket
        raise failure

    def _fetch_once(
        self, headers: Mapping[str, str], sink: Sink, guard: Guard, url: str, address: Address
    ) -> str | None:
        """Make one request; return where it redirects to, None when the sink has the body."""
        try:
            request = self._client.build_request("GET", url, headers=dict(headers))
            request.url = _ExactURL(url, address)
        except (httpx.InvalidURL, ValueError):
            raise unusable_url("The URL is none that can be asked for.") from None
        expect_within(self._timing.connect_seconds + self._timing.stall_seconds)
        try:
            with guard.away:
                response = self._client.send(request, stream=True)
        except UnicodeError:  # no host name: the resolver's encoding does not take it
            raise unusable_url("The URL's host name is none that can be looked up.") from None
        with contextlib.closing(response), guard.waking(_waker(response)):
            location = response.extensions.get(LOCATION)
            if location is not None:
                return str(location)
            # httpx joins repeated headers by ", "; the rules know that form.
            sink.begin(response.status_code, dict(response.headers.items()))
            pace = Pace(self._timing)
            # What frames a body, chunk by chunk, can drip for days without a byte of the body
            # itself.
            expect_within(self._timing.stall_seconds)
            body = response.iter_raw()
            while True:
                with guard.away:
                    chunk = next(body, None)
                if chunk is None:
                    break
                guard.check()
                if not pace.push(sink, chunk):
                    break
                expect_within(self._timing.stall_seconds)
            guard.check()  # woken from a body without a length, the end looks like any other
        return None


class _ExactURL(httpx.URL):
    """A URL that goes out byte for byte, to a proxy too: a signature covers the very bytes.

    httpx would escape and normalise. Its `target` extension would replace what a proxy is
    asked for as well, which is another form of the address.
    """

    def __init__(self, url: str, address: Address) -> None:
        super().__init__(url)
        self._target = address.target.encode("ascii")

    @property
    def raw_path(self) -> bytes:
        return self._target


def _has(error: BaseException | None, wanted: Callable[[BaseException], bool]) -> bool:
    """Tell whether an error, or one that is behind it, is of a kind."""
    while error is not None:
        if wanted(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _keep_location(response: httpx.Response) -> None:
    """Take Location away from httpx: it would build a next request, and fail where it cannot."""
    if response.status_code in REDIRECTS:
        response.extensions[LOCATION] = response.headers.pop(LOCATION, None)


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
