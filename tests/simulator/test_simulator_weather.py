"""Trouble of everybody: for some seconds, at one of the two services, and how it ends."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import socket
import ssl
import threading
import time
import zlib
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from simulator.asking import KEY, ask, ask_one, url_of

from downloader.simulator.catalogue import DIGESTS, Place
from downloader.simulator.errors import SimulatorError
from downloader.simulator.options import SimulatorOptions
from downloader.simulator.rules import Rule, RuleBook
from downloader.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulator.asking import StartSim

PAUSE = threading.Event()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, which the suite's own time-out ends."""
    while not condition():
        PAUSE.wait(0.01)


def meets(sim: Simulator, fault: str) -> None:
    """Wait until a fault of connections is acted out."""
    until(lambda: fault in sim.stats()["faults"])


def test_a_rule_is_on_for_some_seconds(sim: Simulator) -> None:
    """`during` counts from when the rules were given: before it and after it all is well."""
    url = url_of(sim, 1)
    rule = {"where": "storage", "fault": {"kind": "status", "status": 503}}

    sim.set_rules([rule | {"during": [0, None]}])
    assert httpx.get(url).status_code == 503
    sim.set_rules([rule | {"during": [0, 0.3]}])
    until(lambda: httpx.get(url).status_code == 200)
    sim.set_rules([rule | {"during": [3600, None]}])
    assert httpx.get(url).status_code == 200


def test_which_seconds_those_are() -> None:
    """The first second is in, the last one out; a rule that is not on counts nothing."""
    book = RuleBook([Rule.of("*", "api", "reset", during=(30, 90), times=1)])

    def is_met(elapsed: float, run_id: int) -> bool:
        return book.fault(Place.API, "tts", run_id, elapsed=elapsed) is not None

    assert [is_met(at, 1) for at in (0, 29.9, 30, 31)] == [False, False, True, False]
    assert [is_met(at, 2) for at in (90, 89.9)] == [False, True]


def test_a_rule_may_be_for_one_endpoint(start_sim: StartSim) -> None:
    """Each of the API's two endpoints can be ill while the other one is well."""
    sim = start_sim(Rule.of("*", "api", "status", status=520, endpoint="bulk"))

    assert (ask(sim, 1, 2).status_code, ask_one(sim, 1).status_code) == (520, 200)
    sim.set_rules([Rule.of("*", "api", "status", status=422, endpoint="single")])
    assert (ask(sim, 1, 2).status_code, ask_one(sim, 1).status_code) == (200, 422)


@pytest.mark.parametrize("during", [7, [1], [1, 1], [2, 1], [-1, 5], ["0", 5], [0, float("nan")]])
def test_seconds_that_are_none(during: object) -> None:
    """What is no time is refused, and told how it is to be written."""
    with pytest.raises(SimulatorError, match=r"during must be \[from, until\]"):
        Rule.of("*", "api", "reset", during=during)


@pytest.mark.parametrize(
    "more", [{"where": "storage", "endpoint": "bulk"}, {"where": "api", "endpoint": "lone"}]
)
def test_endpoints_that_are_none(more: dict[str, Any]) -> None:
    """Only the API has endpoints, and only two."""
    with pytest.raises(SimulatorError, match="endpoint is bulk or single"):
        Rule.parse({"fault": "reset"} | more)


@pytest.mark.parametrize(
    "more", [{"runs": "1"}, {"times": 1}, {"probability": 0.5}, {"run_type": "tts"}]
)
def test_a_fault_of_connections_is_of_all_runs(more: dict[str, Any]) -> None:
    """What befalls a connection cannot depend on what is asked for over it."""
    with pytest.raises(SimulatorError, match="befalls connections"):
        Rule.parse({"where": "storage", "fault": "refuse"} | more)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("refuse", httpx.ConnectError),
        ("drop", httpx.ConnectTimeout),
        ("hang", httpx.ReadTimeout),
        (
            "abort",
            (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError),
        ),
    ],
)
def test_no_connection_for_a_while(
    sim: Simulator, kind: str, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    """Connections to the storage fail as the fault says, those to the API do not; then all is well.

    A connection that was open when it began is closed.
    """
    url = url_of(sim, 1)
    with httpx.Client(timeout=0.5) as client:
        assert client.get(url).status_code == 200
        sim.set_rules([Rule.of("*", "storage", kind)])
        meets(sim, f"storage:{kind}")
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, *_all(error))):
            client.get(url)
        with pytest.raises(error):
            client.get(url)
        assert ask(sim, 1, 2).status_code == 200
        assert sim.stats()["faults"] == {f"storage:{kind}": 1}
        sim.set_rules([])
        until(lambda: _answers(client, url))


def _all(error: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return error if isinstance(error, tuple) else (error,)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_an_api_out_of_reach_for_a_while(sim: Simulator) -> None:
    """The API may be what no connection leads to, by the seconds of its rule."""
    url = url_of(sim, 1)
    sim.set_rules([Rule.of("*", "api", "refuse", during=(0, 0.4))])
    meets(sim, "api:refuse")
    with pytest.raises(httpx.ConnectError):
        ask(sim, 1, 2)
    assert httpx.get(url).status_code == 200

    def is_back() -> bool:
        try:
            return ask(sim, 1, 2).status_code == 200
        except httpx.TransportError:
            return False

    until(is_back)


def test_it_ends_while_connections_fail() -> None:
    """A simulator that is ended amid such a fault gives its ports back."""
    for kind in ("refuse", "drop", "hang", "abort"):
        with Simulator(SimulatorOptions(rules=(Rule.of("*", "storage", kind),))) as sim:
            meets(sim, f"storage:{kind}")
            port = int(urlsplit(sim.storage_url).port or 0)
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("expired", "certificate has expired"),
        ("not-yet", "certificate is not yet valid"),
        ("other-name", "IP address mismatch"),
        ("other-authority", "unable to get local issuer certificate|self.signed"),
    ],
)
def test_a_certificate_that_is_wrong_for_a_while(tmp_path: Path, what: str, says: str) -> None:
    """A client that trusts the authority refuses the storage, and goes on with the API."""
    authority = tmp_path / "authority.pem"
    with (
        Simulator(SimulatorOptions(min_size=4096, max_size=4096), https=authority) as sim,
        httpx.Client(verify=ssl.create_default_context(cafile=str(authority))) as client,
    ):
        where, runs = f"{sim.api_url}/tts-results", {"run_ids": [1, 2]}
        url = client.post(where, json=runs, headers=KEY).json()["1"]["output_url"]
        assert client.get(url).content == sim.audio(1, "tts")
        sim.set_rules([{"where": "storage", "fault": {"kind": "certificate", "what": what}}])
        meets(sim, "storage:certificate")
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)):
            client.get(url)
        with pytest.raises(httpx.ConnectError, match=says):
            client.get(url)
        assert client.post(where, json=runs, headers=KEY).status_code == 200
        sim.set_rules([])
        until(lambda: _answers(client, url))


def test_certificates_need_an_authority(sim: Simulator, tmp_path: Path) -> None:
    """Without one there is nothing to be wrong, and one is made or given, not both."""
    with pytest.raises(SimulatorError, match="needs --https"):
        sim.set_rules([Rule.of("*", "api", "certificate")])
    path = tmp_path / "none.pem"
    with pytest.raises(SimulatorError, match="not both"):
        Simulator(https=path, certfile=path)
    with pytest.raises(SimulatorError, match="cannot write"):
        Simulator(https=tmp_path / "no such folder" / "authority.pem")


def test_from_https_to_http(tmp_path: Path) -> None:
    """A redirect may lead to plain http, where the file is served too."""
    authority = tmp_path / "authority.pem"
    trust = httpx.Client(verify=False)  # noqa: S501 - what is refused here is not the certificate
    options = SimulatorOptions(rules=(Rule.of(1, "storage", "redirect", to="plain"),))
    with Simulator(options, https=authority) as sim, trust as client:
        where, runs = f"{sim.api_url}/tts-results", {"run_ids": [1, 2]}
        location = client.get(
            client.post(where, json=runs, headers=KEY).json()["1"]["output_url"]
        ).headers["location"]
        assert location.startswith("http://")
        assert sim.stats()["storage"]["by_http"] == 0
        assert client.get(location).content == sim.audio(1, "tts")
        assert sim.stats()["storage"]["by_http"] == 1


def test_the_page_of_a_network_that_wants_a_login(start_sim: StartSim) -> None:
    """It comes with 403 or 200, or by way of a redirect, and may say when to come again."""
    sim = start_sim(
        Rule.of(1, "storage", "error-page", form="html", status=403, retry_after=7),
        Rule.of(2, "storage", "redirect", to="portal"),
        Rule.of("7,8", "api", "not-json", status=511, retry_after=7),
    )

    page = httpx.get(url_of(sim, 1))
    assert (page.status_code, page.headers["content-type"]) == (403, "text/html")
    assert page.headers["retry-after"] == "7"
    portal = httpx.get(url_of(sim, 2), follow_redirects=True)
    assert (portal.status_code, "log in" in portal.text) == (200, True)
    answer = ask(sim, 7, 8)
    assert (answer.status_code, answer.headers["retry-after"]) == (511, "7")
    assert "<html>" in answer.text


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("api", "empty"),
        ("api", "other-shape"),
        ("api", "redirect"),
        ("storage", "expired"),
        ("storage", "late"),
        ("storage", "redirect"),
        ("storage", "empty"),
    ],
)
def test_any_answer_may_ask_for_a_wait(start_sim: StartSim, where: str, kind: str) -> None:
    """Retry-After goes with other answers than 429 and 503."""
    sim = start_sim(Rule.of("*", where, kind, retry_after=9))
    answer = ask(sim, 1, 2) if where == "api" else httpx.get(url_of(sim, 1))

    assert answer.headers["retry-after"] == "9"


@pytest.mark.parametrize("store", ["s3", "s3-temporary", "r2", "b2", "gcs", "azure"])
def test_a_url_that_is_good_later(start_sim: StartSim, store: str) -> None:
    """It says from when on, and is refused until then, and lives from then on."""
    sim = start_sim(Rule.of(1, "api", "url-later", seconds=600), store=store, url_lifetime=60)
    url = url_of(sim, 1)

    refused = httpx.get(url)

    assert refused.status_code == 403
    assert "not valid" in refused.text
    assert "expired" not in refused.text
    sim.set_options(SimulatorOptions(clock_skew=602, store=store, min_size=4096, max_size=4096))
    assert httpx.get(url).content == sim.audio(1)
    sim.set_options(SimulatorOptions(clock_skew=1300, store=store))
    assert httpx.get(url).status_code in (400, 401, 403)


@pytest.mark.parametrize("store", ["s3-v2", "cloudfront"])
def test_a_url_without_a_beginning(start_sim: StartSim, store: str) -> None:
    """Where a store's URLs do not say from when on they are good, they are good at once."""
    sim = start_sim(Rule.of(1, "api", "url-later", seconds=600), store=store)

    assert httpx.get(url_of(sim, 1)).content == sim.audio(1)


def test_an_object_that_comes_late(start_sim: StartSim) -> None:
    """It is missing for a while after its first URL was given; a newer URL changes nothing."""
    sim = start_sim(Rule.of("*", "storage", "late", seconds=0.5))
    url = url_of(sim, 1)
    begun = time.monotonic()

    assert httpx.get(url).status_code == 404
    until(lambda: httpx.get(url_of(sim, 1)).status_code == 200)
    assert 0.4 < time.monotonic() - begun < 30


def test_a_run_that_is_not_known(start_sim: StartSim) -> None:
    """It is not in a bulk answer, and 404 alone, however unfinished runs are told."""
    sim = start_sim(Rule.of(1, "api", "unknown"), single_unfinished="status", unfinished="status")

    assert set(ask(sim, 1, 2).json()) == {"2"}
    assert ask_one(sim, 1).status_code == 404
    assert ask_one(sim, 2).status_code == 200


def received(url: str, headers: dict[str, str]) -> bytes:
    """Send one GET on a connection that is kept, and read what comes within half a second."""
    parts = urlsplit(url)
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nhost: {parts.netloc}\r\n{fields}\r\n"
    got = b""
    with socket.create_connection((str(parts.hostname), parts.port or 80), 0.5) as connection:
        connection.sendall(request.encode())
        try:
            while chunk := connection.recv(65536):
                got += chunk
        except TimeoutError:
            pass
    return got


@pytest.mark.parametrize("place", ["api", "storage"])
def test_more_than_the_answer(start_sim: StartSim, place: str) -> None:
    """On a kept connection the answer comes twice, or an unasked 408 or stray bytes behind it."""
    sim = start_sim(
        *(
            Rule.of(number, place, "surplus", what=what)
            for number, what in enumerate(("answer", "timeout", "bytes"), 1)
        )
    )
    twice, late, stray = (
        received(
            f"{sim.api_url}/tts-result/{number}?output_type=file_url"
            if place == "api"
            else sim._state.presigned("tts", number),
            KEY if place == "api" else {},
        )
        for number in (1, 2, 3)
    )

    assert twice.count(b"HTTP/1.1 200 OK\r\n") == 2
    body = twice.rpartition(b"\r\n\r\n")[2]
    assert twice.count(body) == 2
    assert json.loads(body) if place == "api" else body == sim.audio(1, "tts")
    assert [part[:12] for part in late.split(b"HTTP/1.1")[1:]][-1].startswith(b" 408")
    assert stray.endswith(b"stray bytes\r\n")


def test_surplus_in_bulk(start_sim: StartSim) -> None:
    """A bulk answer comes twice, and another client's connection is not harmed."""
    sim = start_sim(Rule.of(1, "api", "surplus", times=1))

    assert set(ask(sim, 1, 2).json()) == {"1", "2"}
    assert set(ask(sim, 1, 2).json()) == {"1", "2"}
    assert sim.stats()["faults"] == {"api:surplus": 1}


def test_ranges_are_capped(start_sim: StartSim) -> None:
    """A range gets at most so many bytes, told by its Content-Range; a GET of all gets 200."""
    sim = start_sim(Rule.of(1, "storage", "partial", bytes=1000, unasked=False))
    url, truth = url_of(sim, 1), sim.audio(1)

    part = httpx.get(url, headers={"range": "bytes=500-"})
    assert (part.status_code, part.headers["content-range"]) == (206, "bytes 500-1499/4096")
    assert part.content == truth[500:1500]
    short = httpx.get(url, headers={"range": "bytes=4000-"})
    assert short.content == truth[4000:]
    assert httpx.get(url).content == truth
    assert httpx.get(url, headers={"range": "bytes=5000-"}).status_code == 416


@pytest.mark.parametrize(("cap", "told"), [(None, "0-4095"), (1000, "0-999")])
def test_a_part_that_nobody_has_asked_for(start_sim: StartSim, cap: int | None, told: str) -> None:
    """206 answers a GET of everything, with all of it or with its beginning."""
    sim = start_sim(Rule.of(1, "storage", "partial", bytes=cap))

    answer = httpx.get(url_of(sim, 1))

    assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes {told}/4096")
    assert answer.content == sim.audio(1)[:cap]


def test_last_modified_is_all_there_is(start_sim: StartSim) -> None:
    """Without ETag If-Range goes by the date, which may be too near to be a strong one."""
    sim = start_sim(Rule.of(1, "storage", "no-etag"), Rule.of(2, "storage", "no-etag", modified=5))
    url, whole = url_of(sim, 1), httpx.get(url_of(sim, 1))
    condition = {"range": "bytes=10-", "if-range": whole.headers["last-modified"]}

    assert "etag" not in whole.headers
    assert httpx.get(url, headers=condition).status_code == 206
    assert httpx.get(url, headers=condition | {"if-range": '"x"'}).status_code == 200
    near = httpx.get(url_of(sim, 2)).headers
    ago = parsedate_to_datetime(near["date"]) - parsedate_to_datetime(near["last-modified"])
    assert 4 <= ago.total_seconds() < 30


def told(header: str, content: bytes) -> str:
    """Return the value that a header of a digest has to have."""
    sha, md5 = (
        base64.b64encode(hashlib.new(name, content).digest()).decode() for name in ("sha256", "md5")
    )
    return {
        "content-md5": md5,
        "x-goog-hash": f"md5={md5}",
        "x-amz-checksum-sha256": sha,
        "x-amz-checksum-sha1": base64.b64encode(hashlib.sha1(content).digest()).decode(),  # noqa: S324 - S3's
        "x-amz-checksum-crc32": base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode(),
        "repr-digest": f"sha-256=:{sha}:",
        "content-digest": f"sha-256=:{sha}:",
        "digest": f"SHA-256={sha}",
        "etag": f'"{hashlib.md5(content).hexdigest()}"',  # noqa: S324 - S3's
    }[header]


@pytest.mark.parametrize("header", DIGESTS)
def test_digests_right_and_wrong(start_sim: StartSim, header: str) -> None:
    """A digest is of the file; or it is wrong; or it is right, and a byte of the file is not."""
    sim = start_sim(
        *(
            Rule.of(number, "storage", "digest", header=header, wrong=wrong)
            for number, wrong in enumerate(("nothing", "digest", "bytes"), 1)
        )
    )
    right, wrong, bent = (httpx.get(url_of(sim, number)) for number in (1, 2, 3))

    assert (right.content, wrong.content) == (sim.audio(1), sim.audio(2))
    assert right.headers[header] == told(header, sim.audio(1))
    assert wrong.headers[header] != told(header, sim.audio(2))
    assert bent.headers[header] == told(header, sim.audio(3))
    differing = [
        at
        for at, pair in enumerate(zip(bent.content, sim.audio(3), strict=True))
        if len(set(pair)) > 1
    ]
    assert differing == [2048]
    part = httpx.get(url_of(sim, 3), headers={"range": "bytes=2000-2099"}).content
    assert part == bent.content[2000:2100]


def test_a_part_has_a_digest_of_its_own(start_sim: StartSim) -> None:
    """What is of the bytes sent is not told of a part; what is of the whole is."""
    sim = start_sim(
        Rule.of(1, "storage", "digest", header="content-md5"),
        Rule.of(2, "storage", "digest", header="repr-digest"),
    )
    first, second = (
        httpx.get(url_of(sim, number), headers={"range": "bytes=9-"}).headers for number in (1, 2)
    )

    assert "content-md5" not in first
    assert second["repr-digest"] == told("repr-digest", sim.audio(2))


@pytest.mark.parametrize("word", ["aws-chunked", "gzip", "binary"])
def test_an_encoding_that_is_none(start_sim: StartSim, word: str) -> None:
    """Content-Encoding may name what was not done to the bytes."""
    sim = start_sim(Rule.of(1, "storage", "headers", headers={"content-encoding": word}))

    with httpx.stream("GET", url_of(sim, 1)) as answer:
        assert answer.headers["content-encoding"] == word
        assert b"".join(answer.iter_raw()) == sim.audio(1)


def test_an_object_that_is_stored_gzipped(start_sim: StartSim) -> None:
    """Length and ranges are those of the packed bytes."""
    sim = start_sim(Rule.of(1, "storage", "gzip"))
    url = url_of(sim, 1)
    with httpx.stream("GET", url) as answer:
        packed = b"".join(answer.iter_raw())
    with httpx.stream("GET", url, headers={"range": "bytes=100-"}) as answer:
        rest = b"".join(answer.iter_raw())

    assert gzip.decompress(packed) == sim.audio(1)
    assert (answer.status_code, rest) == (206, packed[100:])


def test_an_api_that_packs(start_sim: StartSim) -> None:
    """The API answers with gzip though identity was asked for, in bulk and alone."""
    sim = start_sim(Rule.of("*", "api", "gzip"))
    identity = KEY | {"accept-encoding": "identity"}
    alone = httpx.get(f"{sim.api_url}/tts-result/1?output_type=file_url", headers=identity)

    assert alone.headers["content-encoding"] == "gzip"
    assert "output_url" in alone.json()
    assert set(ask(sim, 1, 2).json()) == {"1", "2"}


def test_it_is_cut_each_so_many_bytes(start_sim: StartSim) -> None:
    """Each answer ends early, so that a file comes in as many pieces as its length makes."""
    sim = start_sim(Rule.of(1, "storage", "truncate", after=1500))
    url, got, requests = url_of(sim, 1), b"", 0
    while len(got) < 4096:
        requests += 1
        with httpx.stream("GET", url, headers={"range": f"bytes={len(got)}-"}) as answer:
            try:
                for chunk in answer.iter_raw():
                    got += chunk
            except httpx.RemoteProtocolError:
                continue

    assert (got, requests) == (sim.audio(1), 3)
