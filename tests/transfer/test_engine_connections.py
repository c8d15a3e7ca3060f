"""What every engine does alike with connections: kept ones, dead addresses, waits cut off."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest
import trustme
from harness import wait_until
from transfer.engines import problem_of
from transfer.wire import (
    Collected,
    Peer,
    Script,
    answering,
    fetch,
    fetch_into,
    head,
    ok,
    unused_port,
)

from downloader.rules.decisions import ProblemKind
from downloader.transfer import curl_session
from downloader.transfer.curl_library import pycurl
from downloader.transfer.engine import Timing
from downloader.transfer.guard import Guard, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transfer.engines import MakeEngine, Serve

    from downloader.transfer.engine import Engine
    from downloader.trust import Authorities

SOON_SECONDS = 10
HEARD_SECONDS = 1.0
"""Far less than any time-out of these engines, far more than the tenth of a second promised."""

BODY = bytes(range(256)) * 100
PATIENT = Timing(connect_seconds=120, stall_seconds=120)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make an authority that no machine knows."""
    return trustme.CA()


@pytest.fixture(params=["plain", "tls"])
def tls(
    request: pytest.FixtureRequest,
    authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> ssl.SSLContext | None:
    """Serve in both ways."""
    if request.param == "plain":
        return None
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


# ------------------------------------------------------------------------ answers too many


def named(answer: Callable[[bytes], bytes], surplus: Callable[[bytes], list[bytes]]) -> Script:
    """Answer each request by its own name, and after the first of a connection say more."""

    def script(peer: Peer) -> None:
        more: Callable[[bytes], list[bytes]] = surplus
        while (request := peer.request()) is not None:
            name = request.split()[1]
            first, *others = more(answer(name))
            peer.send(first)
            for other in others:
                peer.send(other)
            more = lambda whole: [whole]  # noqa: E731 - once

    return script


def chunked(name: bytes) -> bytes:
    """Answer in chunks, of which some hold empty lines."""
    body = name * 1000 + b"\n\r\n\n\n"
    chunks = b"%x\r\n%b\r\n" % (len(body), body) + b"2\r\n\r\n\r\n"
    return head(200, transfer_encoding="chunked") + chunks + b"0\r\nx-trailer: 1\r\n\r\n"


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "length": lambda name: ok(name * 1000),
    "chunked": chunked,
    "empty": lambda name: ok(x_name=name.decode()),
    "304": lambda name: head(304, etag=f'"{name.decode()}"'),
}
SURPLUS: dict[str, Callable[[bytes], list[bytes]]] = {
    "twice at once": lambda whole: [whole * 2],
    "twice": lambda whole: [whole, whole],
    "a third": lambda whole: [whole, whole, whole],
    "half of one": lambda whole: [whole + whole[: len(whole) // 2]],
    "an empty line": lambda whole: [whole + b"\r\n"],
    "a byte": lambda whole: [whole + b"x"],
    "a request to go away": lambda whole: [whole, head(408, connection="close")],
}


@pytest.mark.parametrize("more", SURPLUS.values(), ids=SURPLUS.keys())
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_answer_too_many(
    engine: Engine,
    serve: Serve,
    answer: Callable[[bytes], bytes],
    more: Callable[[bytes], list[bytes]],
) -> None:
    """What a server says beyond an answer is never taken for the answer to the next request."""
    first_answer_alone(engine, serve, None, answer, more)


@pytest.mark.parametrize("tls", ["tls"], indirect=True)
@pytest.mark.parametrize("more", list(SURPLUS)[:4])
@pytest.mark.parametrize("answer", ["length", "chunked"])
def test_answer_too_many_over_tls(
    tls: ssl.SSLContext, make_engine: MakeEngine, serve: Serve, answer: str, more: str
) -> None:
    """Nor is it where TLS has read it ahead: files of 2 KB are told apart, if not empty answers."""
    first_answer_alone(make_engine(), serve, tls, ANSWERS[answer], SURPLUS[more])


def first_answer_alone(
    engine: Engine,
    serve: Serve,
    tls: ssl.SSLContext | None,
    answer: Callable[[bytes], bytes],
    more: Callable[[bytes], list[bytes]],
) -> None:
    """Fetch from a server that says more than one answer, and then something else."""
    server = serve(named(answer, more), tls=tls)
    alone = serve(answering(answer(b"/b")), tls=tls)
    expected = fetch(engine, alone.origin + "/b")
    fetch(engine, server.origin + "/a")
    found = fetch(engine, server.origin + "/b")
    assert (found.status, found.headers, found.body) == (
        expected.status,
        expected.headers,
        expected.body,
    )


def test_whole_answers_keep_their_connection(
    make_engine: MakeEngine, serve: Serve, tls: ssl.SSLContext | None
) -> None:
    """Where nothing is left over a connection serves one request after another."""
    engine = make_engine()
    answers = [answer(b"/x") for answer in ANSWERS.values()]
    server = serve(answering(*answers * 3), tls=tls)
    for _ in answers * 3:
        fetch(engine, server.origin + "/x")
    assert (server.connections, len(server.requests)) == (1, 3 * len(answers))


@pytest.mark.parametrize("way", ["closed", "reset"])
def test_kept_connection_that_ends_as_it_is_used(
    make_engine: MakeEngine, serve: Serve, tls: ssl.SSLContext | None, way: str
) -> None:
    """A kept connection that ends without a byte of an answer is replaced, at no attempt's cost."""
    engine = make_engine()

    def one_answer(peer: Peer) -> None:
        peer.request()
        peer.send(ok(BODY))
        peer.request()  # and none to this one
        if way == "reset":
            peer.reset()

    server = serve(one_answer, tls=tls)
    for _ in range(3):
        assert fetch(engine, server.origin + "/x").body == BODY
    assert server.connections == 3


def test_new_connection_that_ends_is_no_stale_one(engine: Engine, serve: Serve) -> None:
    """A server that closes every connection without an answer is asked once, and told of."""

    def silent(peer: Peer) -> None:
        peer.request()

    server = serve(silent)
    assert problem_of(engine, server.origin + "/x").error_code == "network"
    assert server.connections == 1


# --------------------------------------------------------------------------- dead addresses


@contextlib.contextmanager
def silent_place(address: str, port: int) -> Iterator[None]:
    """Occupy an address of this machine at which nothing answers, as behind a bad firewall."""
    with contextlib.ExitStack() as stack:
        # Nobody takes its connections, and its queue is full.
        listening = stack.enter_context(socket.socket())
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.settimeout(0)
            one.connect_ex((address, port))
        yield


def lead(monkeypatch: pytest.MonkeyPatch, name: str, port: int, addresses: list[str]) -> None:
    """Have a name lead to addresses, in this order, for every engine."""
    real = socket.getaddrinfo

    def found(host: str, port: int, *, type: int, flags: int = 0) -> list[object]:  # noqa: A002
        if host != name:
            return [*real(host, port, type=type, flags=flags)]
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        return [one for address in addresses for one in real(address, port, type=type)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    session_init = curl_session.Session.__init__

    def with_names(self: curl_session.Session, timing: Timing, authorities: Authorities) -> None:
        session_init(self, timing, authorities)
        bracketed = [f"[{one}]" if ":" in one else one for one in addresses]
        self._easy.setopt(pycurl.RESOLVE, [f"{name}:{port}:{','.join(bracketed)}"])

    monkeypatch.setattr(curl_session.Session, "__init__", with_names)


@pytest.mark.parametrize("dead", [1, 3])
def test_dead_addresses(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch, dead: int
) -> None:
    """Addresses at which nothing answers cost a fraction of a second each, not the time-out."""
    server = serve(answering(ok(BODY)))
    dead_ones = [f"127.0.0.{number}" for number in range(2, 2 + dead)]
    lead(monkeypatch, "storage.test", server.port, [*dead_ones, "127.0.0.1"])
    engine = make_engine(Timing(connect_seconds=30))
    with contextlib.ExitStack() as stack:
        for address in dead_ones:
            stack.enter_context(silent_place(address, server.port))
        begun = time.monotonic()
        assert fetch(engine, f"http://storage.test:{server.port}/x").body == BODY
        assert time.monotonic() - begun < dead * 1.0


def test_first_address_refuses(
    engine: Engine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that refuses is passed over, be it of IPv6, which few servers here listen on."""
    server = serve(answering(ok(BODY)))
    lead(monkeypatch, "storage.test", server.port, ["::1", "127.0.0.2", "127.0.0.1"])
    assert fetch(engine, f"http://storage.test:{server.port}/x").body == BODY


def test_no_address_answers(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to connect is for all addresses together."""
    port = unused_port()
    places = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    lead(monkeypatch, "storage.test", port, places)
    engine = make_engine(Timing(connect_seconds=0.7))
    with contextlib.ExitStack() as stack:
        for address in places:
            stack.enter_context(silent_place(address, port))
        begun = time.monotonic()
        problem = problem_of(engine, f"http://storage.test:{port}/x")
        assert time.monotonic() - begun < 2 * 0.7 + HEARD_SECONDS
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")
    assert "0.7 seconds" in problem.error_message


# -------------------------------------------------------------------------------- cancelling


def interrupted(engine: Engine, url: str, reached: Callable[[], bool]) -> None:
    """Fetch a URL, and tell the transfer to stop once it has got so far; it must, at once."""
    guard = Guard(600)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(fetch_into, engine, url, Collected(), guard)
        wait_until(reached)
        told = time.monotonic()
        guard.cancel()
        with pytest.raises(Interrupted):
            outcome.result(SOON_SECONDS)
        assert time.monotonic() - told < HEARD_SECONDS


# libcurl asks the system itself: see `Session.stuck`
@pytest.mark.parametrize("make_engine", ["httpx"], indirect=True)
def test_cancel_while_looking_a_name_up(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transfer that waits for a name server stops at once when it is told to."""
    asked, answer = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, port: int, *, type: int, flags: int = 0) -> list[object]:  # noqa: A002
        if host != "storage.invalid" or flags & socket.AI_NUMERICHOST:
            return [*real(host, port, type=type, flags=flags)]
        asked.set()
        answer.wait(60)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    engine = make_engine(PATIENT)
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        interrupted(engine, "http://storage.invalid/x", asked.is_set)
    finally:
        answer.set()


def test_cancel_while_connecting(make_engine: MakeEngine) -> None:
    """A transfer that waits for a connection stops at once when it is told to."""
    port = unused_port()
    with silent_place("127.0.0.2", port):

        def connecting() -> bool:
            return any(
                one.status == psutil.CONN_SYN_SENT and one.raddr == ("127.0.0.2", port)
                for one in psutil.Process().net_connections()
                if one.laddr not in before
            )

        before = {one.laddr for one in psutil.Process().net_connections()}
        interrupted(make_engine(PATIENT), f"http://127.0.0.2:{port}/x", connecting)


def test_cancel_in_the_handshake(make_engine: MakeEngine, serve: Serve) -> None:
    """A transfer that waits for a TLS handshake stops at once when it is told to."""
    server = serve(Peer.stall)
    url = f"https://127.0.0.1:{server.port}/x"
    interrupted(make_engine(PATIENT), url, lambda: server.connections == 1)
    assert server.deserted.wait(SOON_SECONDS), "the connection was left open"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent"])
def test_cancel_before_the_headers(make_engine: MakeEngine, serve: Serve, said: bytes) -> None:
    """A transfer that waits for an answer, or for the rest of its head, stops at once."""

    def silent(peer: Peer) -> None:
        peer.request()
        peer.send(said)
        peer.stall()

    server = serve(silent)
    interrupted(make_engine(PATIENT), server.origin + "/x", lambda: len(server.requests) == 1)
    assert server.deserted.wait(SOON_SECONDS), "the connection was left open"


def test_cancel_in_a_tunnel(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transfer that waits for a proxy to open a tunnel stops at once."""

    def silent(peer: Peer) -> None:
        peer.request()
        peer.stall()

    proxy = serve(silent)
    monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
    interrupted(make_engine(PATIENT), "https://storage.invalid/x", lambda: len(proxy.requests) == 1)


def test_lease_that_ends_before_an_answer(make_engine: MakeEngine, serve: Serve) -> None:
    """A lease that ends while there is no answer yet ends the transfer, not the stall after it."""

    def silent(peer: Peer) -> None:
        peer.request()
        peer.stall()

    engine = make_engine(Timing(stall_seconds=0.5))
    with pytest.raises(Interrupted):
        fetch(engine, serve(silent).origin + "/x", guard=Guard(0.2))
