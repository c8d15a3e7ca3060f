"""The engine on httpx: works everywhere, the baseline."""

from __future__ import annotations

import contextlib
import ssl
from functools import partial
from typing import TYPE_CHECKING

import httpx

from downloader.errors import ConfigurationError
from downloader.http import has_cause, is_of_trust, make_client, proxy_words, words_of
from downloader.network import Unnamed, expect_within, waits
from downloader.proxies import environment_proxies
from downloader.transfer.pace import Pace
from downloader.transfer.problems import (
    begin,
    broke_off,
    not_connected,
    stalled,
    unreachable,
    untrusted,
    unusable_url,
)
from downloader.transfer.redirects import LOCATION, REDIRECTS, follow
from downloader.transfer.unusable import TOO_MANY_FILES, too_many_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Sink, Timing
    from downloader.transfer.guard import Guard


class HttpxEngine:
    """Transfers by one synchronous httpx client, shared by all threads."""

    name = "httpx"

    def __init__(self, timing: Timing, *, connections: int) -> None:
        self._timing = timing
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
        self._client.close()

    def fetch(self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard) -> None:
        """GET `url` into `sink`; see `Engine.fetch`."""
        follow(url, guard, partial(self._request, headers, sink, guard))

    def _request(
        self, headers: Mapping[str, str], sink: Sink, guard: Guard, url: str, address: Address
    ) -> str | None:
        """Make one request, as `_fetch_once` does, and put what went wrong into our words."""
        timing = self._timing
        answer_seconds = timing.connect_seconds + timing.stall_seconds
        with waits(answer_seconds, guard.check, guard.away, unnamed=Unnamed.QUIET):
            try:
                return self._fetch_once(headers, sink, guard, url, address)
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
        self, headers: Mapping[str, str], sink: Sink, guard: Guard, url: str, address: Address
    ) -> str | None:
        """Make one request; return where it redirects to, None when the sink has the body."""
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
            begin(sink, response.status_code, dict(response.headers.items()), address)
            pace = Pace(self._timing)
            # What frames a body, chunk by chunk, can drip for days without a byte of the body
            # itself.
            expect_within(self._timing.stall_seconds)
            for chunk in response.iter_raw():
                guard.check()
                if not pace.push(sink, chunk):
                    break
                expect_within(self._timing.stall_seconds)
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


def _is_of_files(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in TOO_MANY_FILES


def _keep_location(response: httpx.Response) -> None:
    """Take Location away from httpx: it would build a next request, and fail where it cannot."""
    if response.status_code in REDIRECTS:
        response.extensions[LOCATION] = response.headers.pop(LOCATION, None)
