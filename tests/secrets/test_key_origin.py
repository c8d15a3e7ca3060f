"""Who gets the API key: the API's origin alone, whatever redirects and proxies there are."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from spilling import API_KEY
from transfer.wire import Peer, RawServer, Script, answering, fields, head, ok

from downloader.camb.client import ApiClient
from downloader.rules.answers import RetryLater
from downloader.rules.batching import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness import Program, Service, StartSimulator
    from spilling import Secrets

    from downloader.simulator.server import Simulator

PAIR = Batch("text-to-sound", (1, 2))
ALONE = Batch("text-to-sound", (1,))


class ServerAt(RawServer):
    """A raw server at another address of this machine, or under another name of it."""

    def __init__(self, host: str, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(script, tls=tls)
        self._host = host
        if host.startswith("127.") and host != "127.0.0.1":
            self._listening.close()
            try:
                self._listening = socket.create_server((host, 0), backlog=128)
            except OSError:
                pytest.skip(f"this machine has no {host}: only Linux has all of 127.0.0.0/8")
            self.port = self._listening.getsockname()[1]

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"


@pytest.fixture(autouse=True)
def _own_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the proxies of whoever runs the tests out of them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def servers() -> Iterator[Callable[..., ServerAt]]:
    """Start raw servers that end with the test: `servers("localhost", script)`."""
    with contextlib.ExitStack() as stack:

        def start(host: str, script: Script, *, tls: ssl.SSLContext | None = None) -> ServerAt:
            return stack.enter_context(ServerAt(host, script, tls=tls))

        yield start


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Make an authority, and have SSL_CERT_FILE name it."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


def tls_of(authority: trustme.CA) -> ssl.SSLContext:
    """Return the TLS settings of a server at 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def to(location: str) -> bytes:
    """Return a redirect."""
    return head(302, location=location, content_length="0")


def test_a_storage_that_redirects(
    watched: StartSimulator,
    keyed_service: Callable[[Simulator], Service],
    servers: Callable[..., ServerAt],
    secrets: Secrets,
    authority: trustme.CA,
) -> None:
    """Other hosts, ports and schemes that a URL leads to, there and back, never see the key."""
    simulator = watched(api_key=API_KEY, audio_format="wav")
    content = ok(simulator.audio(1), content_type="audio/wav")
    last = servers("127.0.0.1", answering(content), tls=tls_of(authority))
    secured = servers("127.0.0.1", answering(to(last.origin + "/e.wav")), tls=tls_of(authority))
    other_address = servers("127.0.0.2", answering(to(secured.origin + "/d.wav")))
    other_name = servers("localhost", answering(to(other_address.origin + "/c.wav")))
    first = servers("127.0.0.1", answering(to(other_name.origin + "/b.wav")))
    url = {"kind": "url", "url": first.origin + "/a.wav?X-Amz-Signature=5ec2e75ec2e7"}
    simulator.set_rules([{"runs": [1], "where": "api", "fault": url}])
    service = keyed_service(simulator)
    service.submit(1)
    assert service.run().tally.done == 1
    chain = (first, other_name, other_address, secured, last)
    assert [len(server.requests) for server in chain] == [1] * 5
    for server in chain:
        [request] = server.requests
        assert "x-api-key" not in fields(request)
        assert secrets(request, urls=[]) == [], server.origin


@pytest.mark.parametrize("status", [*range(300, 309), 399])
@pytest.mark.parametrize("batch", [PAIR, ALONE], ids=["bulk", "single"])
def test_an_api_that_redirects(
    servers: Callable[..., ServerAt], authority: trustme.CA, status: int, batch: Batch
) -> None:
    """Whatever the status and wherever it leads, the API's redirects are not followed."""
    thieves = [
        servers("127.0.0.1", answering(ok(b"{}"))),
        servers("localhost", answering(ok(b"{}"))),
        servers("127.0.0.1", answering(ok(b"{}")), tls=tls_of(authority)),
    ]
    places = [f"{thief.origin}/apis" for thief in thieves]
    places += [f"//127.0.0.1:{thieves[0].port}/apis", "/elsewhere", "elsewhere", "?again"]
    redirects = [head(status, location=place, content_length="0") for place in places]
    with (
        RawServer(answering(*redirects)) as api,
        contextlib.closing(ApiClient(api.origin + "/apis", API_KEY)) as client,
    ):
        for _ in places:
            assert isinstance(client.ask(batch).judgement, RetryLater)
    assert len(api.requests) == len(places), "each was asked once, and went nowhere"
    assert len({request.split(b" ")[1] for request in api.requests}) == 1
    assert all(fields(request)["x-api-key"] == API_KEY for request in api.requests)
    assert [thief.connections for thief in thieves] == [0, 0, 0]


def test_a_service_whose_api_redirects(
    watched: StartSimulator,
    keyed_program: Program,
    servers: Callable[..., ServerAt],
) -> None:
    """A whole call on an API that redirects asks nobody else, and leaves the runs as they are."""
    thief = servers("localhost", answering(ok(b"{}")))
    fault = {"kind": "redirect", "to": thief.origin + "/apis"}
    simulator = watched(rules=[{"runs": "*", "where": "api", "fault": fault}])
    keyed_program.env["DOWNLOADER_API_URL"] = simulator.api_url
    assert keyed_program("submit", "1", "2").returncode == 0
    assert keyed_program("run", "--once").returncode == 3
    assert keyed_program.query("SELECT DISTINCT state FROM runs") == [("pending",)]
    assert thief.connections == 0


def tunnel(peer: Peer) -> None:
    """Be a proxy that tunnels to whatever port of this machine it is asked for."""
    request = peer.request()
    if request is not None and request.startswith(b"CONNECT "):
        peer.send(head(200))
        peer.tunnel(int(request.split()[1].rpartition(b":")[2]))


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_for_https(
    watched: StartSimulator,
    keyed_program: Program,
    servers: Callable[..., ServerAt],
    secrets: Secrets,
    authority: trustme.CA,
    *,
    tmp_path: Path,
    variable: str,
) -> None:
    """A proxy is asked for tunnels: it gets neither the key nor a signature, nor any path."""
    identity = authority.issue_cert("127.0.0.1")
    identity.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    simulator = watched(certfile=tmp_path / "server.pem", api_key=API_KEY)
    proxy = servers("127.0.0.1", tunnel)
    keyed_program.env |= {"DOWNLOADER_API_URL": simulator.api_url, variable: proxy.origin}
    assert keyed_program("submit", "1", "2", "3").returncode == 0
    done = keyed_program("run", "--drain")
    assert (done.returncode, done.stderr) == (0, "")
    assert simulator.stats()["storage"]["requests"] == 3
    ports = {
        f"127.0.0.1:{url.rpartition(':')[2].split('/')[0]}".encode() for url in _both(simulator)
    }
    assert {request.split()[1] for request in proxy.requests} == ports
    for request in proxy.requests:
        assert request.startswith(b"CONNECT ")
        assert secrets(request) == []


def _both(simulator: Simulator) -> tuple[str, str]:
    return simulator.api_url, simulator.storage_url


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("batch", [PAIR, ALONE], ids=["bulk", "single"])
def test_a_proxy_for_http(
    servers: Callable[..., ServerAt],
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    batch: Batch,
) -> None:
    """An API at plain http is one on this machine: no proxy is asked, and none gets the key."""
    proxy = servers("127.0.0.1", answering(ok(b"{}")))
    api = servers("127.0.0.1", answering(ok(b"{}")))
    monkeypatch.setenv(variable, proxy.origin)
    with contextlib.closing(ApiClient(api.origin, API_KEY)) as client:
        client.ask(batch)
    assert proxy.requests == []
    assert secrets(api.requests[0]) != []
