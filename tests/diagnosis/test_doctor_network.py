from __future__ import annotations

import contextlib
import shutil
import ssl
import threading
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from spilling import API_KEY
from store.driving import SIGNATURE, at
from transfer.wire import RawServer, answering, head, ok, unused_port

from downloader.clock import utc_now
from downloader.diagnosis.network import _NEVER_ISSUED
from downloader.diagnosis.reaching import within
from downloader.rules.steps import PollLater

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trustme
    from cli.calling import Caller
    from diagnosis.conftest import Doctor
    from harness import StartSimulator
    from store.driving import Driver
    from transfer.wire import Peer, Script


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Start raw servers that end with the test."""
    with contextlib.ExitStack() as stack:

        def start(script: Script, *, tls: ssl.SSLContext | None = None) -> RawServer:
            return stack.enter_context(RawServer(script, tls=tls))

        yield start


def tls_of(authority: trustme.CA) -> ssl.SSLContext:
    """Return the TLS settings of a server at 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def waiting(peer: Peer) -> None:
    """Take a connection, and say nothing."""
    peer.stall()


def give_url(driver: Driver, url: str) -> None:
    """Have a run that is ready, at a URL."""
    driver.ready(1)
    driver.execute("UPDATE runs SET url = ?", f"{url}/audio/1.wav?{SIGNATURE}")


# --------------------------------------------------------------------------- the API and its key


def test_all_is_well(doctor: Doctor, start_simulator: StartSimulator) -> None:
    """With a key that is taken and a database, nothing is found, for one request to the API."""
    simulator = start_simulator(api_key=API_KEY)
    found = doctor("--api-url", simulator.api_url)
    assert (found.code, found.statuses) == (0, {})
    assert "CAMB_API_KEY" in found.finding("api_key")
    assert "within 5 seconds" in found.finding("clock")
    stats = simulator.stats()
    assert stats["api"]["requests"] == 1
    assert stats["storage"]["requests"] == 0


def test_the_run_that_is_asked_for(
    doctor: Doctor, driver: Driver, start_simulator: StartSimulator
) -> None:
    """A run that was saved is asked for where there is one, for it is known to be ours."""
    simulator = start_simulator(api_key=API_KEY)
    driver.done(12)
    found = doctor("--api-url", simulator.api_url)
    assert found.statuses == {}
    assert "; accepted" in found.finding("api_key")
    not_known = {"kind": "status", "status": 404}
    simulator.set_rules([{"runs": [12], "where": "api", "fault": not_known}])
    found = doctor("--api-url", simulator.api_url)
    assert found.statuses == {"api": "warning"}
    assert "does not know run 12" in found.finding("api")


def test_an_api_that_is_elsewhere(
    doctor: Doctor, driver: Driver, start_simulator: StartSimulator
) -> None:
    """Where `run` got 404 for whatever it asked, 404 is no sign of an API any more."""
    elsewhere = start_simulator(api_key=API_KEY).api_url.removesuffix("/apis")
    assert doctor("--api-url", elsewhere).statuses == {}  # it may be that no run is known there
    driver.submit(1, 2)
    driver.poll(1, 2, step=PollLater(at(2), None, "api_not_found", "Nothing is found."))
    found = doctor("--api-url", elsewhere)
    assert (found.code, found.statuses) == (1, {"api": "problem"})
    assert "check --api-url" in found.finding("api")


@pytest.mark.parametrize(
    ("status", "statuses", "said"),
    [
        (401, {"api_key": "problem"}, "refused the API key (401)"),
        (402, {"api_key": "problem"}, "asks for payment (402)"),
        (403, {"api_key": "problem"}, "forbids access (403)"),
        (400, {}, "; accepted"),
        (404, {}, "; not refused"),
        (422, {}, "; accepted"),
        (429, {}, "; not refused"),
        (500, {"api": "warning"}, "is not known"),
        (502, {"api": "warning"}, "is not known"),
        (503, {"api": "warning"}, "is not known"),
    ],
)
def test_what_the_api_answers(
    doctor: Doctor,
    start_simulator: StartSimulator,
    status: int,
    statuses: dict[str, str],
    said: str,
) -> None:
    """Each status of the API is judged as the service judges it, and its words show no secret."""
    words = f"{API_KEY} https://s.example/1.wav?{SIGNATURE}"
    fault = {"kind": "status", "status": status, "detail": words}
    simulator = start_simulator(rules=[{"runs": [_NEVER_ISSUED], "where": "api", "fault": fault}])
    found = doctor("--api-url", simulator.api_url)
    assert found.statuses == statuses
    assert said in found.finding("api_key")
    assert str(status) in found.finding("api")
    assert API_KEY not in str(found.checks)
    assert SIGNATURE not in str(found.checks)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (head(302, location="https://elsewhere.example/", content_length="0"), "redirects"),
        (ok(b"<html>hotel</html>", content_type="text/html"), "no shape that is known"),
    ],
)
def test_what_is_not_the_api(
    doctor: Doctor, serve: Callable[..., RawServer], answer: bytes, said: str
) -> None:
    """A server that answers, but not as the API does, is taken for a wrong --api-url."""
    found = doctor("--api-url", serve(answering(answer)).origin)
    assert found.statuses == {"api": "problem"}
    assert said in found.finding("api")
    assert "--api-url" in found.finding("api")


def test_an_api_that_cannot_be_reached(doctor: Doctor) -> None:
    """Where nobody listens the API is a problem, and nothing is said of the key or the clock."""
    found = doctor("--api-url", f"http://127.0.0.1:{unused_port()}/apis")
    assert found.statuses == {"api": "problem"}
    assert "Connection refused" in found.finding("api")
    assert "is not known" in found.finding("api_key")
    assert "not known" in found.finding("clock")


def test_an_api_that_never_answers(
    doctor: Doctor, serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API that says nothing is waited for a stated time."""
    monkeypatch.setattr("downloader.diagnosis.network.ANSWER_SECONDS", 0.2)
    found = doctor("--api-url", serve(waiting).origin)
    assert found.statuses == {"api": "problem"}
    assert "no answer in 0.2 seconds" in found.finding("api")


def test_a_call_that_nothing_ends() -> None:
    """What has no time limit of its own, as the look-up of a name, is left to itself in time."""
    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.05, never.wait)
    never.set()
    assert within(60, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 / 0)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, None), (-3600, "3,6"), (90_000, "behind"), (-90_000, "ahead of")],
)
def test_the_clock(
    doctor: Doctor, serve: Callable[..., RawServer], seconds: float, said: str | None
) -> None:
    """A clock that is off against the API's is told, with the side and what it breaks."""
    date = format_datetime(utc_now() + timedelta(seconds=seconds), usegmt=True)
    answer = head(404, date=date, content_length="2") + b"{}"
    found = doctor("--api-url", serve(answering(answer)).origin)
    assert found.statuses == ({} if said is None else {"clock": "warning"})
    if said is not None:
        assert said in found.finding("clock").replace("3,599", "3,600")
        assert "times in the database" in found.finding("clock")


def test_no_key(call: Caller, doctor: Doctor, start_simulator: StartSimulator) -> None:
    """Without a key the API is not asked, and it is said where to put one."""
    call.monkeypatch.delenv("CAMB_API_KEY")
    simulator = start_simulator()
    found = doctor("--api-url", simulator.api_url)
    assert found.statuses == {"api_key": "problem"}
    assert "CAMB_API_KEY_FILE" in found.finding("api_key")
    assert simulator.stats()["api"]["requests"] == 0


def test_a_key_of_a_file(call: Caller, doctor: Doctor, start_simulator: StartSimulator) -> None:
    """The key's file is named, warned of where others may read it, and never quoted."""
    call.monkeypatch.delenv("CAMB_API_KEY")
    path = call.folder / "the key"
    call.set(CAMB_API_KEY_FILE=str(path))
    simulator = start_simulator(api_key=API_KEY)
    found = doctor("--api-url", simulator.api_url)
    assert found.statuses == {"api_key": "problem"}
    assert f"{path}, which cannot be read" in found.finding("api_key")
    path.write_text(API_KEY, encoding="ascii")
    path.chmod(0o644)
    found = doctor("--api-url", simulator.api_url)
    assert found.statuses == {"api_key": "warning"}
    assert "accepted" in found.finding("api_key") or "not refused" in found.finding("api_key")
    assert f"> chmod 600 '{path}'" in found.finding("api_key")
    path.chmod(0o600)
    assert doctor("--api-url", simulator.api_url).statuses == {}
    path.write_text(f"{API_KEY} {API_KEY}", encoding="ascii")
    found = doctor("--api-url", simulator.api_url)
    assert found.statuses == {"api_key": "problem"}
    assert "white space" in found.finding("api_key")
    assert API_KEY not in str(found.checks)


# ------------------------------------------------------------------------------- TLS and proxies


def test_an_api_of_an_authority_that_is_trusted(
    doctor: Doctor, serve: Callable[..., RawServer], authority: trustme.CA
) -> None:
    """SSL_CERT_FILE is whom to trust, and how many are in it is told."""
    api = serve(answering(head(404, content_length="0")), tls=tls_of(authority))
    found = doctor("--api-url", api.origin)
    assert found.statuses == {}
    assert "1 authority is trusted" in found.finding("tls")
    assert "(SSL_CERT_FILE)" in found.finding("tls")


def test_an_api_of_an_authority_that_is_not(
    call: Caller, doctor: Doctor, serve: Callable[..., RawServer], authority: trustme.CA
) -> None:
    """A certificate of an authority that is not trusted ends in the advice to name it."""
    call.monkeypatch.delenv("SSL_CERT_FILE")
    api = serve(answering(head(404, content_length="0")), tls=tls_of(authority))
    found = doctor("--api-url", api.origin)
    assert found.statuses == {"api": "problem"}
    assert "SSL_CERT_FILE" in found.finding("api")
    assert "certifi" in found.finding("tls")


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nx\n", b"\xff\xfe"])
def test_authorities_that_cannot_be_read(
    call: Caller, doctor: Doctor, content: bytes | None
) -> None:
    """A file of certificates that is broken, empty or not there is named."""
    path = call.folder / "broken.pem"
    if content is not None:
        path.write_bytes(content)
    call.set(SSL_CERT_FILE=str(path))
    found = doctor("--api-url", "https://127.0.0.1:9/apis")
    assert found.statuses["tls"] == "problem"
    assert str(path) in found.finding("tls")
    assert found.statuses["api"] == "problem"


@pytest.mark.parametrize("made", ["missing", "empty", "good"])
def test_a_folder_of_authorities(
    call: Caller, doctor: Doctor, authority: trustme.CA, made: str
) -> None:
    """A folder without a name that OpenSSL looks for is a problem: nobody would be trusted."""
    folder = call.folder / "authorities"
    if made != "missing":
        folder.mkdir()
        authority.cert_pem.write_to_path(folder / "ca.pem")
    if made == "good":
        shutil.copy(folder / "ca.pem", folder / "0a1b2c3d.0")
    call.monkeypatch.delenv("SSL_CERT_FILE")
    call.set(SSL_CERT_DIR=str(folder))
    found = doctor("--api-url", f"http://127.0.0.1:{unused_port()}")
    assert found.checks["tls"]["status"] == ("ok" if made == "good" else "problem")
    assert "SSL_CERT_DIR" in found.finding("tls")


def test_a_proxy_that_refuses(
    call: Caller, doctor: Doctor, serve: Callable[..., RawServer]
) -> None:
    """A proxy's refusal is told with the proxy, and without the password in its address."""
    proxy = serve(answering(head(407, content_length="0")))
    call.set(HTTPS_PROXY=f"http://ada:5ec2e7word@127.0.0.1:{proxy.port}")
    found = doctor("--api-url", "https://api.example/apis")
    assert found.statuses == {"api": "problem"}
    assert f"http://127.0.0.1:{proxy.port}" in found.finding("api")
    assert "407" in found.finding("api")
    assert f"the API is asked through http://127.0.0.1:{proxy.port}" in found.finding("proxy")
    assert "5ec2e7word" not in str(found.checks)


def test_no_proxy(call: Caller, doctor: Doctor, start_simulator: StartSimulator) -> None:
    """NO_PROXY is shown; an API on this machine by plain http is never asked through a proxy."""
    call.set(HTTP_PROXY="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="a.test")
    found = doctor("--api-url", start_simulator().api_url)
    assert found.statuses == {}
    assert "directly, as plain http always is" in found.finding("proxy")
    assert "NO_PROXY is a.test" in found.finding("proxy")


@pytest.mark.parametrize("value", ["ftp://ada:5ec2e7word@127.0.0.1:9", "http://[::1"])
def test_a_proxy_that_cannot_be_used(call: Caller, doctor: Doctor, value: str) -> None:
    """A proxy setting that cannot be used is told once, by its check, without its password."""
    call.set(HTTPS_PROXY=value)
    found = doctor("--api-url", "https://api.example/apis")
    assert found.statuses == {"proxy": "problem", "api": "problem"}
    assert "HTTPS_PROXY" in found.finding("proxy")
    assert "5ec2e7word" not in str(found.checks)


# ----------------------------------------------------------------------------------- the storage


def test_a_storage_that_can_be_reached(
    doctor: Doctor,
    driver: Driver,
    serve: Callable[..., RawServer],
    start_simulator: StartSimulator,
    authority: trustme.CA,
) -> None:
    """The host of a URL is connected to with TLS; it is sent nothing, and the URL is not shown."""
    storage = serve(answering(ok(b"")), tls=tls_of(authority))
    give_url(driver, storage.origin)
    found = doctor("--api-url", start_simulator().api_url)
    assert found.statuses == {}
    assert f"127.0.0.1:{storage.port} can be reached, by TLS" in found.finding("storage")
    assert storage.connections == 1
    assert storage.requests == []
    assert SIGNATURE not in str(found.checks)
    assert "1.wav" not in str(found.checks)
    assert driver.states() == {1: "ready"}


def test_a_storage_that_cannot_be_reached(
    doctor: Doctor, driver: Driver, start_simulator: StartSimulator
) -> None:
    """A storage where nobody listens is a problem of its own."""
    give_url(driver, f"http://127.0.0.1:{unused_port()}")
    found = doctor("--api-url", start_simulator().api_url)
    assert found.statuses == {"storage": "problem"}
    assert "refused" in found.finding("storage")
    assert SIGNATURE not in str(found.checks)


@pytest.mark.parametrize("url", ["http://[::1", "https://", "https://h:99999", "nonsense"])
def test_a_url_that_is_none(
    doctor: Doctor, driver: Driver, start_simulator: StartSimulator, url: str
) -> None:
    """A URL that leads nowhere is no reason to stop."""
    give_url(driver, url)
    found = doctor("--api-url", start_simulator().api_url)
    assert found.statuses == {"storage": "problem"}
    assert SIGNATURE not in str(found.checks)


def test_a_storage_that_is_not_trusted(
    call: Caller,
    doctor: Doctor,
    driver: Driver,
    serve: Callable[..., RawServer],
    *,
    start_simulator: StartSimulator,
    authority: trustme.CA,
) -> None:
    """A storage with a certificate of nobody's is told as such."""
    call.monkeypatch.delenv("SSL_CERT_FILE")
    storage = serve(answering(ok(b"")), tls=tls_of(authority))
    give_url(driver, storage.origin)
    found = doctor("--api-url", start_simulator().api_url)
    assert found.statuses == {"storage": "problem"}
    assert "SSL_CERT_FILE" in found.finding("storage")


def test_a_storage_behind_a_proxy(
    call: Caller,
    doctor: Doctor,
    driver: Driver,
    serve: Callable[..., RawServer],
    *,
    start_simulator: StartSimulator,
    authority: trustme.CA,
) -> None:
    """Through a proxy a tunnel is asked for with its user, and TLS goes through it."""
    storage = serve(answering(ok(b"")), tls=tls_of(authority))

    def tunnel(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(head(200))
            peer.tunnel(storage.port)

    proxy = serve(tunnel)
    call.set(HTTPS_PROXY=f"http://ada:5ec2e7@127.0.0.1:{proxy.port}")
    give_url(driver, storage.origin)
    found = doctor("--api-url", start_simulator().api_url)
    assert found.statuses == {}
    assert f"through http://127.0.0.1:{proxy.port}, by TLS" in found.finding("storage")
    [request] = proxy.requests
    assert request.startswith(f"CONNECT 127.0.0.1:{storage.port} ".encode())
    assert b"Proxy-Authorization: Basic YWRhOjVlYzJlNw==" in request
    assert storage.requests == []


def test_a_proxy_that_refuses_the_storage(
    call: Caller,
    doctor: Doctor,
    driver: Driver,
    serve: Callable[..., RawServer],
    start_simulator: StartSimulator,
) -> None:
    """A proxy that opens no tunnel to the storage is named."""
    proxy = serve(answering(head(403, content_length="0")))
    call.set(HTTPS_PROXY=f"http://ada:5ec2e7word@127.0.0.1:{proxy.port}")
    give_url(driver, "https://storage.example")
    found = doctor("--api-url", start_simulator().api_url)
    assert found.statuses == {"storage": "problem"}
    assert "403" in found.finding("storage")
    assert "5ec2e7word" not in str(found.checks)
