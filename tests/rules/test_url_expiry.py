from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.expiry import (
    clock_offset,
    is_usable,
    says_expired,
    seconds_until_valid,
    url_expires_at,
    url_valid_from,
)

NOW = datetime(2025, 1, 1, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


def policy(value: object) -> str:
    """Return a policy as CloudFront encodes it."""
    encoded = base64.b64encode(json.dumps(value).encode()).decode()
    return encoded.translate(str.maketrans("+=/", "-_~"))


def statement(epoch: object) -> dict[str, object]:
    """Return a statement of a CloudFront policy."""
    return {"Resource": "*?>~", "Condition": {"DateLessThan": {"AWS:EpochTime": epoch}}}


@pytest.mark.parametrize(
    ("query", "expires_at"),
    [
        pytest.param("X-Amz-Date=20250101T000000Z&X-Amz-Expires=60", 60, id="s3-v4"),
        pytest.param("x-amz-expires=60&x-amz-date=20250101T000000Z", 60, id="lower-case"),
        pytest.param("X-Amz-Date=20250101T000000Z&X-Amz-Expires=0", 0, id="no-lifetime"),
        pytest.param("X-Goog-Date=20250101T000000Z&X-Goog-Expires=60", 60, id="google"),
        pytest.param("x-oss-date=20250101T000000Z&x-oss-expires=60", 60, id="oss-v4"),
        pytest.param(f"Expires={EPOCH + 60}&Signature=x", 60, id="s3-v2"),
        pytest.param("sv=1&se=2025-01-01T00%3A01%3A00Z&sig=x", 60, id="azure"),
        pytest.param("se=2025-01-01T00:01Z", 60, id="azure-without-seconds"),
        pytest.param("se=2025-01-01T00:01:00.5000000Z", 60.5, id="azure-fraction"),
        pytest.param("se=2025-01-01T02:01:00+02:00", 60, id="azure-offset"),
        pytest.param("se=2025-01-02", 86400, id="azure-date"),
        pytest.param(f"Policy={policy({'Statement': [statement(EPOCH + 60)]})}", 60, id="policy"),
        pytest.param(
            f"Policy={policy({'Statement': [statement(EPOCH + 60), statement(EPOCH + 9)]})}",
            9,
            id="policy-earliest",
        ),
        pytest.param(
            f"Expires={EPOCH + 9}&X-Amz-Date=20250101T000000Z&X-Amz-Expires=60", 9, id="earliest"
        ),
        pytest.param("X-Amz-Date=20250101T000000Z", None, id="no-expires"),
        pytest.param("X-Amz-Date=20251301T000000Z&X-Amz-Expires=60", None, id="no-such-month"),
        pytest.param("X-Amz-Date=20250101T000000Z&X-Amz-Expires=-60", None, id="negative"),
        pytest.param("X-Amz-Date=99991231T235959Z&X-Amz-Expires=999999999999", None, id="overflow"),
        pytest.param("Expires=3600", None, id="no-epoch"),
        pytest.param("Expires=999999999999", None, id="beyond-year-9999"),
        pytest.param("Expires=1e9", None, id="exponent"),
        pytest.param("Expires=", None, id="empty"),
        pytest.param("se=0001-01-01T00:00+23:59", None, id="before-year-1"),
        pytest.param("se=soon", None, id="words"),
        pytest.param("Policy=%%%", None, id="no-policy"),
        pytest.param(f"Policy={policy([1])}", None, id="odd-policy"),
        pytest.param(f"Policy={policy({'Statement': [statement([1])]})}", None, id="odd-epoch"),
        pytest.param("", None, id="no-query"),
    ],
)
def test_expiry_in_the_url(query: str, expires_at: float | None) -> None:
    """The expiry is read from the URL of every store that writes it there."""
    expected = None if expires_at is None else NOW + timedelta(seconds=expires_at)
    assert url_expires_at(f"https://h/a?{query}") == expected
    assert url_expires_at(f"https://h/a?x=1&{query}&y#Expires={EPOCH}") == expected


@pytest.mark.parametrize(
    ("left", "usable"),
    [(None, True), (60, True), (10.5, True), (10, False), (0, False), (-9, False)],
)
def test_margin(left: float | None, usable: bool) -> None:  # noqa: FBT001 - a column of the table
    """A URL is used only with more than the margin to live; without a known end it is used."""
    assert is_usable(None if left is None else NOW + timedelta(seconds=left), NOW) is usable


def test_margin_can_be_shorter() -> None:
    """A short-lived URL is used with a margin of its own."""
    assert is_usable(NOW + timedelta(seconds=3), NOW, 2)


XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message><Key>a.wav</Key></Error>"


@pytest.mark.parametrize(
    ("status", "body", "expired"),
    [
        pytest.param(403, XML.format("AccessDenied", "Request has expired"), True, id="s3-v4"),
        pytest.param(400, XML.format("ExpiredToken", "The provided token"), True, id="s3-token"),
        pytest.param(403, XML.format("ExpiredRequest", ""), True, id="r2"),
        pytest.param(403, XML.format("RequestExpired", ""), True, id="request-expired"),
        pytest.param(
            403,
            "\ufeff" + XML.format("AuthenticationFailed", "not valid in the Specified Time Frame"),
            True,
            id="azure",
        ),
        pytest.param(401, '{"code": "expired_auth_token"}', True, id="b2"),
        pytest.param(403, XML.format("AccessDenied", "Access Denied"), False, id="denied"),
        pytest.param(403, XML.format("SignatureDoesNotMatch", ""), False, id="bad-signature"),
        pytest.param(404, XML.format("NoSuchKey", "expired"), False, id="other-status"),
        pytest.param(403, "<Error><Key>expired.wav</Key></Error>", False, id="name-of-the-object"),
        pytest.param(403, "<Error><X-Amz-Expires>5</X-Amz-Expires></Error>", False, id="expires"),
        pytest.param(403, " " * 16_384 + "expired", False, id="too-far"),
        pytest.param(403, "", False, id="empty"),
    ],
)
def test_refusals(status: int, body: str, expired: bool) -> None:  # noqa: FBT001 - a column
    """A refusal means expiry only where the store says so."""
    assert says_expired(status, body.encode()) is expired


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        ("Wed, 01 Jan 2025 00:00:05 GMT", None, 5),
        ("Tue, 31 Dec 2024 23:59:00 GMT", b"", -60),
        (None, b"<ServerTime>2025-01-01T00:00:07Z</ServerTime>", 7),
        ("Wed, 01 Jan 2025 00:00:05 GMT", b"<ServerTime>2025-01-01T00:00:07Z</ServerTime>", 7),
        ("Wed, 01 Jan 2025 00:00:05 GMT", b"<ServerTime>soon</ServerTime>", 5),
        ("soon", b"<ServerTime>\xff</ServerTime>", None),
        (None, None, None),
    ],
)
def test_clock_offset(header: str | None, body: bytes | None, seconds: float | None) -> None:
    """The server's clock is told by the error body first, then by its Date header."""
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert clock_offset(header, body, NOW) == expected


names = st.sampled_from(
    ["X-Amz-Date", "X-Amz-Expires", "Expires", "se", "Policy", "X-Goog-Date", "x-goog-expires"]
)
values = st.text(max_size=30) | st.text("0123456789TZ:-+.%", max_size=24)


@given(st.lists(st.tuples(names, values), max_size=5), st.text(max_size=20))
def test_no_url_raises(parameters: list[tuple[str, str]], rest: str) -> None:
    """Whatever a URL holds, its expiry is a time in UTC or None."""
    query = "&".join(f"{name}={value}" for name, value in parameters)
    expires_at = url_expires_at(f"https://h/{rest}?{query}{rest}")
    assert expires_at is None or expires_at.tzinfo is UTC
    is_usable(expires_at, NOW)


@given(st.integers(0, 999), st.binary(max_size=60), st.text(max_size=40))
def test_no_refusal_raises(status: int, body: bytes, header: str) -> None:
    """Whatever a refusal holds, it is told from expiry, and the clock is read or not."""
    assert isinstance(says_expired(status, body), bool)
    clock_offset(header, b"<ServerTime>" + body + b"</ServerTime>", NOW)


def not_before(epoch: object) -> dict[str, object]:
    """Return a statement of a CloudFront policy that begins some time."""
    between = {"AWS:EpochTime": epoch}
    return {"Condition": {"DateGreaterThan": between, "DateLessThan": {"AWS:EpochTime": 2**32}}}


@pytest.mark.parametrize(
    ("query", "valid_from"),
    [
        pytest.param("X-Amz-Date=20250101T000100Z&X-Amz-Expires=60", 60, id="s3-v4"),
        pytest.param("X-Goog-Date=20250101T000100Z&X-Goog-Expires=60", 60, id="google"),
        pytest.param("x-oss-date=20250101T000100Z", 60, id="oss-v4"),
        pytest.param("st=2025-01-01T00%3A01%3A00Z&se=2025-01-02&sig=x", 60, id="azure"),
        pytest.param("st=2025-01-01T00%3A01%3A00Z", None, id="st-of-something-else"),
        pytest.param("st=street&sig=x", None, id="st-that-is-no-time"),
        pytest.param(f"Policy={policy({'Statement': [not_before(EPOCH + 60)]})}", 60, id="policy"),
        pytest.param(f"Expires={EPOCH + 60}&Signature=x", None, id="s3-v2"),
        pytest.param(f"q-sign-time={EPOCH + 60};{EPOCH + 120}", 60, id="tencent"),
        pytest.param(
            "st=2025-01-01T00:02Z&sig=x&X-Amz-Date=20250101T000100Z", 120, id="the-latest"
        ),
        pytest.param("X-Amz-Date=soon", None, id="garbage"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_when_a_url_begins(query: str, valid_from: float | None) -> None:
    """Each store's way to write from when on a URL is valid is read."""
    found = url_valid_from(f"https://s.example/a.wav?{query}")
    assert found == (None if valid_from is None else NOW + timedelta(seconds=valid_from))


DATE = "Wed, 01 Jan 2025 00:00:00 GMT"
LATER = "X-Amz-Date=20250101T000500Z&X-Amz-Expires=60"
SKEWED = (
    b"<Error><Code>RequestTimeTooSkewed</Code><RequestTime>20250101T000500Z</RequestTime>"
    b"<ServerTime>2025-01-01T00:00:00Z</ServerTime></Error>"
)
NOT_YET = b"<Error><Code>AccessDenied</Code><Message>Request is not valid yet</Message></Error>"


@pytest.mark.parametrize(
    ("query", "status", "body", "seconds"),
    [
        pytest.param(LATER, 403, NOT_YET, 300, id="s3"),
        pytest.param(LATER, 400, b"<Code>AuthorizationQueryParametersError</Code>", 300, id="400"),
        pytest.param(LATER, 403, b"", 300, id="no-words"),
        pytest.param("st=2025-01-01T00:05Z&sig=x", 403, b"specified time frame", 300, id="azure"),
        pytest.param("", 403, SKEWED, 300, id="skewed"),
        pytest.param("", 403, b"Signature not yet current", 0, id="words-alone"),
        pytest.param("", 403, b"<Code>RequestNotReadyYet</Code>", 0, id="minio"),
        pytest.param("X-Amz-Date=20250101T000001Z", 403, b"", None, id="a-second"),
        pytest.param("X-Amz-Date=20241231T000000Z", 403, b"Request has expired", None, id="old"),
        pytest.param("X-Amz-Date=20241231T000000Z", 403, SKEWED, None, id="skewed-and-old"),
        pytest.param("", 403, b"<Key>not yet valid</Key>", None, id="a-name"),
        pytest.param(LATER, 404, NOT_YET, None, id="404"),
    ],
)
def test_a_url_that_is_not_valid_yet(
    query: str, status: int, body: bytes, seconds: float | None
) -> None:
    """A refusal before the URL's own beginning is one for a while, by the storage's clock."""
    ours = NOW + timedelta(hours=7)  # a clock of ours that is wrong does not matter
    url = f"https://s.example/a.wav?{query}"
    assert seconds_until_valid(url, status, DATE, body, ours) == seconds


@given(st.text(), st.sampled_from([400, 401, 403]), st.text(), st.binary())
def test_whatever_a_refusal_says(query: str, status: int, date: str, body: bytes) -> None:
    """No URL and no answer makes the judgement fail."""
    url = f"https://s.example/?X-Amz-Date={query}&Policy={query}&q-sign-time={query}"
    found = seconds_until_valid(url, status, date, body, NOW)
    assert found is None or found >= 0
