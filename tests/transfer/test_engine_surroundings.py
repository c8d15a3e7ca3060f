"""What every engine takes from its surroundings alike: certificates and proxies."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trustme
from transfer.engines import SECRET, SIGNED, problem_of
from transfer.wire import Collected, Peer, answering, fetch, fields, head, ok, unused_port

from downloader.rules.decisions import ProblemKind
from downloader.transfer.engine import Timing
from downloader.transfer.guard import Guard, Interrupted

if TYPE_CHECKING:
    from pathlib import Path

    from transfer.engines import MakeEngine, Serve

BODY = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make an authority that no machine knows."""
    return trustme.CA()


def identity(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """Return the TLS settings of a server with these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have SSL_CERT_FILE name the authority."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.mark.usefixtures("trusted")
def test_tls(make_engine: MakeEngine, serve: Serve, authority: trustme.CA) -> None:
    """An authority that SSL_CERT_FILE names is trusted, and the target goes out as it is."""
    server = serve(answering(ok(BODY)), tls=identity(authority, "127.0.0.1"))
    engine = make_engine()
    for _ in range(2):
        assert fetch(engine, server.origin + "/a%7E//../b?c=%2f").body == BODY
    assert server.requests[0].startswith(b"GET /a%7E//../b?c=%2f HTTP/1.1\r\n")
    assert server.connections == 1


def test_untrusted_certificate(
    make_engine: MakeEngine, serve: Serve, authority: trustme.CA
) -> None:
    """An authority that nobody vouches for is a transient problem, and its words say which."""
    server = serve(answering(ok(BODY)), tls=identity(authority, "127.0.0.1"))
    problem = problem_of(make_engine(), server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "network")
    assert "certificate" in problem.error_message
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
def test_certificate_of_another_host(
    make_engine: MakeEngine, serve: Serve, authority: trustme.CA
) -> None:
    """A trusted certificate for another name is refused before anything is asked."""
    server = serve(answering(ok(BODY)), tls=identity(authority, "elsewhere.example"))
    problem = problem_of(make_engine(), server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "network")
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
def test_tls_cut(make_engine: MakeEngine, serve: Serve, authority: trustme.CA) -> None:
    """A body that breaks off under TLS is a transient problem, even without a length."""

    def cut(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length="1000"), b"x" * 500)
        peer.reset()

    server = serve(cut, tls=identity(authority, "127.0.0.1"))
    problem = problem_of(make_engine(), server.origin + "/x")
    assert problem.kind is ProblemKind.TRANSIENT
    assert problem.error_code in ("network", "truncated")


def test_no_tls_there(make_engine: MakeEngine, serve: Serve) -> None:
    """A server that speaks no TLS is a transient problem."""

    def plain(peer: Peer) -> None:
        peer.send(ok(BODY))

    server = serve(plain)
    problem = problem_of(make_engine(), f"https://127.0.0.1:{server.port}/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "network")


@pytest.mark.usefixtures("trusted")
def test_redirect_to_https(make_engine: MakeEngine, serve: Serve, authority: trustme.CA) -> None:
    """A redirect may lead from http to https."""
    there = serve(answering(ok(BODY)), tls=identity(authority, "127.0.0.1"))
    here = serve(answering(head(302, location=there.origin + "/y", content_length="0")))
    assert fetch(make_engine(), here.origin + "/x").body == BODY


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "through a proxy"])
def test_cancel_over_tls(
    make_engine: MakeEngine,
    serve: Serve,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    *,
    proxied: bool,
) -> None:
    """A transfer that waits for bytes over TLS stops at once when it is told to."""

    def stalls(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length="1000"), b"x" * 500)
        peer.stall()

    server = serve(stalls, tls=identity(authority, "127.0.0.1"))

    def tunnel(peer: Peer) -> None:
        peer.request()
        peer.send(head(200))
        peer.tunnel(server.port)

    if proxied:
        monkeypatch.setenv("HTTPS_PROXY", serve(tunnel).origin)
    engine = make_engine(Timing(stall_seconds=120))
    guard, sink = Guard(600), Collected()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(engine.fetch, server.origin + "/x", {}, sink, guard)
        assert sink.arrived.wait(10)
        guard.cancel()
        with pytest.raises(Interrupted):
            outcome.result(10)
    assert server.deserted.wait(10), "the connection was left open"


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
def test_http_proxy(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """HTTP_PROXY is asked for the whole address, byte for byte, and for http alone."""
    proxy = serve(answering(ok(BODY)))
    monkeypatch.setenv(variable, proxy.origin)
    target = "/a%7Eb//c/../d;e?x=%2f+&y="
    given = {"range": "bytes=5-", "accept-encoding": "identity"}
    assert fetch(make_engine(), "http://storage.invalid" + target, given).body == BODY
    line, *_ = proxy.requests[0].split(b"\r\n")
    assert line == f"GET http://storage.invalid{target} HTTP/1.1".encode()
    sent = fields(proxy.requests[0])
    assert sent["host"] == "storage.invalid"
    assert sent.items() >= given.items()
    assert "x-api-key" not in sent


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_https_proxy(
    make_engine: MakeEngine,
    serve: Serve,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """HTTPS_PROXY is asked for a tunnel and is told the host, and nothing else of the URL."""
    server = serve(answering(ok(BODY)), tls=identity(authority, "storage.invalid"))

    def tunnel(peer: Peer) -> None:
        peer.request()
        peer.send(head(200))
        peer.tunnel(server.port)

    proxy = serve(tunnel)
    monkeypatch.setenv(variable, proxy.origin)
    target = "/a%7Eb//c/../d?x=%2f" + SIGNED.replace("?", "&")
    given = {"range": "bytes=5-", "accept-encoding": "identity"}
    assert fetch(make_engine(), "https://storage.invalid" + target, given).body == BODY
    assert server.requests[0].startswith(f"GET {target} HTTP/1.1\r\n".encode())
    assert fields(server.requests[0]).items() >= given.items()
    assert proxy.requests[0].startswith(b"CONNECT storage.invalid:443 HTTP/1.1\r\n")
    assert SECRET.encode() not in proxy.requests[0]
    assert "range" not in fields(proxy.requests[0])


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("value", ["127.0.0.1", "elsewhere.example,127.0.0.1", "*"])
def test_no_proxy(
    make_engine: MakeEngine,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    """Hosts that NO_PROXY names are asked directly."""
    proxy, server = serve(answering(ok(b"proxy"))), serve(answering(ok(BODY)))
    monkeypatch.setenv("http_proxy", proxy.origin)
    monkeypatch.setenv(variable, value)
    assert fetch(make_engine(), server.origin + "/x").body == BODY
    assert proxy.requests == []


def test_proxy_that_refuses(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that lets nobody through is a transient problem of the network."""
    proxy = serve(answering(head(407, content_length="0")))
    monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
    problem = problem_of(make_engine(), "https://storage.invalid/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "network")


def test_proxy_that_is_not_there(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cannot be reached is a transient problem, and its password is not shown."""
    monkeypatch.setenv("http_proxy", f"http://user:pass-word@127.0.0.1:{unused_port()}")
    problem = problem_of(make_engine(), "http://storage.invalid/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "network")
    assert "pass-word" not in problem.error_message
