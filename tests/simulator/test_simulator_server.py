from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme
from simulator.asking import KEY, ask, ask_one, url_of

from downloader.simulator.catalogue import API_FAULTS, STORAGE_FAULTS
from downloader.simulator.errors import SimulatorError
from downloader.simulator.options import SimulatorOptions
from downloader.simulator.rules import Rule
from downloader.simulator.server import Simulator

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.asking import StartSim


def test_a_port_in_use_is_a_clear_error(sim: Simulator) -> None:
    """A second simulator on the same port does not start, and says which."""
    port = int(sim.api_url.rpartition(":")[2].removesuffix("/apis"))

    with (
        pytest.raises(SimulatorError, match=f"cannot listen on 127.0.0.1 port {port}"),
        Simulator(port=port),
    ):
        pass


def test_another_host_than_loopback_is_refused() -> None:
    """The simulator is for this machine alone."""
    with pytest.raises(SimulatorError, match="loopback"):
        Simulator(host="192.0.2.1")


def test_it_listens_on_ipv6_too() -> None:
    """`::1` is loopback."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")

    with Simulator(host="::1") as sim:
        assert sim.api_url.startswith("http://[::1]:")
        assert ask(sim, 1, 2).status_code == 200


def test_it_stops_at_once_with_answers_outstanding() -> None:
    """Stalled requests neither hold up the end nor outlive it."""
    options = SimulatorOptions(
        rules=(Rule.of(1, "storage", "stall"), Rule.of(3, "api", "stall")),
    )
    ended: list[Exception] = []

    def wait_for_the_end(url: str) -> None:
        try:
            httpx.get(url, headers={"x-api-key": "k"}, timeout=30)
        except httpx.HTTPError as error:
            ended.append(error)

    with Simulator(options) as sim:
        urls = [url_of(sim, 1), f"{sim.api_url}/text-to-sound-result/3"]
        threads = [threading.Thread(target=wait_for_the_end, args=(url,)) for url in urls]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while len(sim.stats()["faults"]) < 2:
            assert time.monotonic() < deadline
        begun = time.monotonic()
    assert time.monotonic() - begun < 2

    for thread in threads:
        thread.join(timeout=5)
    assert len(ended) == 2
    with pytest.raises(httpx.ConnectError):
        httpx.get(urls[0])


QUICK: dict[str, dict[str, Any]] = {"drip": {"rate": 10_000}}


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, ssl.SSLContext]:
    """Issue a certificate, its key, and a client that trusts them."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certfile))
    issued.private_key_pem.write_to_path(str(keyfile))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return certfile, keyfile, context


def test_https(start_sim: StartSim, certificate: tuple[Path, Path, ssl.SSLContext]) -> None:
    """With a certificate both origins are https, and faults break connections as without."""
    certfile, keyfile, trust = certificate
    size = 300_000
    sim = start_sim(
        Rule.of(2, "storage", "truncate"),
        Rule.of(3, "storage", "reset"),
        Rule.of(4, "storage", "stall"),
        Rule.of(5, "storage", "stall", seconds=0.05),
        certfile=certfile,
        keyfile=keyfile,
        min_size=size,
        max_size=size,
    )
    with httpx.Client(verify=trust, timeout=5) as client:
        answer = client.post(
            f"{sim.api_url}/text-to-sound-results", json={"run_ids": [1, 2, 3, 4, 5]}, headers=KEY
        ).json()
        whole, truncated, reset, stalled, late = (
            answer[str(run_id)]["output_url"] for run_id in range(1, 6)
        )
        assert whole.startswith(f"{sim.storage_url}/")
        assert sim.api_url.startswith("https://")
        assert sim.storage_url.startswith("https://")
        assert client.get(whole).content == sim.audio(1)
        assert client.get(late).content == sim.audio(5)
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(truncated)
        # OpenSSL reports RST within a record as an end of file: either error may come.
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            client.get(reset)
        with pytest.raises(httpx.ReadTimeout):
            client.get(stalled, timeout=0.2)
    assert sim.stats()["storage_requests_with_api_key"] == 0


def test_a_certificate_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    """A wrong file is named."""
    path = tmp_path / "cert.pem"
    path.write_text("not a certificate")

    with pytest.raises(SimulatorError, match=r"cannot use certificate .*cert\.pem"):
        Simulator(certfile=path).__enter__()


def test_options_can_be_replaced_while_it_runs(sim: Simulator) -> None:
    """New options and new rules hold from then on."""
    sim.set_options(SimulatorOptions(finish_after=3600))
    assert ask(sim, 1, 2).json() == {}

    sim.set_options(SimulatorOptions(audio_format="flac", min_size=1000, max_size=1000))
    assert httpx.get(url_of(sim, 1)).content.startswith(b"fLaC")

    sim.set_rules([{"runs": "1", "where": "api", "fault": "word"}])
    assert ask_one(sim, 1).json()["status"] == "ERROR"


def test_no_fault_makes_a_noise(
    start_sim: StartSim, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is broken on purpose, nothing is written to stderr or to a log."""
    at_the_api, at_the_storage = (
        [kind for kind, entry in faults.items() if not entry.connection]
        for faults in (API_FAULTS, STORAGE_FAULTS)
    )
    rules = [Rule.of(number, "api", kind) for number, kind in enumerate(at_the_api, 100)]
    # The drip is quick enough to end within the test.
    rules += [
        Rule.of(number, "storage", kind, **QUICK.get(kind, {}))
        for number, kind in enumerate(at_the_storage, 200)
    ]
    sim = start_sim(*rules, min_size=512, max_size=512)

    with httpx.Client(timeout=0.1, headers={"x-api-key": "k"}) as client:
        for number in range(100, 100 + len(at_the_api)):
            with contextlib.suppress(httpx.TransportError):
                client.get(f"{sim.api_url}/text-to-sound-result/{number}?output_type=file_url")
            with contextlib.suppress(httpx.TransportError):
                client.post(f"{sim.api_url}/text-to-sound-results", json={"run_ids": [number, 1]})
    for number in range(200, 200 + len(at_the_storage)):
        url = url_of(sim, number)
        for headers in ({}, {"range": "bytes=500-"}):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(url, headers=headers, timeout=0.1)

    assert capfd.readouterr().err == ""
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
    expected = {f"api:{kind}" for kind in at_the_api}
    expected |= {f"storage:{kind}" for kind in at_the_storage}
    assert set(sim.stats()["faults"]) == expected


def test_many_at_once(start_sim: StartSim) -> None:
    """The highest number of requests in flight is counted."""
    sim = start_sim(Rule.of("*", "storage", "stall"))
    urls = [url_of(sim, run_id) for run_id in range(1, 6)]
    connections = []
    for url in urls:
        connection = httpx.Client(timeout=5)
        answer = connection.send(connection.build_request("GET", url), stream=True)
        connections.append((connection, answer))

    assert sim.stats()["storage"]["highest_in_flight"] == 5
    for connection, answer in connections:
        answer.close()
        connection.close()
