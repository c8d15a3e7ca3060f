from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hostile.hostile_values import odd_urls
from hypothesis import example, given
from hypothesis import strategies as st
from transfer.wire import Collected, RawServer, answering, fetch, fetch_into, head, ok, unused_port

from downloader.rules.answer_body import Finished, is_usable_url, verdict_of
from downloader.rules.decisions import ProblemKind
from downloader.rules.expiry import url_expires_at
from downloader.rules.hosts import Reach, may_redirect, reach_of
from downloader.rules.redaction import clean_text, redact_text, redact_url
from downloader.transfer.engine import TransferError
from downloader.transfer.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from transfer.wire import Peer, Script

    from downloader.rules.decisions import Problem
    from downloader.transfer.engine import Engine

    Serve = Callable[[Script], RawServer]
    MakeEngine = Callable[..., Engine]

SIGNATURE = "5ec2e7"


# ------------------------------------------------------------------------ what is a usable URL


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "/audio.wav", "//h/a", "http:", "http://", "http:///a", "https://?x"),
        *("file:///etc/passwd", "ftp://h/a", "javascript:alert(1)", "data:audio/wav;base64,AA"),
        *("gopher://h/", "http+unix://%2Ftmp/x", "http://u@h/", "http://u:p@h/", "http://@h/"),
        *("http://h/a\r\nX: y", "http://h/\n", "http://h h/a", "http://h/\t", "http://h/\0"),
        *("http://h/\x7f", "http://h/\u2028", "http://h/\ud800", "http://h\\@evil/", " http://h/"),
        *("http://h:0/", "http://h:99999/", "http://h:x/", "http://h:-1/", "http://h:\u0663/"),
        *("http://[::1", "http://[x]/", "http://]/", "http://h/" + "a" * 100_000),
    ],
)
def test_what_is_no_url_to_fetch(url: str) -> None:
    """What cannot be asked for as it stands is told from a URL, and the run is asked for again."""
    assert not is_usable_url(url)
    for entry in ({"output_url": url}, url):
        assert not isinstance(verdict_of(entry), Finished)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8400/a", "http://localhost/a", "http://169.254.169.254/a"),
        *(
            "http://10.0.0.1/a",
            "http://[::1]:9/a",
            "http://[fe80::1%25eth0]/a",
            "http://2130706433/",
        ),
        *(
            "https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/a",
            "https://xn--bcher-kva.example/a",
        ),
        "https://h/" + "a" * 16_000,
    ],
)
def test_what_the_api_itself_names(url: str) -> None:
    """A host of our own network is used where the API itself gives it."""
    assert verdict_of({"output_url": url}) == Finished(url, None)


def test_any_url_is_judged(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the place of a URL, asking for it ends in a problem, never an error."""
    # All roads lead to a proxy that is not there: no example asks anybody for anything.
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{unused_port()}")
    engine = make_engine()

    @given(url=odd_urls)
    @example("http://[")
    @example("http://h/\r\nX: y")
    @example("http://xn--/")
    @example("http://h/" + "a" * 70_000)
    @example("http://127%2e0.0.1/")
    def judge(url: str) -> None:
        url_expires_at(url)
        for shown in (redact_url(url), redact_text(url), clean_text(url)):
            assert isinstance(shown, str)
        with pytest.raises(TransferError) as raised:
            fetch_into(engine, url, Collected(), Guard(60))
        problem = raised.value.problem
        assert problem.error_code in ("unusable_url", "storage_unreachable")
        assert (problem.kind is ProblemKind.UNREACHABLE) == (
            problem.error_code == "storage_unreachable"
        )
        problem.error_message.encode()

    judge()


# ---------------------------------------------------------------------------------- redirects


def redirected(
    serve: Serve, make_engine: MakeEngine, location: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Problem, list[bytes]]:
    """Ask a storage that is on the internet; return what came of it, and who else was asked.

    All is asked for through a proxy, which knows that storage and nobody else.
    """
    asked: list[bytes] = []

    def proxy(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            line = request.split(b"\r\n")[0]
            if line.startswith(b"GET http://storage.example/x?"):
                peer.send(head(302, location=location, content_length="0"))
            else:
                asked.append(line)
                return

    monkeypatch.setenv("ALL_PROXY", serve(proxy).origin)
    with pytest.raises(TransferError) as raised:
        fetch(make_engine(), f"http://storage.example/x?X-Amz-Signature={SIGNATURE}")
    assert SIGNATURE not in str(raised.value)
    return raised.value.problem, asked


INSIDE = [
    *("http://127.0.0.1/", "http://127.1/", "http://0x7f.1/", "http://2130706433/", "http://0/"),
    *("http://localhost:8080/", "http://LOCALHOST./", "http://a.localhost/"),
    *("http://10.0.0.1/", "http://192.168.1.1/admin", "http://172.16.0.1/", "http://100.64.0.1/"),
    *("http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://[::]/"),
    *("http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fd00:ec2::254]/"),
    *("http://[::ffff:127.0.0.1]/", "http://[::ffff:a00:1]/", "http://[64:ff9b::7f00:1]/"),
    *("http://[2002:7f00:1::]/", "http://[::127.0.0.1]/", "//127.0.0.1/x", "https://224.0.0.1/"),
    *("http://255.255.255.255/", "http://192.0.2.1/"),
]


@pytest.mark.parametrize("location", INSIDE)
def test_redirects_into_our_network(
    serve: Serve, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """A storage on the internet cannot have us ask a host of our own network or machine."""
    problem, asked = redirected(serve, make_engine, location, monkeypatch)
    assert (problem.kind, problem.error_code) == (ProblemKind.WRONG_OBJECT, "unusable_redirect")
    assert asked == []
    assert "private network" in problem.error_message


@pytest.mark.parametrize(
    "location",
    [
        "http://93.184.216.34/",
        "https://[2606:4700::1111]/",
        "http://other.example/",
        "http://1.2.3/",
    ],
)
def test_redirects_on_the_internet(
    serve: Serve, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """A redirect from one host of the internet to another is followed."""
    problem, asked = redirected(serve, make_engine, location, monkeypatch)
    assert problem.error_code == "network"
    assert asked
    assert (urlsplit(location).hostname or "?").encode() in asked[0]


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "ftp://storage.example/", "javascript:alert(1)", "data:,x"),
        *("http://u:p@other.example/", "http://@other.example/", "//u@other.example/"),
        *("http://other.example:0/", "http://other.example:99999/", "http://[", "http:///x"),
        *("http://other.example/\x7f", "http://other.example\\@127.0.0.1/", "/" + "a" * 50_000),
    ],
)
def test_redirects_that_lead_nowhere(
    serve: Serve, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """Another scheme, credentials and impossible addresses are not followed."""
    problem, asked = redirected(serve, make_engine, location, monkeypatch)
    assert (problem.kind, problem.error_code) == (ProblemKind.WRONG_OBJECT, "unusable_redirect")
    assert asked == []


@pytest.mark.parametrize("location", ["/a b?c d", "/a\tb"])
def test_redirects_with_white_space(serve: Serve, make_engine: MakeEngine, location: str) -> None:
    """A space in a Location is meant as one; nothing else of the kind gets into a request."""
    server = serve(answering(head(302, location=location, content_length="0"), ok(b"body")))
    if " " in location:
        assert fetch(make_engine(), server.origin + "/x").body == b"body"
        assert server.requests[1].startswith(b"GET /a%20b?c%20d HTTP/1.1\r\n")
    else:
        with pytest.raises(TransferError):
            fetch(make_engine(), server.origin + "/x")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "line", [b"Location: /a\r\n X: y", b"Location: /a\rX: y", b"Location: \xff\xfe"]
)
def test_locations_with_line_breaks(serve: Serve, make_engine: MakeEngine, line: bytes) -> None:
    """A line break in a Location puts no line of its own into the next request."""
    server = serve(
        answering(b"HTTP/1.1 302 Found\r\n" + line + b"\r\nContent-Length: 0\r\n\r\n", ok(b"body"))
    )
    try:
        fetch(make_engine(stall_seconds=5), server.origin + "/x")
    except TransferError as error:
        assert error.problem.error_code in (  # noqa: PT017 - each of these is right
            "network",
            "storage_unreachable",
            "unusable_redirect",
            "too_many_redirects",
        )
    for request in server.requests:
        assert b"\r\nX:" not in request


def test_redirects_within_this_machine(serve: Serve, make_engine: MakeEngine) -> None:
    """Where the API's own URL is of this machine, its storage may redirect within it."""
    there = serve(answering(ok(b"body")))
    here = serve(answering(head(302, location=f"{there.origin}/y", content_length="0")))
    assert fetch(make_engine(), here.origin + "/x").body == b"body"


# ------------------------------------------------------------------------------ where hosts are


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("storage.example", Reach.INTERNET),
        ("localhost.example", Reach.INTERNET),
        ("", Reach.INTERNET),
        ("8.8.8.8", Reach.INTERNET),
        ("::ffff:8.8.8.8", Reach.INTERNET),
        ("256.1.1.1", Reach.INTERNET),
        ("1.2.3.4.5", Reach.INTERNET),
        ("10.1.2.3", Reach.PRIVATE),
        ("fc00::1", Reach.PRIVATE),
        ("ff02::1", Reach.PRIVATE),
        ("2002:a00:1::", Reach.PRIVATE),
        ("169.254.1.1", Reach.LINK),
        ("[fe80::1%eth0]", Reach.LINK),
        ("127.255.255.255", Reach.MACHINE),
        ("0.1.2.3", Reach.MACHINE),
        ("00000000000000000000000000177.1", Reach.MACHINE),
        ("ip6-localhost", Reach.MACHINE),
    ],
)
def test_reach(host: str, reach: Reach) -> None:
    """An address tells how far inside it is, in whatever form it is written."""
    assert reach_of(host) is reach


@pytest.mark.parametrize(
    ("there", "here", "allowed"),
    [
        ("storage.example", "8.8.8.8", True),
        ("storage.example", "10.0.0.1", False),
        ("10.0.0.1", "192.168.0.1", True),
        ("10.0.0.1", "storage.example", True),
        ("10.0.0.1", "169.254.169.254", False),
        ("10.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "169.254.169.254", True),
        ("localhost", "10.0.0.1", True),
    ],
)
def test_redirects_lead_out_never_in(there: str, here: str, allowed: bool) -> None:  # noqa: FBT001 - a column of the table
    """A redirect may lead as far inside as the URL that the API gave, and no farther."""
    assert may_redirect(there, here) is allowed


numbers = st.integers(0, 2**33) | st.sampled_from([0, 127, 255, 256, 65_535, 65_536, 2**24, 2**32])
parts = st.builds(
    lambda number, form: form.format(number),
    numbers,
    st.sampled_from(["{}", "0{:o}", "0x{:x}", "00{:o}"]),
) | st.sampled_from(["", "08", "0x", "-1", "+1", "1_0", "\u0661", "1e3", "0b1", "0o7"])


@given(st.lists(parts, min_size=1, max_size=5).map(".".join))
def test_old_addresses_are_read_as_the_system_reads_them(text: str) -> None:
    """What the system takes for an IPv4 address is judged as that address."""
    try:
        packed = socket.inet_aton(text)
    except (OSError, UnicodeError):
        return
    assert reach_of(text) is reach_of(str(ipaddress.IPv4Address(packed)))


@given(st.text(max_size=40) | st.ip_addresses().map(str))
def test_every_host_has_a_place(host: str) -> None:
    """Whatever is called a host, it is somewhere, and may redirect to where it is."""
    assert may_redirect(host, host)
