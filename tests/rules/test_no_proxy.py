"""NO_PROXY: what people write, and whom it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.no_proxy import is_direct, read_no_proxy


@pytest.mark.parametrize(
    ("text", "directly", "by_proxy"),
    [
        ("*", ["http://a.example/", "https://[::1]/"], []),
        ("a.example", ["https://a.example/", "https://b.a.example:8/"], ["https://xa.example/"]),
        (".a.example", ["https://a.example/", "https://b.a.example/"], ["https://xa.example/"]),
        ("*.A.Example", ["https://a.example/", "https://b.a.example/"], ["https://xa.example/"]),
        ("a.example.", ["https://a.example/", "https://A.EXAMPLE./"], ["https://a.example.org/"]),
        ("a.example:8080", ["http://a.example:8080/"], ["http://a.example/"]),
        ("a.example:443", ["https://a.example/"], ["http://a.example/"]),
        ("https://a.example", ["https://a.example/"], ["http://a.example/"]),
        ("storage-*.example", ["https://storage-7.example/"], ["https://storage.example/"]),
        ("b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.de", ["https://xn--bcher-kva.de/"], []),
        ("localhost", ["http://localhost:9/"], ["http://127.0.0.1/"]),
        ("::1/128", ["http://[::1]/"], ["http://[::2]/", "http://127.0.0.1/"]),
        ("::1", ["http://[::1]:8/"], ["http://[::2]/"]),
        ("[::1]", ["http://[::1]/"], ["http://[::2]/"]),
        ("[::1]:8080", ["http://[::1]:8080/"], ["http://[::1]/"]),
        ("fd00::/8", ["http://[fd12:3::4]/"], ["http://[2001:db8::1]/", "http://fd00.example/"]),
        ("[fd00::]/8", ["http://[fd12:3::4]/"], ["http://[2001:db8::1]/"]),
        ("10.0.0.0/8", ["http://10.9.8.7/", "http://[::ffff:10.1.1.1]/"], ["http://11.0.0.1/"]),
        ("10.1.2.3/8", ["http://10.9.8.7/"], ["http://11.0.0.1/"]),
        ("10.0.0.0/255.0.0.0", ["http://10.9.8.7/"], ["http://11.0.0.1/"]),
        ("192.168.*", ["http://192.168.7.1/"], ["http://192.169.7.1/"]),
        ("127.0.0.1:80", ["http://127.0.0.1/"], ["http://127.0.0.1:81/"]),
        (" a.example ,, b.example c.example;", ["http://c.example/"], ["http://d.example/"]),
        ("a.example|10.0.0.0/8", ["http://a.example/", "http://10.1.1.1/"], []),
        ("", [], ["http://a.example/"]),
    ],
)
def test_what_is_understood(text: str, directly: list[str], by_proxy: list[str]) -> None:
    """Names with what is below them, networks, ports and schemes, as each program has them."""
    direct, others = read_no_proxy(text)
    assert others == ()
    assert [url for url in directly + by_proxy if is_direct(direct, url)] == directly


@pytest.mark.parametrize(
    "entry",
    ["::1/129", "10.0.0.0/33", "[::1", "a:b:c", "a.example:port", "10.0.0", "<local>", "300.1.1.1"],
)
def test_what_is_not_understood(entry: str) -> None:
    """What nobody can understand is named, and the rest holds."""
    direct, others = read_no_proxy(f"a.example,{entry},b.example")
    assert others == (entry,)
    assert is_direct(direct, "http://a.example/")
    assert is_direct(direct, "http://b.example/")


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """Whatever stands there, nothing is raised, and each entry is understood or named."""
    direct, others = read_no_proxy(text)
    assert is_direct(direct, "https://nobody.example:8443/") in (True, False)
    assert all(other in text for other in others)
