"""The API client: what it sends, byte for byte, and that no answer breaks it or gets the key."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from transfer.wire import Peer, Script, answering, fields, head, ok, unused_port

from downloader.camb.client import MAX_ANSWER_BYTES, ApiClient
from downloader.camb.run_types import RUN_TYPES
from downloader.rules.answers import (
    Answered,
    Blocked,
    Failed,
    Finished,
    NotYet,
    RetryLater,
    Suspect,
)
from downloader.rules.batching import Batch
from downloader.rules.states import MAX_RUN_ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import StartSimulator
    from transfer.wire import RawServer

    MakeClient = Callable[..., ApiClient]
    Serve = Callable[..., RawServer]

KEY = "test-key-0123456789"
TWO = Batch("text-to-sound", (1, 2))
ONE = Batch("text-to-sound", (1,))
BOTH = pytest.mark.parametrize("batch", [TWO, ONE], ids=["bulk", "single"])
URL = "https://storage.example/1.wav?X-Amz-Signature=a%2Fb%7E"
MB = 1024 * 1024


def takes(answer: bytes, bodies: list[bytes]) -> Script:
    """Answer every request alike, keeping the bodies."""

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            bodies.append(peer.body(int(fields(request).get("content-length", "0"))))
            peer.send(answer)

    return script


def json_ok(content: object, **headers: str) -> bytes:
    """Make a JSON answer."""
    return ok(json.dumps(content).encode(), content_type="application/json", **headers)


def later(client: ApiClient, batch: Batch, code: str) -> str:
    """Ask; the answer is to be no blame and to come again. Return its message, without a key."""
    judgement = client.ask(batch).judgement
    assert isinstance(judgement, RetryLater)
    assert judgement.error_code == code
    assert KEY not in repr(judgement)
    assert judgement.message.endswith(".")
    return judgement.message


# ----------------------------------------------------------------------------- requests


@pytest.mark.parametrize("run_type", RUN_TYPES)
@pytest.mark.parametrize("run_ids", [(1, 2), (5, 4, 3, 2, 1), (MAX_RUN_ID, MAX_RUN_ID - 1)])
@pytest.mark.parametrize("slash", ["", "/"])
def test_bulk_request(
    serve: Serve, make_client: MakeClient, run_type: str, run_ids: tuple[int, ...], *, slash: str
) -> None:
    """Two to five runs are asked for by POST, their ids as JSON integers, in order."""
    bodies: list[bytes] = []
    server = serve(takes(json_ok({}), bodies))
    make_client(server.origin + "/apis" + slash).ask(Batch(run_type, run_ids))
    [request] = server.requests
    assert request.split(b"\r\n")[0] == f"POST /apis/{run_type}-results HTTP/1.1".encode()
    text = bodies[0].decode()
    assert text.replace(" ", "") == f'{{"run_ids":[{",".join(map(str, run_ids))}]}}'
    sent = fields(request)
    assert sent.pop("x-api-key") == KEY
    assert sent.pop("content-type") == "application/json"
    assert sent.pop("accept") == "application/json"
    assert sent.pop("accept-encoding") == "identity"
    assert sent.pop("user-agent").startswith("downloader/")
    assert set(sent) == {"host", "connection", "content-length"}


@pytest.mark.parametrize("run_type", RUN_TYPES)
def test_single_request(serve: Serve, make_client: MakeClient, run_type: str) -> None:
    """A run alone is asked for by GET, for its URL rather than its bytes."""
    bodies: list[bytes] = []
    server = serve(takes(json_ok({}), bodies))
    make_client(server.origin + "/apis").ask(Batch(run_type, (MAX_RUN_ID,)))
    [request] = server.requests
    target = f"/apis/{run_type}-result/{MAX_RUN_ID}?output_type=file_url"
    assert request.split(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()
    assert bodies == [b""]
    sent = fields(request)
    assert sent["x-api-key"] == KEY
    assert "content-type" not in sent


@pytest.mark.parametrize("run_type", RUN_TYPES)
@pytest.mark.parametrize("single_key", ["output_url", "file_url"])
def test_against_the_simulator(
    start_simulator: StartSimulator, make_client: MakeClient, run_type: str, single_key: str
) -> None:
    """Both endpoints of both run types give URLs, and say which runs are not finished."""
    rules = [
        {"runs": [2], "where": "api", "fault": {"kind": "pending"}},
        {"runs": [3], "where": "api", "fault": {"kind": "word", "word": "ERROR"}},
    ]
    simulator = start_simulator(api_key=KEY, single_key=single_key, rules=rules)
    client = make_client(simulator.api_url)
    bulk = client.ask(Batch(run_type, (1, 2, 3))).judgement
    assert isinstance(bulk, Answered)
    assert [type(bulk.verdicts[run_id]) for run_id in (1, 2, 3)] == [Finished, NotYet, Failed]
    for run_id, expected in ((1, Finished), (3, Failed)):
        single = client.ask(Batch(run_type, (run_id,))).judgement
        assert isinstance(single, Answered)
        assert isinstance(single.verdicts[run_id], expected)
    single = client.ask(Batch(run_type, (2,))).judgement
    assert isinstance(single, Suspect)  # what that means others will tell
    assert single.status == 404


def test_url_byte_for_byte(serve: Serve, make_client: MakeClient) -> None:
    """A URL comes out of an answer as the service wrote it."""
    server = serve(answering(json_ok({"1": {"output_url": URL}, "2": URL})))
    judgement = make_client(server.origin).ask(TWO).judgement
    assert judgement == Answered({1: Finished(URL, None), 2: Finished(URL, None)})


def test_connection_is_reused(serve: Serve, make_client: MakeClient) -> None:
    """Requests one after another share a connection, and remember no cookie."""
    server = serve(takes(json_ok({}, set_cookie="session=1; Path=/"), []))
    client = make_client(server.origin)
    for batch in (TWO, ONE, TWO):
        client.ask(batch)
    assert (server.connections, len(server.requests)) == (1, 3)
    assert not any("cookie" in fields(request) for request in server.requests)


def test_threads(serve: Serve, make_client: MakeClient) -> None:
    """Threads that share a client each get the answer to their own question."""

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            run_id = request.split(b"?")[0].rpartition(b"/")[2].decode()
            peer.send(json_ok({"output_url": f"https://storage.example/{run_id}"}))

    client = make_client(serve(script).origin)

    def ask(run_id: int) -> object:
        return client.ask(Batch("text-to-sound", (run_id,))).judgement

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(1, 101)))
    assert found == [
        Answered({run_id: Finished(f"https://storage.example/{run_id}", None)})
        for run_id in range(1, 101)
    ]


# -------------------------------------------------------------------- where the key goes


@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    serve: Serve, make_client: MakeClient, batch: Batch, status: int
) -> None:
    """A redirect is not followed: whoever it leads to gets neither the key nor a connection."""
    there = serve(answering(json_ok({})))
    location = f"{there.origin}/apis/text-to-sound-results"
    here = serve(takes(head(status, location=location, content_length="0"), []))
    later(make_client(here.origin), batch, "unexpected_redirect")
    assert there.connections == 0
    assert len(here.requests) == 1


@pytest.mark.parametrize("location", ["http://[::1", "//", "mailto:x", "file:///etc/passwd", "/x"])
def test_odd_redirects(serve: Serve, make_client: MakeClient, location: str) -> None:
    """Nor does it matter where a redirect would lead."""
    server = serve(takes(head(302, location=location, content_length="0"), []))
    later(make_client(server.origin), TWO, "unexpected_redirect")
    assert len(server.requests) == 1


def test_key_is_not_shown(make_client: MakeClient) -> None:
    """The client can be printed, and formatted, without its key."""
    client = make_client("http://127.0.0.1:1")
    assert KEY not in repr(client) + str(client) + f"{client}"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422, 429, 500, 502, 503])
@BOTH
def test_refusal_that_quotes_the_key(
    serve: Serve, make_client: MakeClient, status: int, batch: Batch
) -> None:
    """A refusal that repeats the key is recorded without it."""
    body = json.dumps({"detail": f"Key {KEY} may not do that"}).encode()
    server = serve(takes(head(status, content_length=str(len(body))) + body, []))
    judgement = make_client(server.origin).ask(batch).judgement
    assert KEY not in repr(judgement)
    if status == 403:
        assert "may not do that" in repr(judgement)


def test_proxy_does_not_get_the_key(
    serve: Serve, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy passes the request through a tunnel, and sees the host alone."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.invalid").configure_cert(context)
    server = serve(takes(json_ok({"output_url": URL}), []), tls=context)

    def tunnel(peer: Peer) -> None:
        peer.request()
        peer.send(head(200))
        peer.tunnel(server.port)

    proxy = serve(tunnel)
    monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    judgement = make_client("https://api.invalid/apis").ask(ONE).judgement
    assert judgement == Answered({1: Finished(URL, None)})
    assert fields(server.requests[0])["x-api-key"] == KEY
    assert KEY.encode() not in proxy.requests[0]


# ------------------------------------------------------------------------ what can break


def sends(*data: bytes) -> Script:
    """Answer a request with these bytes, and close."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*data)

    return script


def resets(peer: Peer) -> None:
    """Reset the connection in answer to a request."""
    peer.request()
    peer.reset()


def echoes(before: bytes) -> Script:
    """Send the request's own lines back, after these bytes."""

    def script(peer: Peer) -> None:
        request = peer.request()
        assert request is not None
        lines = request.split(b"\r\n")
        key = next(line for line in lines if line.lower().startswith(b"x-api-key"))
        peer.send(before, key.replace(b":", b""), b"\r\n\r\n")

    return script


BREAKS: dict[str, Script] = {
    "no answer": sends(),
    "reset": resets,
    "garbage": sends(b"\x15\x03\x01\x00\x02\x02\x46" * 10),
    "another protocol": sends(b"220 mail.example ESMTP\r\n"),
    "cut headers": sends(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "cut body": sends(head(200, content_length="1000"), b'{"1": '),
    "cut chunks": sends(head(200, transfer_encoding="chunked"), b"5\r\nabc"),
    "bad chunks": sends(head(200, transfer_encoding="chunked"), b"zz\r\nabc"),
    "endless headers": sends(b"HTTP/1.1 200 OK\r\n", *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 1000),
    "the key in the status line": echoes(b""),
    "the key in a header": echoes(b"HTTP/1.1 200 OK\r\n"),
    "the key in a length": echoes(b"HTTP/1.1 200 OK\r\nContent-Length: "),
}


@pytest.mark.parametrize("script", BREAKS.values(), ids=BREAKS.keys())
@BOTH
def test_broken_connection(
    serve: Serve, make_client: MakeClient, script: Script, batch: Batch
) -> None:
    """A connection that breaks blames no run, and its message names the host and no key."""
    message = later(make_client(serve(script).origin), batch, "api_unreachable")
    assert message.startswith("The API at 127.0.0.1 cannot be reached: ")


def test_connection_refused(make_client: MakeClient) -> None:
    """An API that nobody runs blames no run."""
    later(make_client(f"http://127.0.0.1:{unused_port()}"), TWO, "api_unreachable")


@pytest.mark.parametrize("host", ["api.invalid", "a" * 64 + ".invalid", "a..invalid"])
def test_unknown_host(make_client: MakeClient, host: str) -> None:
    """An API whose name cannot be looked up blames no run."""
    later(make_client(f"https://{host}/apis"), TWO, "api_unreachable")


def test_untrusted_certificate(serve: Serve, make_client: MakeClient) -> None:
    """An API that cannot prove who it is gets no key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = serve(answering(json_ok({})), tls=context)
    message = later(make_client(server.origin), TWO, "certificate")
    assert "cannot be trusted: its certificate is signed by trustme" in message
    assert server.requests == []


def test_certificate_of_another_host(
    serve: Serve, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is wrong with a certificate is said as of a storage's."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    server = serve(answering(json_ok({})), tls=context)
    message = later(make_client(server.origin), TWO, "certificate")
    assert message.endswith("its certificate is for elsewhere.example, and not for 127.0.0.1.")


def test_single_answer_that_comes_twice(serve: Serve, make_client: MakeClient) -> None:
    """A single answer does not name its run: a second one, however late, is no other run's."""

    def script(peer: Peer) -> None:
        before: list[bytes] = []
        while (request := peer.request()) is not None:
            peer.send(*before)  # once more, and as late as can be
            name = request.split()[1].rpartition(b"/")[2].decode().partition("?")[0]
            before = [json_ok({"output_url": f"https://storage.example/{name}"})]
            peer.send(*before)

    client = make_client(serve(script).origin)
    for run_id in range(1, 7):
        answered = client.ask(Batch("text-to-sound", (run_id,))).judgement
        assert answered == Answered({run_id: Finished(f"https://storage.example/{run_id}", None)})


@BOTH
def test_answer_too_many(serve: Serve, make_client: MakeClient, batch: Batch) -> None:
    """What is left over of an answer is not the answer to the next request."""
    turns = iter(range(100))

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            peer.body(int(fields(request).get("content-length", "0")))
            url = {"output_url": f"https://storage.example/{next(turns)}"}
            answer = json_ok({"1": url, "2": url} if batch is TWO else url)
            peer.send(answer * 2)

    client = make_client(serve(script).origin)
    for turn in range(4):
        judgement = client.ask(batch).judgement
        assert isinstance(judgement, Answered)
        assert judgement.verdicts[1] == Finished(f"https://storage.example/{turn}", None)


def test_next_request_after_a_break(serve: Serve, make_client: MakeClient) -> None:
    """A connection that broke does not spoil the next request."""
    turns = iter([resets, sends(head(200, content_length="9"), b"{"), resets])
    whole = takes(json_ok({"1": {"output_url": URL}}), [])

    def script(peer: Peer) -> None:
        next(turns, whole)(peer)

    client = make_client(serve(script).origin)
    for _ in range(3):
        later(client, TWO, "api_unreachable")
    assert client.ask(TWO).judgement == Answered({1: Finished(URL, None), 2: NotYet(None)})


# ------------------------------------------------------------------------ size and time


def stalls(*data: bytes) -> Script:
    """Answer a request with these bytes, and nothing more."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*data)
        peer.stall()

    return script


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", head(200, content_length="9"), head(200)])
def test_stall(serve: Serve, make_client: MakeClient, data: bytes) -> None:
    """An answer that stalls is given up after its time."""
    server = serve(stalls(data))
    message = later(make_client(server.origin, answer_seconds=0.3), TWO, "api_unreachable")
    assert message.endswith("no answer in 0.3 seconds.")
    assert server.deserted.wait(10), "the connection was left open"


def test_drip(serve: Serve, make_client: MakeClient) -> None:
    """An answer that comes byte by byte is given up after its time, too."""
    left = threading.Event()

    def drips(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length="100000"))
        try:
            while True:
                peer.send(b" ")
                left.wait(0.02)
        finally:
            left.set()

    begun = time.monotonic()
    later(make_client(serve(drips).origin, answer_seconds=0.3), TWO, "api_unreachable")
    assert time.monotonic() - begun < 5
    assert left.wait(10), "the connection was left open"


def bounded_peak(client: ApiClient, code: str) -> int:
    """Ask, and return how much memory that took at most."""
    tracemalloc.start()
    try:
        later(client, TWO, code)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("framing", ["length", "chunked", "closed"])
def test_answer_that_is_too_long(serve: Serve, make_client: MakeClient, framing: str) -> None:
    """An answer of 50 MB is cut off early: no more is read, and none of it is believed."""
    sent = [0]
    piece = json.dumps({str(number): {"output_url": URL} for number in range(10_000)}).encode()

    def large(peer: Peer) -> None:
        peer.request()
        heads = {
            "length": head(200, content_length=str(50 * MB)),
            "chunked": head(200, transfer_encoding="chunked"),
            "closed": head(200),
        }
        peer.send(heads[framing])
        while sent[0] < 50 * MB:
            peer.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            sent[0] += len(piece)

    peak = bounded_peak(make_client(serve(large).origin), "unreadable_answer")
    assert peak < 4 * MAX_ANSWER_BYTES
    assert sent[0] < 30 * MB  # what the kernel buffers is not ours


@pytest.mark.parametrize(("extra", "readable"), [(0, True), (1, False)])
def test_longest_answer(
    serve: Serve, make_client: MakeClient, extra: int, *, readable: bool
) -> None:
    """The bound is 1 MiB, to the byte."""
    body = json.dumps({"1": {"output_url": URL}}).encode()
    server = serve(takes(ok(body.ljust(MAX_ANSWER_BYTES + extra)), []))
    judgement = make_client(server.origin).ask(TWO).judgement
    assert isinstance(judgement, Answered if readable else RetryLater)


@pytest.mark.parametrize("size", [100, 50 * MB])
@pytest.mark.parametrize("told", [True, False])
def test_compressed_answer(serve: Serve, make_client: MakeClient, size: int, *, told: bool) -> None:
    """A compressed answer, which nobody asked for, is unpacked as far as an answer may be long."""
    body = json.dumps({"1": {"output_url": URL}}).encode().ljust(size)
    packed = gzip.compress(body)
    answer = ok(packed, content_encoding="gzip") if told else ok(packed)
    client = make_client(serve(takes(answer, [])).origin)
    if size == 100:
        assert client.ask(TWO).judgement == Answered({1: Finished(URL, None), 2: NotYet(None)})
    else:
        assert bounded_peak(client, "unreadable_answer") < 5 * MB


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"1", b'"x"', b"[" * 100_000, b"<html>", b"\xff\xfe", b'{"1": NaN}'],
    ids=lambda content: repr(content[:8]),
)
@BOTH
def test_odd_content(serve: Serve, make_client: MakeClient, content: bytes, batch: Batch) -> None:
    """Whatever stands in a body, the client judges it and does not raise."""
    judgement = make_client(serve(takes(ok(content), [])).origin).ask(batch).judgement
    assert isinstance(judgement, Answered | RetryLater)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, Blocked), (402, Blocked), (422, Suspect), (429, RetryLater), (599, Suspect)],
)
def test_status_is_judged(
    start_simulator: StartSimulator, make_client: MakeClient, status: int, expected: type[Any]
) -> None:
    """A refusal reaches the rules with its status and headers."""
    fault = {"kind": "status", "status": status, "retry_after": 17}
    simulator = start_simulator(rules=[{"runs": "*", "where": "api", "fault": fault}])
    judgement = make_client(simulator.api_url).ask(TWO).judgement
    assert isinstance(judgement, expected)
    if isinstance(judgement, RetryLater | Suspect):
        assert judgement.retry_after_seconds == 17


# -------------------------------------------------------------------------------- clock


@pytest.mark.parametrize("hours", [-5, 0, 5])
@pytest.mark.parametrize("status", [200, 503])
@BOTH
def test_clock_offset(
    make_client: MakeClient, serve: Serve, hours: int, status: int, batch: Batch
) -> None:
    """The Date of any answer tells how far the service's clock is ahead of ours."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    server = serve(takes(head(status, date=date, content_length="2") + b"{}", []))
    offset = make_client(server.origin).ask(batch).clock_offset
    assert offset is not None
    assert abs(offset - timedelta(hours=hours)) < timedelta(seconds=30)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2025 00:00:00 GMT"])
def test_no_clock(make_client: MakeClient, serve: Serve, date: str) -> None:
    """Without a Date that can be read the service's clock is unknown."""
    for headers in ({"date": date}, {}):
        server = serve(takes(json_ok({}, **headers), []))
        assert make_client(server.origin).ask(TWO).clock_offset is None


def test_no_clock_without_an_answer(make_client: MakeClient) -> None:
    """Without an answer the service's clock is unknown."""
    assert make_client(f"http://127.0.0.1:{unused_port()}").ask(TWO).clock_offset is None


def test_skewed_simulator(start_simulator: StartSimulator, make_client: MakeClient) -> None:
    """The simulator's clock, set forward, is seen."""
    offset = make_client(start_simulator(clock_skew=3600).api_url).ask(TWO).clock_offset
    assert offset is not None
    assert abs(offset - timedelta(hours=1)) < timedelta(seconds=30)
