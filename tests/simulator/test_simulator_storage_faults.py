from __future__ import annotations

import gzip
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from simulator.asking import url_of

from downloader.simulator.rules import Rule

if TYPE_CHECKING:
    from simulator.asking import StartSim

    from downloader.simulator.server import Simulator

SIZE = 4096


def raw_get(url: str, **headers: str) -> tuple[str, dict[str, str], bytes]:
    """GET without a library's opinion: status line, headers, and all bytes until the end."""
    parts = urlsplit(url)
    target = url.removeprefix(f"{parts.scheme}://{parts.netloc}")
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        fields += "connection: close\r\n"
        connection.sendall(
            f"GET {target} HTTP/1.1\r\nhost: {parts.netloc}\r\n{fields}\r\n".encode()
        )
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return status, dict(line.lower().split(": ", 1) for line in lines), body


def received_before(error: type[Exception], url: str) -> int:
    """How many bytes of the body come before this error."""
    received = 0

    def read() -> None:
        nonlocal received
        with httpx.stream("GET", url, timeout=0.3) as answer:
            for chunk in answer.iter_raw():
                received += len(chunk)

    with pytest.raises(error):
        read()
    return received


def test_truncation_with_a_length(start_sim: StartSim) -> None:
    """Content-Length promises the file, and the connection ends before it is there."""
    sim = start_sim(Rule.of(1, "storage", "truncate", after=1000))

    status, headers, body = raw_get(url_of(sim, 1))

    assert status == "HTTP/1.1 200 OK"
    assert headers["content-length"] == str(SIZE)
    assert body == sim.audio(1)[:1000]


def test_truncation_without_a_length(start_sim: StartSim) -> None:
    """With neither length nor chunks a cut looks like the end."""
    sim = start_sim(Rule.of(1, "storage", "truncate", framing="close"))

    _, headers, body = raw_get(url_of(sim, 1))

    assert not {"content-length", "transfer-encoding"} & set(headers)
    assert headers["connection"] == "close"
    assert body == sim.audio(1)[: SIZE // 2]


def test_truncation_of_chunks(start_sim: StartSim) -> None:
    """A chunked body ends without its last chunk."""
    sim = start_sim(Rule.of(1, "storage", "truncate", framing="chunked"))

    _, headers, body = raw_get(url_of(sim, 1))

    assert headers["transfer-encoding"] == "chunked"
    assert not body.endswith(b"0\r\n\r\n")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url_of(sim, 1))


@pytest.mark.parametrize("form", ["chunked", "close"])
def test_a_whole_body_without_a_length(start_sim: StartSim, form: str) -> None:
    """The file can come whole without its length being told."""
    sim = start_sim(Rule.of(1, "storage", "framing", form=form))

    answer = httpx.get(url_of(sim, 1))

    assert answer.content == sim.audio(1)
    assert "content-length" not in answer.headers
    assert ("transfer-encoding" in answer.headers) is (form == "chunked")


@pytest.mark.parametrize("by", [1000, -1000])
def test_a_wrong_length(start_sim: StartSim, by: int) -> None:
    """Content-Length is too large or too small, and the body is the whole file."""
    sim = start_sim(Rule.of(1, "storage", "wrong-length", by=by))

    _, headers, body = raw_get(url_of(sim, 1))

    assert headers["content-length"] == str(SIZE + by)
    assert body == sim.audio(1)


def test_a_reset_in_the_body(start_sim: StartSim) -> None:
    """Some bytes come, then RST."""
    sim = start_sim(Rule.of(1, "storage", "reset", after=1000))

    assert received_before(httpx.ReadError, url_of(sim, 1)) <= 1000


def test_a_reset_before_the_headers(start_sim: StartSim) -> None:
    """RST comes instead of an answer, and is counted without a status."""
    sim = start_sim(Rule.of(1, "storage", "reset", at="headers"))

    with pytest.raises(httpx.ReadError):
        httpx.get(url_of(sim, 1))
    assert sim.stats()["storage"]["by_status"] == {"none": 1}


def test_a_stall_in_the_body(start_sim: StartSim) -> None:
    """Some bytes come, then nothing, and the connection stays open."""
    sim = start_sim(Rule.of(1, "storage", "stall", after=1000))

    assert received_before(httpx.ReadTimeout, url_of(sim, 1)) == 1000


def test_a_stall_before_the_headers(start_sim: StartSim) -> None:
    """Nothing comes at all."""
    sim = start_sim(Rule.of(1, "storage", "stall", at="headers"))

    assert received_before(httpx.ReadTimeout, url_of(sim, 1)) == 0


@pytest.mark.parametrize("at", ["headers", "body"])
def test_a_stall_that_ends(start_sim: StartSim, at: str) -> None:
    """After its seconds the rest of the answer comes."""
    sim = start_sim(Rule.of(1, "storage", "stall", at=at, seconds=0.05))
    url = url_of(sim, 1)

    begun = time.monotonic()

    assert httpx.get(url).content == sim.audio(1)
    assert 0.05 <= time.monotonic() - begun < 5


def test_a_drip_beats_a_read_timeout(start_sim: StartSim) -> None:
    """Bytes keep coming, too few to ever finish."""
    sim = start_sim(Rule.of(1, "storage", "drip", rate=100))

    with httpx.stream("GET", url_of(sim, 1), timeout=1) as answer:
        received = [len(chunk) for chunk, _ in zip(answer.iter_raw(), range(4), strict=False)]

    assert sum(received) < 200


def test_a_late_first_byte(start_sim: StartSim) -> None:
    """`slow` delays the answer and leaves it whole."""
    sim = start_sim(Rule.of(1, "storage", "slow", seconds=0.05))
    url = url_of(sim, 1)

    begun = time.monotonic()

    assert httpx.get(url).content == sim.audio(1)
    assert time.monotonic() - begun >= 0.05


def test_gzip_nobody_asked_for(start_sim: StartSim) -> None:
    """The body is compressed even where identity was asked for."""
    sim = start_sim(Rule.of(1, "storage", "gzip"))

    _, headers, body = raw_get(url_of(sim, 1), **{"accept-encoding": "identity"})

    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == sim.audio(1)


def test_a_range_is_ignored(start_sim: StartSim) -> None:
    """Range is answered with 200 and everything."""
    sim = start_sim(Rule.of(1, "storage", "ignore-range"))

    answer = httpx.get(url_of(sim, 1), headers={"range": "bytes=1000-"})

    assert (answer.status_code, answer.content) == (200, sim.audio(1))


@pytest.mark.parametrize(
    ("what", "expected"),
    [("start", "bytes 1001-4096/4097"), ("total", "bytes 1000-4095/4097")],
)
def test_a_wrong_content_range(start_sim: StartSim, what: str, expected: str) -> None:
    """206 is not the range that was asked for."""
    sim = start_sim(Rule.of(1, "storage", "wrong-content-range", what=what))

    answer = httpx.get(url_of(sim, 1), headers={"range": "bytes=1000-"})

    assert (answer.status_code, answer.headers["content-range"]) == (206, expected)


def test_a_weak_etag_matches_no_if_range(start_sim: StartSim) -> None:
    """A weak tag is shown, and If-Range with it, or without its W/, gets everything."""
    sim = start_sim(Rule.of(1, "storage", "weak-etag"))
    url = url_of(sim, 1)
    etag = httpx.get(url).headers["etag"]

    assert etag.startswith('W/"')
    for condition in (etag, etag.removeprefix("W/")):
        headers = {"range": "bytes=10-", "if-range": condition}
        assert httpx.get(url, headers=headers).status_code == 200


def test_no_etag(start_sim: StartSim) -> None:
    """The ETag is missing; ranges work."""
    sim = start_sim(Rule.of(1, "storage", "no-etag"))
    answer = httpx.get(url_of(sim, 1), headers={"range": "bytes=10-"})

    assert answer.status_code == 206
    assert "etag" not in answer.headers


def test_the_object_changes_between_requests(start_sim: StartSim) -> None:
    """From the second request on there are other bytes, with another ETag, at the same length."""
    sim = start_sim(Rule.of(1, "storage", "changed", skip=1))
    url = url_of(sim, 1)

    first, second, third = (httpx.get(url) for _ in range(3))

    assert first.content == sim.audio(1)
    assert second.content == third.content == sim.audio(1, version=2)
    assert len(first.content) == len(second.content)
    assert first.content[-1000:] != second.content[-1000:]
    assert first.headers["etag"] != second.headers["etag"] == third.headers["etag"]
    headers = {"range": "bytes=10-", "if-range": first.headers["etag"]}
    assert httpx.get(url, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("form", "content_type", "start"),
    [
        ("xml", "application/xml", b"<?xml"),
        ("html", "text/html", b"<!DOCTYPE"),
        ("json", "application/json", b"{"),
    ],
)
def test_an_error_page_with_status_200(
    start_sim: StartSim, form: str, content_type: str, start: bytes
) -> None:
    """200 brings a page, under its own type or under that of audio."""
    sim = start_sim(
        Rule.of(1, "storage", "error-page", form=form),
        Rule.of(2, "storage", "error-page", form=form, content_type="audio/wav"),
    )
    honest, dishonest = httpx.get(url_of(sim, 1)), httpx.get(url_of(sim, 2))

    assert (honest.status_code, dishonest.status_code) == (200, 200)
    assert honest.content == dishonest.content
    assert honest.content.startswith(start)
    assert honest.headers["content-type"] == content_type
    assert dishonest.headers["content-type"] == "audio/wav"


def test_no_bytes_at_all(start_sim: StartSim) -> None:
    """200 with an empty body."""
    answer = httpx.get(url_of(start_sim(Rule.of(1, "storage", "empty")), 1))

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"


def test_bytes_that_are_no_audio(start_sim: StartSim) -> None:
    """The length is right, the first bytes are not, from wherever the range starts."""
    sim = start_sim(Rule.of(1, "storage", "wrong-magic"))
    url, truth = url_of(sim, 1), sim.audio(1)

    body = httpx.get(url).content

    assert len(body) == SIZE
    assert not body.startswith(b"RIFF")
    assert body[32:] == truth[32:]
    assert httpx.get(url, headers={"range": "bytes=10-"}).content == body[10:]


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_a_header_that_does_not_know_the_size(start_sim: StartSim, audio_format: str) -> None:
    """`streamed` audio leaves its own size open."""
    sim = start_sim(Rule.of(1, "storage", "streamed"), audio_format=audio_format)

    body = httpx.get(url_of(sim, 1)).content

    assert body == sim.audio(1, streamed=True) != sim.audio(1)
    if audio_format == "wav":
        assert body[4:8] == b"\xff" * 4
    else:
        assert body[21:42] == bytes([0xF0]) + bytes(20)  # sample count and MD5


def test_headers_as_one_likes(start_sim: StartSim) -> None:
    """Any header can be replaced or removed, for file names that must not be believed."""
    wanted = {
        "Content-Type": "application/octet-stream",
        "content-disposition": 'attachment; filename="../../etc/passwd"',
        "last-modified": None,
    }
    sim = start_sim(Rule.of(1, "storage", "headers", headers=wanted))

    answer = httpx.get(url_of(sim, 1))

    assert answer.headers["content-type"] == "application/octet-stream"
    assert "../../etc/passwd" in answer.headers["content-disposition"]
    assert "last-modified" not in answer.headers


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("to", ["same", "other"])
def test_a_redirect_leads_to_the_file(start_sim: StartSim, status: int, to: str) -> None:
    """Following the redirect, to the same origin or another one, gets the file."""
    sim = start_sim(Rule.of(1, "storage", "redirect", status=status, to=to))
    url = url_of(sim, 1)

    first = httpx.get(url)
    followed = httpx.get(url, follow_redirects=True)

    same_origin = first.headers["location"].startswith(sim.storage_url + "/")
    assert first.status_code == status
    assert same_origin is (to == "same")
    assert followed.content == sim.audio(1)


def test_a_redirect_loop(start_sim: StartSim) -> None:
    """`loop` leads back to the same URL for ever."""
    sim = start_sim(Rule.of(1, "storage", "redirect", to="loop"))

    with pytest.raises(httpx.TooManyRedirects):
        httpx.get(url_of(sim, 1), follow_redirects=True)


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/a.wav"])
def test_a_redirect_to_another_scheme(start_sim: StartSim, place: str) -> None:
    """A redirect may name any address."""
    sim = start_sim(Rule.of(1, "storage", "redirect", to=place))

    assert httpx.get(url_of(sim, 1)).headers["location"] == place


def test_expired_whatever_the_url_says(start_sim: StartSim) -> None:
    """`expired` refuses a good URL as often as it is told to."""
    sim = start_sim(Rule.of(1, "storage", "expired", times=2))
    url = url_of(sim, 1)

    answers = [httpx.get(url) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [403, 403, 200]
    assert "Request has expired" in answers[0].text


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (404, "NoSuchKey"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "SlowDown"),
    ],
)
def test_a_refusal_with_s3s_code(start_sim: StartSim, status: int, code: str) -> None:
    """A status comes with the code that S3 gives it, and the signature echoed."""
    sim = start_sim(Rule.of(1, "storage", "status", status=status))
    url = url_of(sim, 1)

    answer = httpx.get(url)

    assert answer.status_code == status
    assert f"<Code>{code}</Code>" in answer.text
    assert url.rpartition("=")[2] in answer.text
    assert "expired" not in answer.text
    assert "retry-after" not in answer.headers


def test_a_refusal_with_another_code_and_a_wait(start_sim: StartSim) -> None:
    """Code, message and Retry-After can be chosen."""
    sim = start_sim(
        Rule.of(1, "storage", "status", status=403, code="SignatureDoesNotMatch"),
        Rule.of(2, "storage", "status", status=503, retry_after=3, message="Please wait"),
    )
    mismatch, busy = httpx.get(url_of(sim, 1)), httpx.get(url_of(sim, 2))

    assert "<Code>SignatureDoesNotMatch</Code>" in mismatch.text
    assert busy.headers["retry-after"] == "3"
    assert "Please wait" in busy.text


def test_a_fault_of_one_run_is_not_anothers(sim: Simulator) -> None:
    """Rules replaced while it runs, by PUT, hold for the runs they name and from then on."""
    url, other = url_of(sim, 1), url_of(sim, 2)
    assert httpx.get(url).status_code == 200

    rules = {"rules": [{"runs": "1", "where": "storage", "fault": {"kind": "status"}}]}
    assert httpx.put(f"{sim.control_url}/rules", json=rules).json() == {"rules": 1}

    assert (httpx.get(url).status_code, httpx.get(other).status_code) == (500, 200)
    refused = httpx.put(f"{sim.control_url}/rules", json={"rules": [{"runs": "1"}]})
    assert (refused.status_code, refused.json()) == (
        400,
        {"detail": "rule 1: a rule needs 'fault': {'runs': '1'}"},
    )
    assert httpx.get(url).status_code == 500
