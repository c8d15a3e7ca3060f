"""What every engine takes from its surroundings alike: certificates and proxies."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import ssl
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from harness import wait_until
from transfer.engines import SECRET, SIGNED, problem_of
from transfer.test_engine_conformance import EXACT_TARGETS
from transfer.wire import (
    Collected,
    Peer,
    answering,
    fetch,
    fetch_into,
    fields,
    head,
    ok,
    unused_port,
)

from downloader import trust
from downloader.errors import ConfigurationError
from downloader.rules.decisions import ProblemKind
from downloader.transfer.engine import Timing
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.httpx_engine import HttpxEngine

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
    """An authority that nobody vouches for is the host's trouble, and is named."""
    server = serve(answering(ok(BODY)), tls=identity(authority, "127.0.0.1"))
    problem = problem_of(make_engine(), server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "certificate")
    assert problem.error_message.startswith(
        f"The storage at 127.0.0.1:{server.port} cannot be trusted: its certificate is signed by "
        "trustme v"
    )
    assert problem.error_message.endswith(", which is no authority that is trusted here.")
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
def test_certificate_of_another_host(
    make_engine: MakeEngine, serve: Serve, authority: trustme.CA
) -> None:
    """A trusted certificate for another name is refused before anything is asked."""
    server = serve(answering(ok(BODY)), tls=identity(authority, "elsewhere.example"))
    problem = problem_of(make_engine(), server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "certificate")
    said = "its certificate is for elsewhere.example, and not for 127.0.0.1."
    assert problem.error_message.endswith(said)
    assert server.requests == []


NOW = datetime.now(UTC)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (
            NOW - timedelta(days=9),
            NOW - timedelta(days=2),
            f"its certificate expired on {NOW - timedelta(days=2):%Y-%m-%d at %H:%M} UTC.",
        ),
        (
            NOW + timedelta(days=2),
            NOW + timedelta(days=9),
            (
                f"its certificate is valid only from {NOW + timedelta(days=2):%Y-%m-%d at %H:%M} "
                "UTC on, and this machine's clock is before that."
            ),
        ),
    ],
    ids=["expired", "not yet valid"],
)
def test_certificate_out_of_its_time(
    make_engine: MakeEngine,
    serve: Serve,
    authority: trustme.CA,
    *,
    begins: datetime,
    ends: datetime,
    said: str,
) -> None:
    """Of a certificate that is not valid now it is said since when, or from when on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_before=begins, not_after=ends).configure_cert(context)
    server = serve(answering(ok(BODY)), tls=context)
    problem = problem_of(make_engine(), server.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "certificate")
    assert problem.error_message.endswith(said)


def test_certificate_signed_by_itself(
    make_engine: MakeEngine, serve: Serve, tmp_path: Path
) -> None:
    """A certificate that vouches for itself is told for what it is."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "home made")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = Encoding.PEM
    secret = key.private_bytes(pem, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "own.pem").write_bytes(secret + made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    server = serve(answering(ok(BODY)), tls=context)
    problem = problem_of(make_engine(), f"https://localhost:{server.port}/x")
    assert problem.error_code == "certificate"
    said = "its certificate is signed by itself (home made), and by no authority."
    assert problem.error_message.endswith(said)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundles_of_others(
    make_engine: MakeEngine,
    serve: Serve,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    variable: str,
) -> None:
    """The variables of requests and of curl are read, behind SSL_CERT_FILE."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "other.pem"))
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    server = serve(answering(ok(BODY)), tls=identity(authority, "127.0.0.1"))
    assert fetch(make_engine(), server.origin + "/x").body == BODY
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    assert problem_of(make_engine(), server.origin + "/x").error_code == "certificate"


@pytest.mark.parametrize("place", ["file", "folder"])
def test_store_of_the_system(
    make_engine: MakeEngine,
    serve: Serve,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    place: str,
) -> None:
    """A company's authority in the system's store is trusted, where curl trusts it."""
    file, folder = tmp_path / "bundle.pem", tmp_path / "certs"
    folder.mkdir()
    others = trustme.CA().cert_pem.bytes()
    own = authority.cert_pem.bytes()
    file.write_bytes(others + own if place == "file" else others)
    if place == "folder":
        (folder / f"{_subject_hash(own)}.0").write_bytes(own)
    monkeypatch.setattr(trust, "_FILES", (str(tmp_path / "none.pem"), str(file)))
    monkeypatch.setattr(trust, "_FOLDERS", (str(folder),))
    trust._of_the_system.cache_clear()
    try:
        server = serve(answering(ok(BODY)), tls=identity(authority, "127.0.0.1"))
        assert fetch(make_engine(), server.origin + "/x").body == BODY
    finally:
        monkeypatch.undo()
        trust._of_the_system.cache_clear()


@pytest.mark.usefixtures("trusted")
def test_redirect_out_of_tls(make_engine: MakeEngine, serve: Serve, authority: trustme.CA) -> None:
    """A redirect from https to plain http is refused before anything is asked there."""
    there = serve(answering(ok(BODY)))
    answer = head(302, location=there.origin + "/y", content_length="0")
    here = serve(answering(answer), tls=identity(authority, "127.0.0.1"))
    problem = problem_of(make_engine(), here.origin + "/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.WRONG_OBJECT, "unusable_redirect")
    assert "from https to plain http" in problem.error_message
    assert there.connections == 0


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
        outcome = pool.submit(fetch_into, engine, server.origin + "/x", sink, guard)
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
@pytest.mark.parametrize(
    "value",
    [
        "127.0.0.1",
        "elsewhere.example,127.0.0.1",
        "*",
        "::1/128, fd00::/8 [::1],127.0.0.0/8",
        "10.0.0.0/33,[::1,127.0.0.1",
    ],
)
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
    for status, said in ((407, "asks for a user"), (403, "refused"), (502, "no connection")):
        proxy = serve(answering(head(status, content_length="0")))
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        problem = problem_of(make_engine(), "https://storage.invalid/x")
        assert problem.kind is ProblemKind.UNREACHABLE
        assert problem.error_code == "storage_unreachable"
        assert said in problem.error_message
        assert f"(HTTP {status})" in problem.error_message
    monkeypatch.setenv("HTTP_PROXY", serve(answering(head(407, content_length="0"))).origin)
    problem = problem_of(make_engine(), "http://storage.invalid/x")
    assert (problem.kind, problem.error_code) == (ProblemKind.UNREACHABLE, "storage_unreachable")
    assert "the proxy asks for a user" in problem.error_message


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
        "socks7://user:pass-word@127.0.0.1:9",
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
    with pytest.raises(
        ConfigurationError, match=f"{variable} cannot be used.*HTTPS_PROXY"
    ) as raised:
        make_engine()
    assert "pass-word" not in "".join(traceback.format_exception(raised.value))


def socks(peer: Peer, port: int) -> bytes:
    """Serve one connection of SOCKS 5 (RFC 1928) on to a port here; return the name asked for."""
    connection = peer._connection
    methods = connection.recv(2)[1]
    connection.recv(methods)
    connection.sendall(b"\x05\x00")
    asked = connection.recv(5)
    name = connection.recv(asked[4])
    connection.recv(2)
    connection.sendall(b"\x05\x00\x00\x01\x0a\x0a\x0a\x0d\x0a\x0a")
    peer.tunnel(port)
    return name


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
def test_socks_proxy(
    make_engine: MakeEngine,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    scheme: str,
) -> None:
    """A proxy of SOCKS 5 is asked for the host by its name."""
    server = serve(answering(ok(BODY)))
    names = []
    proxy = serve(lambda peer: names.append(socks(peer, server.port)))
    monkeypatch.setenv(variable, f"{scheme}://127.0.0.1:{proxy.port}")
    engine = make_engine()
    for _ in range(2):
        assert fetch(engine, "http://storage.invalid/x").body == BODY
    engine.close()
    wait_until(lambda: names == [b"storage.invalid"])


def test_proxy_that_is_not_needed(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a proxy for https ALL_PROXY may be what it will, until it is needed."""
    monkeypatch.setenv("HTTPS_PROXY", serve(answering(ok())).origin)
    monkeypatch.setenv("ALL_PROXY", "socks7://user:pass-word@127.0.0.1:9")
    engine = make_engine()
    problem = problem_of(engine, "http://storage.invalid/x")
    assert problem.kind is ProblemKind.UNREACHABLE
    assert "ALL_PROXY cannot be used" in problem.error_message
    assert "pass-word" not in problem.error_message


def test_socks_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where httpx lacks what SOCKS needs it says so at the start, if it needs it at all."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match=r"ALL_PROXY names a SOCKS proxy.*socksio"):
        HttpxEngine(Timing(), connections=1)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    HttpxEngine(Timing(), connections=1).close()


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
    with pytest.raises(ConfigurationError, match=f"SSL_CERT_FILE names {tmp_path}/ca.pem, which"):
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
