"""What every engine does alike, on the wire: requests, answers, what breaks, redirects."""

from __future__ import annotations

import gzip
import re
import threading
from typing import TYPE_CHECKING

import pytest
from transfer.engines import SIGNED, problem_of
from transfer.wire import (
    Collected,
    Peer,
    Script,
    answering,
    fetch,
    fetch_into,
    fields,
    head,
    ok,
    unused_port,
)

from downloader.rules.decisions import ProblemKind
from downloader.transfer.engine import MAX_REDIRECTS, Timing
from downloader.transfer.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transfer.engines import MakeEngine, Serve

    from downloader.transfer.engine import Engine

BODY = bytes(range(256)) * 1000

EXACT_TARGETS = [
    "/",
    "/plain.wav",
    "/%7E%41%62%2D",
    "/a%2Fb%2fc",
    "/a+b~c",
    "//two//slashes//",
    "/a/../b/./c/..",
    "/a;b;c=d,e",
    "/empty-query?",
    "/x?a=1&a=2&b=&c&&",
    "/x?q=%7E%2F+%20~&r=a/b?c",
    "/x?sig=a%2Bb%3D%3D&se=2025-01-01T00%3A00%3A00Z",
    "/%E2%82%AC/%e2%82%ac?n=%E2%82%ac",
    "/x?odd='!*()[]{}|^\"<>`$@:;,",
    "/x?percent=%&half=%4&no-hex=%zz",
    "/x?long=" + "a" * 8000,
]


# ------------------------------------------------------------------------------ requests


@pytest.mark.parametrize("target", EXACT_TARGETS, ids=lambda target: target[:24])
def test_target_byte_for_byte(engine: Engine, serve: Serve, target: str) -> None:
    """What stands after the host in a URL stands in the request line, byte for byte."""
    server = serve(answering(ok()))
    fetch(engine, server.origin + target)
    assert server.requests[0].split(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()


@pytest.mark.parametrize(
    ("after_host", "target"),
    [
        ("", "/"),
        ("?x=1", "/?x=1"),
        ("/a?b#fragment", "/a?b"),
        ("/é/音?ü=%C3%BC", "/%C3%A9/%E9%9F%B3?%C3%BC=%C3%BC"),
        ("/a b/c d?e=f g&h=%20+ ", "/a%20b/c%20d?e=f%20g&h=%20+"),
        ('/a{b}"<c>`^|%zz?q={b}|^`', "/a%7Bb%7D%22%3Cc%3E%60%5E|%zz?q={b}|^`"),
    ],
)
def test_target_that_cannot_go_out_as_it_is(
    engine: Engine, serve: Serve, after_host: str, target: str
) -> None:
    """A missing path becomes `/`, a fragment stays at home, and what is raw is escaped."""
    server = serve(answering(ok()))
    fetch(engine, server.origin + after_host)
    assert server.requests[0].split(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()


def test_request_headers(engine: Engine, serve: Serve) -> None:
    """A request asks for identity, names the program, and has no key, cookie or credentials."""
    server = serve(answering(ok()))
    fetch(engine, server.origin + "/x")
    sent = fields(server.requests[0])
    assert sent.pop("host") == f"127.0.0.1:{server.port}"
    assert sent.pop("accept-encoding") == "identity"
    assert sent.pop("user-agent").startswith("downloader/")
    assert set(sent) <= {"accept", "connection"}


def test_given_headers(engine: Engine, serve: Serve) -> None:
    """Headers that are given go out as given, once."""
    server = serve(answering(ok()))
    given = {"range": "bytes=1000-", "if-range": '"a-b/c"', "accept-encoding": "identity"}
    fetch(engine, server.origin + "/x", given)
    assert fields(server.requests[0]).items() >= given.items()


def test_cookies_are_not_kept(engine: Engine, serve: Serve) -> None:
    """What a storage wants remembered does not go out with the next request."""
    server = serve(answering(ok(set_cookie="session=1; Path=/")))
    for _ in range(2):
        fetch(engine, server.origin + "/x")
    assert "cookie" not in fields(server.requests[1])


def test_connection_is_reused(engine: Engine, serve: Serve) -> None:
    """Transfers one after another share a connection."""
    server = serve(answering(ok(BODY)))
    for _ in range(5):
        assert fetch(engine, server.origin + "/x").body == BODY
    assert (server.connections, len(server.requests)) == (1, 5)


def test_idle_connection_that_died(engine: Engine, serve: Serve) -> None:
    """A kept connection that the server has closed meanwhile costs nothing."""

    def one_answer(peer: Peer) -> None:
        peer.request()
        peer.send(ok(BODY))

    server = serve(one_answer)
    for _ in range(3):
        assert fetch(engine, server.origin + "/x").body == BODY
        assert server.closed.acquire(timeout=10)
    assert server.connections == 3


# ------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("status", [200, 201, 206, 304, 400, 403, 404, 416, 429, 500, 503, 599])
def test_status_and_headers(engine: Engine, serve: Serve, status: int) -> None:
    """`begin` gets the status as it came and the headers by their lower-case names."""
    body = b"" if status == 304 else b"body"
    answer = head(
        status,
        Content_Length=str(len(body)),
        ETag='"Tag"',
        X_Mixed_Case="Value, as it is",
        Content_Disposition='attachment; filename="../x"',
    )
    server = serve(answering(answer + body))
    found = fetch(engine, server.origin + "/x")
    assert (found.status, found.body) == (status, body)
    assert dict(found.headers) == {
        "content-length": str(len(body)),
        "etag": '"Tag"',
        "x-mixed-case": "Value, as it is",
        "content-disposition": 'attachment; filename="../x"',
    }


def test_repeated_header(engine: Engine, serve: Serve) -> None:
    """A header that comes twice reaches `begin` joined by a comma."""
    server = serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: 1\r\nx-a: 2\r\n\r\n"))
    assert fetch(engine, server.origin + "/x").headers["x-a"] == "1, 2"


def test_repeated_length(engine: Engine, serve: Serve) -> None:
    """A length that is told twice, and alike, is one length."""
    server = serve(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\ncontent-length: 4\r\n\r\nbody")
    )
    found = fetch(engine, server.origin + "/x")
    assert (found.headers["content-length"], found.body) == ("4", b"body")


def test_interim_answers(engine: Engine, serve: Serve) -> None:
    """Answers of the 100 class before the real one are passed over."""
    server = serve(answering(head(100) + head(103, link="</x>") + ok(BODY)))
    found = fetch(engine, server.origin + "/x")
    assert (found.status, found.body) == (200, BODY)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity", "nonsense"])
def test_no_decoding(engine: Engine, serve: Serve, encoding: str) -> None:
    """Bytes arrive as they were sent, whatever Content-Encoding says of them."""
    packed = gzip.compress(BODY)
    server = serve(answering(ok(packed, content_encoding=encoding)))
    found = fetch(engine, server.origin + "/x")
    assert found.body == packed
    assert found.headers["content-encoding"] == encoding


def test_chunked(engine: Engine, serve: Serve) -> None:
    """Chunks are put together, with extensions and trailers left out."""
    chunks = b"5;name=value\r\nhello\r\n" + b"%x\r\n%b\r\n" % (len(BODY), BODY)
    end = b"0\r\nx-trailer: 1\r\n\r\n"
    server = serve(answering(head(200, transfer_encoding="chunked") + chunks + end))
    for _ in range(2):
        assert fetch(engine, server.origin + "/x").body == b"hello" + BODY
    assert server.connections == 1


def test_body_ended_by_closing(engine: Engine, serve: Serve) -> None:
    """A body with neither length nor chunks ends where the connection does."""

    def close_after_body(peer: Peer) -> None:
        peer.request()
        peer.send(head(200), BODY)

    server = serve(close_after_body)
    found = fetch(engine, server.origin + "/x")
    assert found.body == BODY
    assert not {"content-length", "transfer-encoding"} & set(found.headers)


def test_empty_body(engine: Engine, serve: Serve) -> None:
    """An empty body begins and ends without a write."""
    server = serve(answering(ok()))
    found = fetch(engine, server.origin + "/x")
    assert (found.status, found.body) == (200, b"")


def test_body_in_small_pieces(engine: Engine, serve: Serve) -> None:
    """An answer may come byte by byte."""

    def dribble(peer: Peer) -> None:
        peer.request()
        for byte in ok(BODY[:300], etag='"x"'):
            peer.send(bytes([byte]))

    found = fetch(engine, serve(dribble).origin + "/x")
    assert found.body == BODY[:300]
    assert found.headers["etag"] == '"x"'


# --------------------------------------------------------------------------- what breaks


def sends(*data: bytes) -> Script:
    """Answer a request with these bytes, and close."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*data)

    return script


def resets(*data: bytes) -> Script:
    """Answer a request with these bytes, and reset the connection."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*data)
        peer.reset()

    return script


def echoes(peer: Peer) -> None:
    """Send the request back, as a server of another protocol may."""
    request = peer.request()
    assert request is not None
    peer.send(request, b"\r\n\r\n")


def echoes_in_header(peer: Peer) -> None:
    """Send the request line back in what is no header."""
    request = peer.request()
    assert request is not None
    peer.send(b"HTTP/1.1 200 OK\r\n" + request.split(b"\r\n")[0] + b"\r\n\r\n")


BREAKS: dict[str, Script] = {
    "cut body": sends(head(200, content_length="1000"), b"x" * 999),
    "cut before the body": sends(head(200, content_length="1000")),
    "cut chunk": sends(head(200, transfer_encoding="chunked"), b"100\r\nabc"),
    "cut between chunks": sends(head(200, transfer_encoding="chunked"), b"3\r\nabc\r\n"),
    "no last chunk's end": sends(head(200, transfer_encoding="chunked"), b"3\r\nabc\r\n0\r\n"),
    "bad chunk size": sends(head(200, transfer_encoding="chunked"), b"xyz\r\nabc\r\n"),
    "cut headers": sends(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "cut status line": sends(b"HTT"),
    "no answer": sends(),
    "reset at once": resets(),
    "reset in the headers": resets(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "reset in the body": resets(head(200, content_length="1000"), b"x" * 500),
    "reset in a body without a length": resets(head(200), b"x" * 500),
    "not HTTP": sends(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    "echo": echoes,
    "echo in a header": echoes_in_header,
    "headers without end": sends(
        b"HTTP/1.1 200 OK\r\n", *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 2000
    ),
    "contradicting lengths": sends(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello!!"
    ),
    "negative length": sends(head(200, content_length="-5")),
}


@pytest.mark.parametrize("script", BREAKS.values(), ids=BREAKS.keys())
def test_connection_breaks(engine: Engine, serve: Serve, script: Script) -> None:
    """An answer that breaks off, or is none, is a transient problem of the network."""
    problem = problem_of(engine, serve(script).origin + "/x")
    assert problem.kind is ProblemKind.TRANSIENT
    assert problem.error_code in ("network", "truncated")


@pytest.mark.parametrize("script", BREAKS.values(), ids=BREAKS.keys())
def test_next_transfer_after_a_break(engine: Engine, serve: Serve, script: Script) -> None:
    """An answer that broke off does not spoil the next transfer."""
    turns = iter([script])

    def once(peer: Peer) -> None:
        next(turns, answering(ok(BODY)))(peer)

    server = serve(once)
    problem_of(engine, server.origin + "/x")
    assert fetch(engine, server.origin + "/x").body == BODY


def test_bytes_before_the_break_arrive(engine: Engine, serve: Serve) -> None:
    """The sink has got what came before an answer broke off, so that it can be resumed."""
    server = serve(sends(head(200, content_length=str(len(BODY) + 1)), BODY))
    sink = Collected()
    with pytest.raises(Exception, match=r"\."):
        fetch_into(engine, server.origin + "/x", sink, Guard(60))
    assert sink.body == BODY


def test_connection_refused(engine: Engine) -> None:
    """A port that nobody listens on is the host's trouble, and the host is named."""
    port = unused_port()
    problem = problem_of(engine, f"http://127.0.0.1:{port}/x")
    assert f"The storage at 127.0.0.1:{port} cannot be reached" in problem.error_message
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")


def test_unknown_host(engine: Engine) -> None:
    """A name that cannot be looked up is the host's trouble."""
    problem = problem_of(engine, "http://storage.invalid/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")


@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "a..invalid", "-" * 70])
def test_host_that_is_none(engine: Engine, host: str) -> None:
    """A host that is no name is a problem of the transfer, not of the program."""
    problem = problem_of(engine, f"http://{host}/x")
    assert problem.kind in (ProblemKind.UNREACHABLE, ProblemKind.WRONG_OBJECT)


def test_handshake_that_never_comes(make_engine: MakeEngine, serve: Serve) -> None:
    """A server that takes a connection and says nothing is given up after the connect time-out."""
    engine = make_engine(Timing(connect_seconds=0.3, stall_seconds=60))
    server = serve(Peer.stall)
    problem = problem_of(engine, f"https://127.0.0.1:{server.port}/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")
    assert "0.3 seconds" in problem.error_message


def test_handshake_that_is_cut_off(engine: Engine, serve: Serve) -> None:
    """A connection that ends before TLS has come about is none: the host's trouble too."""
    server = serve(Peer.reset)
    problem = problem_of(engine, f"https://127.0.0.1:{server.port}/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")


# ------------------------------------------------------------------------- time and speed


def stalls(*data: bytes) -> Script:
    """Answer a request with these bytes, and nothing more."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*data)
        peer.stall()

    return script


@pytest.mark.parametrize(
    "script",
    [
        stalls(),
        stalls(b"HTTP/1.1 200 OK\r\nContent"),
        stalls(head(200, content_length="1000")),
        stalls(head(200, content_length="1000"), b"x" * 500),
        stalls(head(200, transfer_encoding="chunked"), b"3\r\nabc\r\n"),
        stalls(head(200), b"x" * 500),
    ],
    ids=["headers", "mid-headers", "body", "mid-body", "chunks", "no length"],
)
def test_stall(make_engine: MakeEngine, serve: Serve, script: Script) -> None:
    """A server that sends nothing for the stall time-out is given up, before or in the body."""
    server = serve(script)
    problem = problem_of(make_engine(Timing(stall_seconds=0.3)), server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "stalled")
    assert server.deserted.wait(10), "the connection was left open"


def drips(size: int, every: float) -> Script:
    """Answer with one byte of `size` every so many seconds."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length=str(size)))
        pace = threading.Event()
        for _ in range(size):
            peer.send(b"x")
            pace.wait(every)

    return script


def test_drip(make_engine: MakeEngine, serve: Serve) -> None:
    """A body that keeps coming, but below the floor speed, is given up in time."""
    timing = Timing(stall_seconds=5, floor_bytes_per_second=10_000, floor_after_seconds=0.2)
    server = serve(drips(10_000, 0.01))
    problem = problem_of(make_engine(timing), server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "too_slow")
    assert "10000 bytes a second" in problem.error_message


def test_slow_start(make_engine: MakeEngine, serve: Serve) -> None:
    """Speed is not looked at before its time: a small body may come slowly."""
    timing = Timing(floor_bytes_per_second=1_000_000, floor_after_seconds=30)
    server = serve(drips(20, 0.01))
    assert fetch(make_engine(timing), server.origin + "/x").body == b"x" * 20


def test_speed_is_a_mean(make_engine: MakeEngine, serve: Serve) -> None:
    """A transfer that was fast enough may pause: the mean counts."""
    timing = Timing(floor_bytes_per_second=1000, floor_after_seconds=0.1)

    def pauses(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length=str(len(BODY) + 20)), BODY)
        pace = threading.Event()
        for _ in range(20):
            peer.send(b"x")
            pace.wait(0.02)

    assert len(fetch(make_engine(timing), serve(pauses).origin + "/x").body) == len(BODY) + 20


# ---------------------------------------------------------------------------- redirects


def countdown(peer: Peer) -> None:
    """Redirect `/5` to `/4` and so on, and answer `/0`."""
    while (request := peer.request()) is not None:
        left = int(re.findall(rb"GET /(\d+)", request)[0])
        location = f"/{left - 1}{SIGNED}"
        peer.send(ok(BODY) if left == 0 else head(302, location=location, content_length="0"))


@pytest.mark.parametrize("hops", range(1, MAX_REDIRECTS + 1))
def test_redirects_are_followed(engine: Engine, serve: Serve, hops: int) -> None:
    """Up to five redirects lead to the body, which alone reaches the sink."""
    server = serve(countdown)
    found = fetch(engine, f"{server.origin}/{hops}")
    assert (found.status, found.body) == (200, BODY)
    assert len(server.requests) == hops + 1


@pytest.mark.parametrize("way", ["chain", "loop"])
def test_too_many_redirects(engine: Engine, serve: Serve, way: str) -> None:
    """The sixth redirect is not followed, be it a loop or not, and another URL is called for."""
    loop = answering(head(307, location="/x", content_length="0"))
    server = serve(countdown if way == "chain" else loop)
    problem = problem_of(engine, f"{server.origin}/6")
    assert (problem.kind, problem.error_code) == (ProblemKind.WRONG_OBJECT, "too_many_redirects")
    assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_another_origin(engine: Engine, serve: Serve, status: int) -> None:
    """Another origin is asked as the first was: same method, same headers, nothing added."""
    there = serve(answering(ok(BODY)))
    here = serve(answering(head(status, location=f"{there.origin}/y?z=%7E", content_length="0")))
    given = {"range": "bytes=5-", "if-range": '"tag"', "accept-encoding": "identity"}
    assert fetch(engine, here.origin + "/x", given).body == BODY
    assert there.requests[0].startswith(b"GET /y?z=%7E HTTP/1.1\r\n")
    first, second = fields(here.requests[0]), fields(there.requests[0])
    assert first.pop("host") != second.pop("host")
    assert first == second
    assert second.items() >= given.items()


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b?c=%2F%7e+", "/b?c=%2F%7e+"),
        ("/a//b/../c;d?", "/a//b/../c;d?"),
        ("next?c=1", "/dir/next?c=1"),
        ("../up", "/up"),
        ("?only=query", "/dir/x?only=query"),
        ("//127.0.0.1:{port}/same-scheme", "/same-scheme"),
        ("http://127.0.0.1:{port}/a//b/../%7e;?", "/a//b/../%7e;?"),
        ("HTTP://127.0.0.1:{port}", "/"),
        ("/é", "/%C3%A9"),
        ("/a#fragment", "/a"),
    ],
)
def test_forms_of_location(engine: Engine, serve: Serve, location: str, target: str) -> None:
    """A Location may be relative; where it has a whole path it goes out byte for byte."""

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            place = location.format(port=server.port).encode()
            redirect = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % place
            peer.send(redirect if b"/dir/x?y " in request else ok(BODY))

    server = serve(script)
    assert fetch(engine, server.origin + "/dir/x?y").body == BODY
    assert server.requests[1].split(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:audio/wav;base64,AAAA",
        "javascript:alert(1)",
        "mailto:somebody",
        "http://[::1",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:port/x",
        "http:///no-host",
        "https://",
    ],
)
def test_redirect_that_is_not_followed(engine: Engine, serve: Serve, location: str) -> None:
    """Only http and https are followed, to a host; anything else calls for another URL."""
    server = serve(answering(head(302, location=location + SIGNED, content_length="0")))
    problem = problem_of(engine, server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.WRONG_OBJECT, "unusable_redirect")
    assert len(server.requests) == 1


def test_redirect_to_an_impossible_host(engine: Engine, serve: Serve) -> None:
    """A redirect to what is no host name is a problem of the transfer, not of the program."""
    location = "http://" + "a" * 64 + ".invalid/"
    server = serve(answering(head(302, location=location, content_length="0")))
    assert problem_of(engine, server.origin + "/x").kind is not ProblemKind.EXPIRED


@pytest.mark.parametrize("status", [300, 302, 304, 305])
def test_redirect_without_a_place(engine: Engine, serve: Serve, status: int) -> None:
    """An answer of the 300 class that leads nowhere reaches the sink like any other."""
    answer = head(status, content_length="0") if status != 304 else head(304)
    found = fetch(engine, serve(answering(answer)).origin + "/x")
    assert found.status == status


def test_redirect_with_a_body(engine: Engine, serve: Serve) -> None:
    """The body of a redirect, however long, is not waited for."""
    there = serve(answering(ok(BODY)))

    def endless(peer: Peer) -> None:
        peer.request()
        peer.send(head(302, location=there.origin + "/y", content_length="1000000"), b"<html>")
        peer.stall()

    here = serve(endless)
    assert fetch(engine, here.origin + "/x").body == BODY
    assert here.deserted.wait(10)


# -------------------------------------------------------------------------------- sinks


def test_sink_that_has_enough(engine: Engine, serve: Serve) -> None:
    """A sink that wants no more ends the transfer early, and the next one is not disturbed."""
    endless = head(200, content_length=str(10**9)) + BODY

    def script(peer: Peer) -> None:
        request = peer.request()
        if request is not None and request.startswith(b"GET /endless"):
            peer.send(endless)
            peer.stall()
        else:
            peer.send(ok(b"next"))

    server = serve(script)
    found = fetch(engine, server.origin + "/endless", wanted=1000)
    assert found.body == BODY[: len(found.body)]
    assert 1000 <= len(found.body) <= len(BODY)
    assert server.deserted.wait(10), "the connection was left open"
    assert fetch(engine, server.origin + "/x").body == b"next"


class Broken(Exception):  # noqa: N818 - stands for any exception
    """What a sink raises."""


@pytest.mark.parametrize("where", ["begin", "write"])
@pytest.mark.parametrize("error", [Broken("x"), ValueError("x"), OSError("x"), UnicodeError("x")])
def test_sink_that_raises(engine: Engine, serve: Serve, where: str, error: Exception) -> None:
    """What a sink raises ends the transfer and comes out as it is; the next one goes well."""

    class Raising(Collected):
        def begin(self, status: int, headers: Mapping[str, str]) -> None:
            super().begin(status, headers)
            if where == "begin":
                raise error

        def write(self, chunk: bytes) -> bool:
            del chunk
            raise error

    server = serve(answering(ok(BODY)))
    with pytest.raises(type(error)) as raised:
        fetch_into(engine, server.origin + "/x", Raising(), Guard(60))
    assert raised.value is error
    assert fetch(engine, server.origin + "/x").body == BODY


def test_redirect_to_where_nobody_is(engine: Engine, serve: Serve) -> None:
    """A redirect to a host that is not there is the run's problem: its own storage was reached."""
    location = f"http://127.0.0.1:{unused_port()}/x".encode()
    head = b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    server = serve(answering(head))
    problem = problem_of(engine, server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "network")
