from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from inspecting.looking import Site

OURS = ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:8001", "[::1]", "[::1]:65535"]
OTHERS = [
    *("", "example.com", "example.com:8001", "127.0.0.1.example.com", "localhost.example.com"),
    *("notlocalhost", "127.0.0.1@example.com", "localhost:80:80", "127.0.0.2", "0.0.0", "[::]"),
    *("127.1", "2130706433", "localhost.", "::1", "127.0.0.1 example.com", "localhost/"),
]


@pytest.mark.parametrize("host", OURS)
def test_this_machine_is_answered(site: Site, host: str) -> None:
    """A request that names this machine is answered, through whatever port it came."""
    assert site.ask("/", host=host).status == 200


@pytest.mark.parametrize("path", ["/", "/downloader.json?sql=select+1", "/-/audio/text-to-sound/1"])
@pytest.mark.parametrize("host", OTHERS)
def test_another_name_is_refused(site: Site, host: str, path: str) -> None:
    """A request that names another host, as in DNS rebinding, gets nothing."""
    answer = site.ask(path, host=host)
    assert answer.status in (400, 403)  # 400: what the HTTP library itself takes for no host
    assert len(answer.content) < 100


def test_other_sites_may_not_read(site: Site) -> None:
    """No answer allows another site to read it, to load it into a page, or to frame it."""
    for path in ("/", "/downloader.json?sql=select+1", "/-/audio/text-to-sound/1", "/nothing"):
        answer = site.ask(path, Origin="https://example.com", Cookie="ds_actor=x")
        assert [name for name in answer.headers if name.startswith("access-control")] == []
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_it_listens_on_loopback_alone(site: Site) -> None:
    """The one address that is listened on is 127.0.0.1."""
    listening = [
        one.laddr
        for one in psutil.Process(site.process.pid).net_connections()
        if one.status == psutil.CONN_LISTEN
    ]
    assert [found.ip for found in listening] == ["127.0.0.1"]
