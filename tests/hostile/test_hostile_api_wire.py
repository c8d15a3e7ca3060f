from __future__ import annotations

import gzip
import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hostile.hostile_values import MB, PEAK, run_python, wire_answers
from hypothesis import given
from transfer.wire import Peer, RawServer, answering, head, ok

from downloader.camb.client import ApiClient
from downloader.rules.answers import Answered, Finished, RetryLater
from downloader.rules.batching import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from transfer.wire import Script

    Serve = Callable[[Script], RawServer]
    MakeClient = Callable[..., ApiClient]

TWO = Batch("text-to-sound", (1, 2))
ONE = Batch("text-to-sound", (1,))
GOOD = json.dumps({"1": {"output_url": "http://h/a"}}).encode()


class Changing:
    """A server's script whose answer is changed between requests."""

    def __init__(self) -> None:
        self.answer = b""

    def __call__(self, peer: Peer) -> None:
        """Answer one request, and close."""
        if peer.request() is not None:
            peer.send(self.answer)


def test_any_bytes_are_judged() -> None:
    """Whatever comes over the wire is judged, and soon; a URL is only ever one that was sent."""
    script = Changing()
    with RawServer(script) as server:
        client = ApiClient(server.origin, "test-key-0123456789", answer_seconds=5)

        @given(answer=wire_answers)
        def ask(answer: bytes) -> None:
            script.answer = answer
            for batch in (ONE, TWO):
                judgement = client.ask(batch).judgement
                if isinstance(judgement, Answered):
                    assert not any(
                        isinstance(verdict, Finished) for verdict in judgement.verdicts.values()
                    )
                else:
                    assert judgement.message

        ask()
        client.close()


def repeated(data: bytes, *, pause: float = 0.0, first: bytes = b"") -> Script:
    """Answer with the same bytes again and again, until the client goes."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(first)
        pace = threading.Event()
        while True:
            peer.send(data)
            if pause:
                pace.wait(pause)

    return script


ENDLESS: dict[str, Script] = {
    "interim answers": repeated(head(100)),
    "interim answers, slowly": repeated(head(103), pause=0.05),
    "headers": repeated(b"X-A: b\r\n", first=b"HTTP/1.1 200 OK\r\n"),
    "headers, slowly": repeated(b"X", pause=0.05, first=b"HTTP/1.1 200 OK\r\nX-A: "),
    "a status line": repeated(b"H", pause=0.05),
    "a body, slowly": repeated(b" ", pause=0.05, first=head(200)),
    "chunks, slowly": repeated(
        b"1\r\n \r\n", pause=0.05, first=head(200, transfer_encoding="chunked")
    ),
    "a chunk's extension": repeated(
        b"x", pause=0.05, first=head(200, transfer_encoding="chunked") + b"1;"
    ),
    "a trailer": repeated(
        b"x", pause=0.05, first=head(200, transfer_encoding="chunked") + b"0\r\nX: "
    ),
}


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS.keys())
def test_answers_without_end(serve: Serve, make_client: MakeClient, script: Script) -> None:
    """An answer that keeps coming and never ends is given up when its time is over."""
    client = make_client(serve(script).origin, answer_seconds=0.6)
    begun = time.monotonic()
    judgement = client.ask(TWO).judgement
    assert isinstance(judgement, RetryLater)
    assert time.monotonic() - begun < 5


def test_patience_is_for_one_answer(serve: Serve, make_client: MakeClient) -> None:
    """The time of one answer is not that of the next on the same connection."""
    server = serve(answering(ok(GOOD)))
    client = make_client(server.origin, answer_seconds=0.5)
    pause = threading.Event()
    for _ in range(3):
        assert isinstance(client.ask(TWO).judgement, Answered)
        pause.wait(0.3)
    assert server.connections == 1


def with_headers(*lines: bytes) -> bytes:
    """Return a good answer with these lines among its headers."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Content-Length: %d" % len(GOOD), b"", GOOD])


HEAVY_HEADERS = {
    "10,000 headers": [b"X-%d: y" % number for number in range(10_000)],
    "a line of 1 MB": [b"X: " + b"y" * MB],
    "a name of 1 MB": [b"X" * MB + b": y"],
    "10,000 of one name": [b"X: y"] * 10_000,
    "10,000 cookies": [b"Set-Cookie: a%d=b; Path=/" % number for number in range(10_000)],
    "one long cookie": [b"Set-Cookie: a=" + b"b; " * 30_000],
}


@pytest.mark.parametrize("lines", HEAVY_HEADERS.values(), ids=HEAVY_HEADERS.keys())
def test_heavy_headers(serve: Serve, make_client: MakeClient, lines: list[bytes]) -> None:
    """More header than any server needs is no answer, and takes neither time nor memory."""
    begun = time.process_time()
    judgement = make_client(serve(answering(with_headers(*lines))).origin).ask(TWO).judgement
    if isinstance(judgement, RetryLater):
        assert judgement.error_code == "api_unreachable"
    else:
        assert isinstance(judgement, Answered)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "cookie",
    [
        b"a=b; expires=Fri, 99 Foo 99999 99:99:99 GMT",
        b"a=b; Max-Age=1e400",
        b'a=b; version=x; domain=.; path=//; port="',
        b"=;=;;=\xff",
        b"a=b; expires=Thu, 01 Jan 9999999999 00:00:00 GMT",
    ],
)
def test_odd_cookies(serve: Serve, make_client: MakeClient, cookie: bytes) -> None:
    """What an answer wants remembered is neither read nor sent back."""
    server = serve(answering(with_headers(b"Set-Cookie: " + cookie)))
    client = make_client(server.origin)
    for _ in range(2):
        assert isinstance(client.ask(TWO).judgement, Answered)
    assert not any(b"\r\nCookie:" in request.title() for request in server.requests)


@pytest.mark.parametrize("status", ["099", "100", "101", "199", "204", "205", "304", "999", "0"])
def test_odd_statuses(serve: Serve, make_client: MakeClient, status: str) -> None:
    """A status that no answer to this question has is tried again later, and blames nobody."""
    answer = ok(GOOD).replace(b" 200 ", f" {status} ".encode(), 1)

    def once(peer: Peer) -> None:
        peer.request()
        peer.send(answer)

    judgement = make_client(serve(once).origin, answer_seconds=5).ask(TWO).judgement
    if status == "205":  # a body it may not have, and has
        assert isinstance(judgement, Answered)
    else:
        assert isinstance(judgement, RetryLater)


BOMB = gzip.compress(b" " * 50 * MB + GOOD)
LARGE: dict[str, Script] = {
    "50 MB": answering(ok(b" " * 50 * MB)),
    "gzip bomb": answering(ok(BOMB, content_encoding="gzip")),
    "gzip bomb, chunked": answering(
        head(200, content_encoding="gzip", transfer_encoding="gzip, chunked")
        + b"%x\r\n" % len(BOMB)
        + BOMB
        + b"\r\n0\r\n\r\n"
    ),
    "many lists": answering(ok(b"[" + b"[]," * 330_000 + b"[]]")),
    "many objects": answering(ok(b"[" + b"{}," * 330_000 + b"{}]")),
    "many keys": answering(ok(b"{" + b",".join(b'"%d":{}' % n for n in range(90_000)) + b"}")),
    "brackets": answering(ok(b"[" * MB)),
    "endless": repeated(b" " * 65536, first=head(200)),
}

ASK = f"""{PEAK}
import json, sys
from downloader.camb.client import ApiClient
from downloader.rules.batching import Batch

client = ApiClient(sys.argv[1], "test-key-0123456789")
before = peak()
for _ in range(3):
    judged = client.ask(Batch("tts", (1, 2))).judgement
print(json.dumps([type(judged).__name__, peak() - before]))
"""


@pytest.mark.parametrize("name", LARGE)
def test_memory_of_large_answers(serve: Serve, name: str) -> None:
    """An answer of any size, packed or not, takes some megabytes and no more."""
    judged, grown = json.loads(run_python(ASK, serve(LARGE[name]).origin))
    assert judged == ("Answered" if name == "many keys" else "RetryLater")
    assert grown < 60 * MB
