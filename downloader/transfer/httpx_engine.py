"""The engine on httpx: works everywhere, the baseline."""

from __future__ import annotations

import contextlib
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING

import httpx

from downloader.errors import ConfigurationError
from downloader.http import has_cause, is_of_trust, make_client, proxy_words, words_of
from downloader.network import Unnamed, expect_within, waits
from downloader.proxies import environment_proxies
from downloader.transfer.guard import Interrupted
from downloader.transfer.pace import Pace
from downloader.transfer.pool import ThreadPool
from downloader.transfer.problems import (
    begin,
    broke_off,
    not_connected,
    stalled,
    unreachable,
    untrusted,
    unusable_url,
)
from downloader.transfer.redirects import LOCATION, REDIRECTS, Route
from downloader.transfer.unusable import TOO_MANY_FILES, too_many_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Fetch, Timing
    from downloader.transfer.rate_limit import RateLimit


class HttpxEngine:
    """Transfers by one synchronous httpx client, each in a thread of a pool without a bound."""

    name = "httpx"

    def __init__(
        self, timing: Timing, *, connections: int, rate_limit: RateLimit | None = None
    ) -> None:
        self._timing = timing
        self._limit = rate_limit
        self._pool = ThreadPool("transfers")
        self._closed = False
        self._proxies = environment_proxies()
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
        self._closed = True
        self._client.close()
        self._pool.close()

    def start(self, fetch: Fetch) -> None:
        """GET its URL; see `Engine.start`."""
        self._pool.submit(partial(self._make, fetch), fetch.guard)

    def _make(self, fetch: Fetch) -> None:
        """Make a fetch, through all redirects."""
        route: Route | None = None
        try:
            fetch.guard.check()
            if self._closed:
                raise Interrupted  # noqa: TRY301 - as whatever else ends it
            route = Route(fetch.url)
            headers = fetch.ask()
            while (location := self._request(headers, fetch, route)) is not None:
                route.lead(location)
                fetch.guard.check()
        except BaseException as error:  # noqa: BLE001 - handed to whom it matters
            fetch.ended(error if route is None else route.seen(error))
        else:
            fetch.ended(None)

    def _request(self, headers: Mapping[str, str], fetch: Fetch, route: Route) -> str | None:
        """Make one request, as `_fetch_once` does, and put what went wrong into our words."""
        timing, url, address, guard = self._timing, route.url, route.address, fetch.guard
        answer_seconds = timing.connect_seconds + timing.stall_seconds
        with waits(answer_seconds, guard.check, unnamed=Unnamed.QUIET):
            try:
                return self._fetch_once(headers, fetch, url, address)
            except httpx.ConnectTimeout:
                failure: Exception = not_connected(address, timing)
            except httpx.TimeoutException:
                failure = stalled(timing)
            except ConfigurationError as error:
                failure = unreachable(address, str(error).rstrip("."))
            except httpx.ProxyError as error:
                failure = unreachable(address, proxy_words(error))
            except (httpx.TransportError, ssl.SSLError) as error:
                if has_cause(error, _is_of_files):
                    failure = too_many_files()
                elif is_of_trust(error):
                    failure = untrusted(address, self._proxies.of(address.origin))
                elif isinstance(error, httpx.ConnectError):
                    failure = unreachable(address, words_of(error))
                else:
                    failure = broke_off(words_of(error))
        guard.check()  # what was told to stop is not asked how it ended
        # Raised from here, none has a protocol error behind it that quotes what a peer sent.
        raise failure

    def _fetch_once(
        self, headers: Mapping[str, str], fetch: Fetch, url: str, address: Address
    ) -> str | None:
        """Make one request; return where it redirects to, None when the body is handed on."""
        try:
            request = self._client.build_request("GET", url, headers=dict(headers))
            request.url = _ExactURL(url, address)
        except (httpx.InvalidURL, ValueError):
            raise unusable_url("The URL is none that can be asked for.") from None
        try:
            response = self._client.send(request, stream=True)
        except UnicodeError:  # no host name: the resolver's encoding does not take it
            raise unusable_url("The URL's host name is none that can be looked up.") from None
        with contextlib.closing(response):
            location = response.extensions.get(LOCATION)
            if location is not None:
                return str(location)
            # httpx joins repeated headers by ", "; the rules know that form.
            begin(fetch, response.status_code, dict(response.headers.items()), address)
            pace = Pace(self._timing)
            # What frames a body, chunk by chunk, can drip for days without a byte of the body
            # itself.
            expect_within(self._timing.stall_seconds)
            for chunk in response.iter_raw():
                fetch.guard.check()
                if not self._push(fetch, chunk, pace):
                    break
                expect_within(self._timing.stall_seconds)
        return None

    def _push(self, fetch: Fetch, chunk: bytes, pace: Pace) -> bool:
        """Hand bytes on, and wait until more may come."""
        booked_at = time.monotonic()
        seconds = 0.0 if self._limit is None else self._limit.book(len(chunk))
        wanted = pace.push(fetch, chunk)
        if self._limit is not None and seconds > 0:
            began_at = time.monotonic()
            self._limit.pause(seconds - (began_at - booked_at), fetch.guard)
            pace.excuse(time.monotonic() - began_at)
        return wanted


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


def _is_of_files(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in TOO_MANY_FILES


def _keep_location(response: httpx.Response) -> None:
    """Take Location away from httpx: it would build a next request, and fail where it cannot."""
    if response.status_code in REDIRECTS:
        response.extensions[LOCATION] = response.headers.pop(LOCATION, None)
