from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.answer_body import UNREADABLE, UNUSABLE_URL, is_usable_url
from downloader.rules.answers import (
    MAX_BODY_BYTES,
    Answered,
    Blocked,
    Failed,
    Finished,
    Forbidden,
    Judgement,
    NotYet,
    RetryLater,
    Suspect,
    Verdict,
    judge_bulk,
    judge_single,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOW = datetime(2025, 1, 1, tzinfo=UTC)
URL = "https://store.example.com/a/11.wav?X-Amz-Signature=0f%2Fe&x=+"
SECRET = "0f%2Fe"


def bulk(
    body: object,
    asked: Sequence[int] = (11, 12),
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Judgement:
    """Judge a bulk answer with this body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge_bulk(status, headers or {}, content, asked, NOW)


def single(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Judgement:
    """Judge a single-run answer with this body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge_single(status, headers or {}, content, 11, NOW)


def verdict(judgement: Judgement, run_id: int = 11) -> Verdict:
    """Return the verdict on a run in an answer that has one."""
    assert isinstance(judgement, Answered)
    return judgement.verdicts[run_id]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"output_url": URL}, Finished(URL, None), id="schema"),
        pytest.param({"file_url": URL}, Finished(URL, None), id="single-endpoint-key"),
        pytest.param({"output_url": None, "file_url": URL}, Finished(URL, None), id="either-key"),
        pytest.param(URL, Finished(URL, None), id="plain-string"),
        pytest.param(
            {"output_url": URL, "status": "SUCCESS"}, Finished(URL, "SUCCESS"), id="with-status"
        ),
        pytest.param({"output_url": URL, "status": 7}, Finished(URL, None), id="odd-status"),
        pytest.param(None, NotYet(None), id="null"),
        pytest.param({}, NotYet(None), id="empty-object"),
        pytest.param({"output_url": None}, NotYet(None), id="null-url"),
        pytest.param({"output_url": ""}, NotYet(None), id="empty-url"),
        pytest.param({"output_url": False}, NotYet(None), id="false-url"),
        pytest.param({"status": "PENDING"}, NotYet("PENDING"), id="pending"),
        pytest.param(
            {"status": "PENDING", "exception_reason": "slow"}, NotYet("PENDING"), id="reason-early"
        ),
        pytest.param({"status": "SUCCESS"}, NotYet("SUCCESS"), id="success-without-url"),
        pytest.param({"status": "Baking\n☃\x00"}, NotYet("Baking ☃"), id="unknown-status"),
        pytest.param("PENDING", NotYet("PENDING"), id="plain-status"),
        pytest.param("  ", NotYet(None), id="blank-string"),
        pytest.param({"output_url": "ftp://h/x"}, NotYet(UNUSABLE_URL), id="ftp"),
        pytest.param({"output_url": ["https://h/x"]}, NotYet(UNUSABLE_URL), id="list-of-urls"),
        pytest.param("https://u:p@h/x", NotYet(UNUSABLE_URL), id="credentials"),
        pytest.param([1], NotYet(UNREADABLE), id="list"),
        pytest.param(True, NotYet(UNREADABLE), id="boolean"),
        pytest.param(
            {"status": "ERROR", "exception_reason": "No GPU"},
            Failed("provider_failed", "ERROR", "The service says: ERROR: No GPU"),
            id="error-with-reason",
        ),
        pytest.param(
            {"status": "timeout"},
            Failed("provider_failed", "timeout", "The service says: timeout"),
            id="timeout-verbatim",
        ),
        pytest.param(
            {"status": "PAYMENT_REQUIRED", "output_url": URL},
            Failed("provider_failed", "PAYMENT_REQUIRED", "The service says: PAYMENT_REQUIRED"),
            id="bad-status-beats-url",
        ),
        pytest.param(
            {"exception_reason": "No GPU"},
            Failed("provider_failed", None, "The service says: No GPU"),
            id="reason-alone",
        ),
        pytest.param(
            "ERROR",
            Failed("provider_failed", "ERROR", "The service says: ERROR"),
            id="plain-error",
        ),
    ],
)
def test_value_of_a_run(value: object, expected: Verdict) -> None:
    """A run's value means the same in the bulk answer and alone, keyed or in a list."""
    assert verdict(bulk({"11": value})) == expected
    assert verdict(bulk({"results": {"11": value}})) == expected
    assert verdict(single({"11": value})) == expected
    if isinstance(value, dict):
        assert verdict(bulk({"results": [{"run_id": 11, **value}]})) == expected
        assert verdict(bulk([{"id": "11", **value}])) == expected
        assert verdict(bulk([{"11": value}])) == expected
    if isinstance(value, str) or value is None or (isinstance(value, dict) and value):
        assert verdict(single(value)) == expected


@pytest.mark.parametrize(
    ("body", "unasked"),
    [
        pytest.param({}, (), id="empty-object"),
        pytest.param([], (), id="empty-list"),
        pytest.param({"results": []}, (), id="empty-results"),
        pytest.param({"99": {"output_url": URL}}, ("99",), id="another-run"),
        pytest.param({"99": None, "note\n": 1}, ("99", "note"), id="another-key"),
    ],
)
def test_omitted_runs_are_not_finished(body: object, unasked: tuple[str, ...]) -> None:
    """A run that the answer leaves out is polled later; a run not asked for is only listed."""
    assert bulk(body) == Answered({11: NotYet(None), 12: NotYet(None)}, unasked)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"\xff\xfe\xfd", id="bad-encoding"),
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(b'{"11":' * 100_000, id="nested-objects"),
        pytest.param(b"9" * 5000, id="huge-integer"),
        pytest.param(b"{}" + b" " * MAX_BODY_BYTES, id="too-long"),
        pytest.param(b'[ 11: {"output_url": "https://h/x"} ]', id="pseudo-array-of-the-page"),
        pytest.param(b"NaN", id="nan"),
        pytest.param(b"12", id="number"),
        pytest.param({"status_code": 1}, id="object-without-ids"),
        pytest.param({"results": {"a": 1}}, id="results-without-ids"),
        pytest.param([1, 2], id="list-of-numbers"),
    ],
)
def test_unreadable_answers_blame_nobody(body: object) -> None:
    """An answer that is not JSON, or of no known shape, is asked for again."""
    for judgement in (bulk(body), single(body)):
        assert isinstance(judgement, RetryLater)
        assert judgement.error_code == "unreadable_answer"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Suspect),
        (401, Blocked),
        (402, Blocked),
        (403, Forbidden),
        (404, Suspect),
        (405, Suspect),
        (408, RetryLater),
        (409, RetryLater),
        (413, Suspect),
        (422, Suspect),
        (425, RetryLater),
        (429, RetryLater),
        (500, Suspect),
        (501, Suspect),
        (505, Suspect),
        (520, Suspect),
        (502, RetryLater),
        (503, RetryLater),
        (504, RetryLater),
        (302, RetryLater),
        (100, RetryLater),
        (999, RetryLater),
    ],
)
def test_refused_batches(status: int, expected: type[Judgement]) -> None:
    """A refusal that one run may have caused splits the batch; others block or wait."""
    for body in (b"", b"<html>oops</html>", {"detail": "why"}, {"11": {"output_url": URL}}):
        judgement = bulk(body, status=status)
        assert type(judgement) is expected
        if isinstance(judgement, RetryLater):
            assert judgement.slow_all is (status in {429, 503})


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Suspect(400, "bad_request", "The service refused the run (400): why")),
        (401, Blocked("key_refused", "The service refused the API key (401).")),
        (402, Blocked("payment_required", "The service asks for payment (402): why")),
        (403, Forbidden("The service forbids access (403): why")),
        (404, Suspect(404, "not_found", "The service refused the run (404): why")),
        (422, Suspect(422, "invalid_request", "The service refused the run (422): why")),
        (410, Suspect(410, "refused", "The service refused the run (410): why")),
        (500, Suspect(500, "server_error", "The service refused the run (500): why")),
        (520, Suspect(520, "server_error", "The service refused the run (520): why")),
    ],
)
def test_refused_single_runs(status: int, expected: Judgement) -> None:
    """Of a run alone, too, a refusal does not say whose fault it is."""
    assert single({"detail": "why"}, status=status) == expected


@pytest.mark.parametrize("status", [302, 400, 403, 408, 429, 500, 503])
def test_retry_after_is_honoured(status: int) -> None:
    """A wait that the service asks for comes with the judgement."""
    judgement = single(b"", status=status, headers={"retry-after": "7"})
    assert isinstance(judgement, RetryLater | Suspect | Forbidden)
    assert judgement.retry_after_seconds == 7.0


def test_validation_errors_are_told() -> None:
    """FastAPI's list of details becomes a sentence, without the input that it echoes."""
    detail = [
        {"loc": ["body", "run_ids", 0], "msg": "Input should be > 0", "type": "x", "input": "S3"},
        {"loc": "odd", "msg": "Also wrong"},
        "and this",
        7,
    ]
    judgement = bulk({"detail": detail}, status=422)
    assert judgement == Suspect(
        422,
        "invalid_request",
        "The service refused the batch (422): body.run_ids.0: Input should be > 0; Also wrong;"
        " and this",
    )


def test_key_is_not_repeated() -> None:
    """What a 401 says is left out, since it may repeat the key."""
    assert "abc" not in repr(bulk({"detail": "Invalid key abc"}, status=401))


@pytest.mark.parametrize("status", [200, 400, 402, 403, 422, 429, 500, 502])
def test_no_signature_in_messages(status: int) -> None:
    """A URL that the service repeats in an error comes without its query."""
    said = f"Cannot read {URL} now"
    body = {"detail": said, "11": {"status": "ERROR", "exception_reason": said}}
    assert SECRET not in repr(bulk(body, status=status))
    assert SECRET not in repr(single(body, status=status))


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("https://h/x", True),
        ("HTTP://h:8080/x?y=%20#z", True),
        ("http://[::1]:9/x", True),
        ("https://h", True),
        ("//h/x", False),
        ("/x", False),
        ("", False),
        ("https:///x", False),
        ("https://?x", False),
        ("https://h:99999/x", False),
        ("https://h:x/", False),
        ("https://[::1/x", False),
        ("https://u@h/x", False),
        ("https://h/a b?c=d e", True),
        ("https://h/a\N{NO-BREAK SPACE}b", True),
        ("https://h h/a", False),
        (" https://h/a", False),
        ("https://h/a\nb", False),
        ("https://h\\@evil/x", False),
        ("https://h/\ud800", False),
        ("file:///etc/passwd", False),
        ("https://h/" + "a" * 16_384, False),
    ],
)
def test_usable_urls(url: str, usable: bool) -> None:  # noqa: FBT001 - a column of the table
    """Only an absolute http(s) URL with a host and without credentials is fetched."""
    assert is_usable_url(url) is usable


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([URL, "PENDING", "ERROR", "https://h/\ud800", "://"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(
                [
                    "11",
                    "12",
                    "011",
                    "results",
                    "run_id",
                    "id",
                    "output_url",
                    "file_url",
                    "status",
                    "exception_reason",
                    "detail",
                    "msg",
                    "loc",
                    "message",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
bodies = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode())
statuses = st.sampled_from([200, 200, 200, 204, 400, 403, 404, 422, 500]) | st.integers(0, 999)
header_values = st.dictionaries(
    st.sampled_from(["retry-after", "x-ratelimit-reset"]), st.text(max_size=30)
)


@given(status=statuses, headers=header_values, body=bodies)
def test_judging_never_raises(status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever the service sends, a judgement comes, with a verdict for every run asked for."""
    for judgement, asked in (
        (judge_bulk(status, headers, body, [11, 12], NOW), {11, 12}),
        (judge_single(status, headers, body, 11, NOW), {11}),
    ):
        repr(judgement).encode()
        if isinstance(judgement, Answered):
            assert set(judgement.verdicts) == asked
            for one in judgement.verdicts.values():
                assert not isinstance(one, Finished) or is_usable_url(one.url)


@given(path=st.text("abcABC012/._-~%", max_size=20), query=st.text("abc012%&=+/", max_size=40))
def test_urls_are_kept_byte_for_byte(path: str, query: str) -> None:
    """A URL comes out as it came in, escapes and all."""
    url = f"https://h/{path}?{query}"
    assert verdict(bulk({"11": {"output_url": url}})) == Finished(url, None)
