"""What every engine takes from its surroundings alike: certificates and proxies."""

from __future__ import annotations

import base64
import hashlib
import ssl
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from transfer.engines import SECRET, SIGNED, problem_of
from transfer.test_engine_conformance import EXACT_TARGETS
from transfer.wire import Collected, Peer, answering, fetch, fields, head, ok, unused_port

from downloader.errors import ConfigurationError
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


def test_folder_of_authorities(
    make_engine: MakeEngine,
    serve: Serve,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An authority in the folder that SSL_CERT_DIR names is trusted."""
    # As `openssl rehash` names it.
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / f"{_subject_hash(authority.cert_pem.bytes())}.0").symlink_to("ca.pem")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    server = serve(answering(ok(BODY)), tls=identity(authority, "127.0.0.1"))
    assert fetch(make_engine(), server.origin + "/x").body == BODY


def _subject_hash(pem: bytes) -> str:
    """Return what OpenSSL calls a certificate in a folder of them: a digest of whose it is."""
    folded = x509.Name(
        x509.NameAttribute(part.oid, " ".join(str(part.value).lower().split()))
        for part in x509.load_pem_x509_certificate(pem).subject
    ).public_bytes()
    inner = folded[2 if folded[1] < 128 else 3 :]  # without the tag and length of the whole
    return f"{int.from_bytes(hashlib.sha1(inner).digest()[:4], 'little'):08x}"  # noqa: S324 - OpenSSL's choice


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
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")


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
    """A proxy that lets nobody through keeps us from the storage: that is not the run's fault."""
    proxy = serve(answering(head(407, content_length="0")))
    monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
    problem = problem_of(make_engine(), "https://storage.invalid/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")


def test_proxy_that_is_not_there(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy that is not there nothing can be reached, and its password is not shown."""
    monkeypatch.setenv("http_proxy", f"http://user:pass-word@127.0.0.1:{unused_port()}")
    problem = problem_of(make_engine(), "http://storage.invalid/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")
    assert "pass-word" not in problem.error_message


# ------------------------------------------------------------------ what differs by the client


@pytest.mark.parametrize("target", EXACT_TARGETS, ids=lambda target: target[:24])
def test_target_through_a_proxy(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """A proxy is asked for the address byte for byte, whatever its path and query are."""
    proxy = serve(answering(ok(BODY)))
    monkeypatch.setenv("HTTP_PROXY", proxy.origin)
    fetch(make_engine(), "http://storage.invalid:8080" + target)
    line = proxy.requests[0].split(b"\r\n")[0]
    assert line == f"GET http://storage.invalid:8080{target} HTTP/1.1".encode()


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("HTTP://Storage.INVALID/X", "http://storage.invalid/X"),
        (
            "http://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.invalid/x",
            "http://xn--bcher-kva.invalid/x",
        ),
        ("http://storage.invalid", "http://storage.invalid/"),
        ("http://storage.invalid?x=1", "http://storage.invalid/?x=1"),
    ],
)
def test_host_through_a_proxy(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch, url: str, asked: str
) -> None:
    """Scheme and host go out in lower case and ASCII, and the rest is left alone."""
    proxy = serve(answering(ok(BODY)))
    monkeypatch.setenv("HTTP_PROXY", proxy.origin)
    fetch(make_engine(), url)
    assert proxy.requests[0].split(b"\r\n")[0] == f"GET {asked} HTTP/1.1".encode()


@pytest.mark.usefixtures("trusted")
def test_what_a_tunnel_says(
    make_engine: MakeEngine,
    serve: Serve,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a proxy says when it opens a tunnel is not taken for the storage's word."""
    server = serve(answering(ok(BODY)), tls=identity(authority, "storage.invalid"))

    def tunnel(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, ETag='"proxy"', Location="/proxy", Via="proxy"))
        peer.tunnel(server.port)

    monkeypatch.setenv("HTTPS_PROXY", serve(tunnel).origin)
    found = fetch(make_engine(), "https://storage.invalid/x")
    assert (found.status, found.body) == (200, BODY)
    assert dict(found.headers) == {"content-length": str(len(BODY))}


def test_proxy_with_a_password(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy's password goes to the proxy."""
    proxy = serve(answering(ok(BODY)))
    credentials = proxy.origin.replace("http://", "http://ada:pass%20word@")
    monkeypatch.setenv("HTTP_PROXY", credentials)
    assert fetch(make_engine(), "http://storage.invalid/x").body == BODY
    basic = base64.b64encode(b"ada:pass word").decode()
    assert fields(proxy.requests[0])["proxy-authorization"] == f"Basic {basic}"


def test_proxy_by_address_alone(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that is named without a scheme is one of http."""
    proxy = serve(answering(ok(BODY)))
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
    assert fetch(make_engine(), "http://storage.invalid/x").body == BODY


@pytest.mark.parametrize(
    "proxy",
    [
        "ftp://user:pass-word@127.0.0.1:9",
        "socks5://user:pass-word@127.0.0.1:9",
        "http://user:pass-word@127.0.0.1:port",
        "http://user:pass-word@",
        "://pass-word",
    ],
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
def test_proxy_that_is_none(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, proxy: str, variable: str
) -> None:
    """A proxy that cannot be one is told at the start, without its password."""
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as raised:
        make_engine()
    assert "pass-word" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nx\n"])
def test_authorities_that_are_none(
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
) -> None:
    """A file of certificates that is not there, or holds none, is told at the start."""
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        make_engine()


def test_password_files_are_not_read(
    make_engine: MakeEngine, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user's .netrc and .curlrc say is for others."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password pass-word\n")
    (tmp_path / ".curlrc").write_text('header = "x-curlrc: 1"\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CURL_HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = serve(answering(ok(BODY)))
    fetch(make_engine(), server.origin + "/x")
    assert not {"authorization", "x-curlrc"} & set(fields(server.requests[0]))


@pytest.mark.usefixtures("trusted")
def test_connection_that_is_not_to_be_kept(
    make_engine: MakeEngine, serve: Serve, authority: trustme.CA
) -> None:
    """A connection that the storage will not use again is closed with the transfer."""

    def once(peer: Peer) -> None:
        peer.request()
        peer.send(ok(BODY, connection="close"))
        peer.stall()

    server = serve(once, tls=identity(authority, "127.0.0.1"))
    assert fetch(make_engine(), server.origin + "/x").body == BODY
    assert server.deserted.wait(10), "the connection was left open"
