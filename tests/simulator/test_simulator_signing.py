from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from simulator.asking import url_of

from downloader.simulator import signing
from downloader.simulator.options import STORES

if TYPE_CHECKING:
    from simulator.asking import StartSim

    from downloader.simulator.server import Simulator


@pytest.mark.parametrize("store", STORES)
def test_a_signed_url_opens_and_an_expired_one_does_not(start_sim: StartSim, store: str) -> None:
    """Whatever store is imitated, its URL gives the file until it expires."""
    live, dead = start_sim(store=store), start_sim(store=store, url_lifetime=0)

    assert httpx.get(url_of(live, 1)).content == live.audio(1)
    assert httpx.get(url_of(dead, 1)).status_code in (400, 401, 403)


@pytest.mark.parametrize(
    ("store", "status", "words"),
    [
        ("s3", 403, ["<Code>AccessDenied</Code>", "Request has expired", "<ServerTime>"]),
        ("s3-temporary", 400, ["<Code>ExpiredToken</Code>"]),
        ("s3-v2", 403, ["<Code>AccessDenied</Code>", "Request has expired"]),
        ("cloudfront", 403, ["<Code>AccessDenied</Code>", "Access denied"]),
        ("r2", 403, ["<Code>ExpiredRequest</Code>"]),
        ("gcs", 400, ["<Code>ExpiredToken</Code>", "expired at"]),
        ("azure", 403, ["<Code>AuthenticationFailed</Code>", "specified time frame"]),
        ("b2", 401, ["<Code>UnauthorizedAccess</Code>", "expired_auth_token"]),
    ],
)
def test_each_store_says_expired_in_its_own_words(
    start_sim: StartSim, store: str, status: int, words: list[str]
) -> None:
    """The refusal of an expired URL has the store's status, code and text."""
    answer = httpx.get(url_of(start_sim(store=store, url_lifetime=-30), 1))

    assert answer.status_code == status
    assert all(word in answer.text for word in words)


@pytest.mark.parametrize(
    ("store", "names"),
    [
        ("s3", {"X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature"}),
        ("s3-temporary", {"X-Amz-Date", "X-Amz-Expires", "X-Amz-Security-Token"}),
        ("s3-v2", {"Expires", "Signature", "AWSAccessKeyId"}),
        ("cloudfront", {"Expires", "Signature", "Key-Pair-Id"}),
        ("gcs", {"X-Goog-Date", "X-Goog-Expires", "X-Goog-Signature"}),
        ("azure", {"se", "sig"}),
    ],
)
def test_the_expiry_is_where_the_store_puts_it(
    start_sim: StartSim, store: str, names: set[str]
) -> None:
    """The URL's parameters are the store's own."""
    assert names <= set(parse_qs(urlsplit(url_of(start_sim(store=store), 1)).query))


def test_temporary_credentials_die_before_the_url_says() -> None:
    """A URL by temporary credentials claims ten times the life that it has."""
    url = urlsplit(
        signing.presigned("http://x", "/b/1.wav", store="s3-temporary", now=1000.0, lifetime=10)
    )

    assert parse_qs(url.query)["X-Amz-Expires"] == ["100"]
    for now, refused in ((1009.0, False), (1010.0, True)):
        refusal = signing.refusal("GET", url.path, url.query, store="s3-temporary", now=now)
        assert (refusal is not None) is refused


@pytest.mark.parametrize(("now", "refused"), [(1000.5, False), (1011.5, False), (1013.0, True)])
def test_a_url_lives_at_least_as_long_as_it_was_given(now: float, refused: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Whole seconds round the end of a URL's life up, never down."""
    url = urlsplit(signing.presigned("http://x", "/b/1.wav", store="s3", now=1000.5, lifetime=11.5))

    refusal = signing.refusal("GET", url.path, url.query, store="s3", now=now)

    assert (refusal is not None) is refused


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("%2F", "/"),
        ("%2F", "%2f"),
        ("%7E", "~"),
        ("+", "%20"),
        ("/1.wav", "/2.wav"),
        ("/1.wav", "/%31.wav"),
        ("X-Amz-Expires=", "X-Amz-Expires=9"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
    ],
)
def test_a_url_is_good_byte_for_byte_only(sim: Simulator, old: str, new: str) -> None:
    """Re-escaping any part of a URL, or changing it, breaks the signature."""
    url = url_of(sim, 1)
    assert old in url
    parts = urlsplit(url)
    target = url.removeprefix(f"{parts.scheme}://{parts.netloc}").replace(old, new)

    with httpx.Client() as client:
        request = client.build_request(
            "GET", sim.storage_url, extensions={"target": target.encode()}
        )
        answer = client.send(request)  # the target goes as it is, past httpx's own ideas

    assert answer.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in answer.text


def test_a_refusal_echoes_the_signature(sim: Simulator) -> None:
    """As S3 does: whoever logs such a body leaks a secret, and a test can see it."""
    url = url_of(sim, 1) + "0"

    assert url.rpartition("=")[2] in httpx.get(url).text


def test_head_on_a_url_signed_for_get_is_refused(sim: Simulator) -> None:
    """The method is part of what is signed."""
    assert httpx.head(url_of(sim, 1)).status_code == 403


def test_without_a_signature_nothing_opens(sim: Simulator) -> None:
    """An unsigned URL is denied, whether there is such an object or not."""
    for path in ("/simulated-audio/text-to-sound/1.wav", "/simulated-audio/nothing", "/"):
        assert httpx.get(sim.storage_url + path).status_code == 403


def test_the_storage_is_another_origin(sim: Simulator) -> None:
    """As with the real service, the files are not where the API is."""
    assert urlsplit(sim.api_url).netloc != urlsplit(sim.storage_url).netloc
    assert url_of(sim, 1).startswith(sim.storage_url + "/")


def test_a_skewed_clock_shows_in_dates_and_urls(start_sim: StartSim) -> None:
    """With `clock_skew` the Date header and the URL's own date are ahead; the URL works."""
    sim = start_sim(clock_skew=10 * 365 * 86_400)

    url = url_of(sim, 1)
    answer = httpx.get(url)

    signed_year = int(parse_qs(urlsplit(url).query)["X-Amz-Date"][0][:4])
    assert answer.status_code == 200
    assert str(signed_year) in answer.headers["date"]
    assert signed_year >= 2034
