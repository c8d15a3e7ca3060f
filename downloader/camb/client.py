"""Asking the API for results: one blocking request a call, judged, never raised.

The key goes to the API's origin alone: this client follows no redirect, and the storage is
fetched from by another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx

from downloader.camb.run_types import RUN_TYPES
from downloader.certificates import CERTIFICATE, why_untrusted
from downloader.clock import utc_now
from downloader.errors import ConfigurationError
from downloader.http import is_of_trust, make_client, proxy_words, words_of
from downloader.network import Unnamed, waits
from downloader.proxies import environment_proxies
from downloader.rules.answers import (
    MAX_BODY_BYTES,
    Judgement,
    RetryLater,
    judge_bulk,
    judge_single,
    without,
)
from downloader.rules.batching import MIN_BATCH, Batch
from downloader.rules.codings import unpacked
from downloader.rules.expiry import clock_offset

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

MAX_ANSWER_BYTES: Final = MAX_BODY_BYTES
"""What is longer is none, whatever the rest of it says."""


class CutOffError(Exception):
    """A request was ended before its answer had come."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer means, and the server's clock less ours where it told the time.

    `status` is its HTTP status, None where no answer came.
    """

    judgement: Judgement
    clock_offset: timedelta | None = None
    status: int | None = None


class ApiClient:
    """A client of the API at one base URL with one key; safe to use from several threads.

    Raises:
        ConfigurationError: the base is no URL, or the environment's settings cannot be used.

    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        connect_seconds: float = 10,
        answer_seconds: float = 30,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._host = urlsplit(base_url).hostname
        self._key = api_key
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._client = make_client(
            httpx.Timeout(answer_seconds, connect=connect_seconds),
            keepalive_connections=8,
            headers={"accept": "application/json"},
            on_response=_forget_location,
            # Plain http is for an API on this machine: a proxy would be handed the key.
            proxies=urlsplit(base_url).scheme != "http",
        )
        try:
            self._client.build_request("GET", self._base)
        except (httpx.InvalidURL, ValueError):  # UnicodeError, of a host, is one
            raise ConfigurationError(
                lambda say: (
                    f"{say.setting('api-url')} cannot be asked: its host, or a character in it, "
                    "is none that a URL has."
                )
            ) from None

    def use_key(self, api_key: str) -> None:
        """Ask with another key from the next request on."""
        self._key = api_key

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def ask(self, batch: Batch, go_on: Callable[[], None] = lambda: None) -> Reply:
        """Ask for the results of a batch: the bulk endpoint for 2 to 5 runs, else the single one.

        `go_on` is called every tenth of a second while it waits, and may raise `CutOffError`.

        Sources: the service's OpenAPI for `POST /text-to-sound-results`, its page on the
        single-run endpoint for the other.
        """
        run_type, key = RUN_TYPES[batch.run_type], self._key  # another may be put in meanwhile
        if len(batch.run_ids) >= MIN_BATCH:
            request = self._client.build_request(
                "POST", f"{self._base}/{run_type.bulk_path}", json={"run_ids": list(batch.run_ids)}
            )
        else:
            path = run_type.single_path.format(run_id=batch.run_ids[0])
            request = self._client.build_request("GET", f"{self._base}/{path}")
        request.headers["x-api-key"] = key
        # What the single endpoint answers does not say which run it is of.
        unnamed = Unnamed.ONCE if len(batch.run_ids) < MIN_BATCH else None
        with waits(self._answer_seconds, go_on, unnamed=unnamed):
            try:
                response = self._client.send(request, stream=True)
                try:
                    body = _read(response)
                finally:
                    response.close()
            except (httpx.HTTPError, UnicodeError) as error:  # the latter of a host that is no name
                return Reply(self._unreachable(error))
        now = utc_now()
        headers = {name.lower(): value for name, value in response.headers.items()}
        if len(batch.run_ids) >= MIN_BATCH:
            judgement = judge_bulk(response.status_code, headers, body, batch.run_ids, now)
        else:
            judgement = judge_single(response.status_code, headers, body, batch.run_ids[0], now)
        judgement = without(key, judgement)
        offset = clock_offset(headers.get("date"), None, now)
        return Reply(judgement, offset, response.status_code)

    def _unreachable(self, error: Exception) -> RetryLater:
        if is_of_trust(error):
            proxy = environment_proxies().of(self._base)
            said = f"cannot be trusted: {why_untrusted(self._base, proxy)}"
            return RetryLater(CERTIFICATE, f"The API at {self._host} {said}.")
        if isinstance(error, httpx.ConnectTimeout):
            said = f"no connection in {self._connect_seconds:g} seconds"
        elif isinstance(error, httpx.TimeoutException):
            said = f"no answer in {self._answer_seconds:g} seconds"
        elif isinstance(error, httpx.ProxyError):
            said = proxy_words(error)
        else:
            said = words_of(error)
        return RetryLater("api_unreachable", f"The API at {self._host} cannot be reached: {said}.")


def _read(response: httpx.Response) -> bytes:
    """Read a body of bounded size, unpacked where it is packed; what does not fit is cut off."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            break
    return unpacked(bytes(body), response.headers.get("content-encoding"), MAX_ANSWER_BYTES)


def _forget_location(response: httpx.Response) -> None:
    """Take Location away from httpx, which raises where it cannot make a request of it."""
    response.headers.pop("location", None)
