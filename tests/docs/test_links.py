from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import Counter
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest
import trustme
from links import Finding, Verdict, look, main, outside_links, report
from pages import PAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def local_links(page: Path) -> Iterator[str]:
    """Yield the links of a page that lead into the repository."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)|(?:href|src)=\"([^\"]+)\"", text):
        if "://" not in "".join(target):
            yield "".join(target)


def anchors(page: Path) -> set[str]:
    """Return what a link may name in a page: its headings, as GitHub writes them."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    headings = (heading.strip().lower() for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    met: Counter[str] = Counter()
    found = set()
    for heading in headings:
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading)).replace(" ", "-")
        found.add(f"{slug}-{met[slug]}" if met[slug] else slug)
        met[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links(page: Path) -> None:
    """Every link of a page leads to a file that is there, and to a heading that is in it."""
    for target in local_links(page):
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name}: {target}"


def test_anchors(tmp_path: Path) -> None:
    """A heading is named as GitHub names it: without marks, and counted where it comes again."""
    (tmp_path / "page.md").write_text(
        "# The `first` one, _there_\n## Again\n```sh\n# no heading\n```\n## [Again](x.md)\n"
    )
    assert anchors(tmp_path / "page.md") == {"the-first-one-_there_", "again", "again-1"}


def test_which_links_lead_outside(tmp_path: Path) -> None:
    """Links are found with their places; those of this machine and of examples are no links."""
    (tmp_path / "docs/man").mkdir(parents=True)
    (tmp_path / "README.md").write_text(
        "One [page](https://site.org/a#part), (see https://site.org/a).\n"
        "http://127.0.0.1:8400/apis http://localhost/ http://[::1]/ https://storage.example/x\n"
        "https://www.example.com/ https://{host}.org/ `https://other.org/b?c=d`\n"
    )
    (tmp_path / "docs/man/one.1").write_text("[default: https://a\\-site.org/apis]\n")
    (tmp_path / "docs/picture.svg").write_text("http://www.w3.org/2000/svg")
    assert outside_links(tmp_path) == {
        "https://site.org/a": ["README.md:1", "README.md:1"],
        "https://other.org/b?c=d": ["README.md:3"],
        "https://a-site.org/apis": ["docs/man/one.1:1"],
    }


def test_this_project_has_links() -> None:
    """Links are found in pages, in unit files and in what the program prints."""
    found = outside_links(ROOT)
    assert any(place.startswith("README.md:") for place in found["https://docs.camb.ai"])
    assert any(place.startswith("docs/systemd/") for place in found["https://docs.camb.ai"])
    api = found["https://client.camb.ai/apis"]
    assert any(place.startswith("downloader/settings.py:") for place in api)


class Site(BaseHTTPRequestHandler):
    """A site with a page for each way in which a link can go."""

    asked: ClassVar[Counter[str]] = Counter()
    ended: ClassVar[threading.Event] = threading.Event()

    def do_HEAD(self) -> None:
        """Answer, or not."""
        self.asked[f"{self.command} {self.path}"] += 1
        if self.path == "/silent":
            self.ended.wait(60)
            return
        again = self.asked[f"{self.command} {self.path}"] > 1
        status = {
            "/moved": 301,
            "/round": 302,
            "/lost": 404,
            "/gone": 410,
            "/forbidden": 403,
            "/no-head": 405 if self.command == "HEAD" else 200,
            "/busy": 200 if again else 503,
        }.get(self.path, 200)
        self.send_response(status)
        if status in (301, 302):
            self.send_header("Location", "/there" if status == 301 else "/round")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - the server's own name

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve the site; yield its address."""
    Site.asked.clear()
    Site.ended.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
        finally:
            Site.ended.set()
            server.shutdown()
            thread.join()


VERDICTS: Final = {
    "/there": (Verdict.FOUND, "200"),
    "/moved": (Verdict.FOUND, "200"),
    "/no-head": (Verdict.FOUND, "200"),
    "/busy": (Verdict.FOUND, "200"),
    "/lost": (Verdict.BROKEN, "404"),
    "/gone": (Verdict.BROKEN, "410"),
    "/round": (Verdict.BROKEN, "it redirects without end"),
    "/forbidden": (Verdict.UNSURE, "403"),
    "/silent": (Verdict.UNREACHED, "no answer: timed out"),
}


def test_verdicts() -> None:
    """What is not there is broken; what has moved, is busy or knows no HEAD is found."""
    with served() as site:
        found = look([f"{site}{path}" for path in VERDICTS], timeout=1.0)
    assert {one.link.removeprefix(site): (one.verdict, one.why) for one in found} == VERDICTS
    assert Site.asked["HEAD /there"] == 2  # once, and once as where another has moved to
    assert Site.asked["GET /there"] == 0
    assert (Site.asked["HEAD /lost"], Site.asked["GET /lost"]) == (2, 2)


def test_bad_certificates() -> None:
    """A certificate that nobody vouches for is broken, where other sites can be reached."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with served(context) as site:
        [bad] = look([site])
    assert bad.verdict is Verdict.BROKEN
    assert bad.why.startswith("its certificate is bad: ")
    code, text = report([bad, Finding("https://site.org/", Verdict.FOUND, "200")], {site: ["a:1"]})
    assert code == 1
    assert text.startswith(f"a:1: {site}: broken: its certificate is bad")


def test_unknown_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is unknown is broken; one that nobody can tell of just now is not."""

    def unknown(host: str, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - as the original
        raise socket.gaierror(
            socket.EAI_NONAME if "unknown" in str(host) else socket.EAI_AGAIN, "told by the test"
        )

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # no test may depend on a resolver
    found = look(["http://unknown.site.org/", "http://other.site.org/"])
    assert [one.verdict for one in found] == [Verdict.BROKEN, Verdict.UNREACHED]
    assert found[0].why == "its host is unknown"


def test_the_report() -> None:
    """The report names each place of what is not found; only what is broken makes CI fail."""
    fine = Finding("https://a.org/", Verdict.FOUND, "200")
    unsure = Finding("https://b.org/", Verdict.UNSURE, "403")
    broken = Finding("https://c.org/", Verdict.BROKEN, "404")
    places = {"https://b.org/": ["README.md:1"], "https://c.org/": ["README.md:2", "docs/sql.md:3"]}
    assert report([fine, unsure], places) == (
        0,
        "README.md:1: https://b.org/: unsure: 403\nlinks to other sites: 2 checked, 0 broken",
    )
    code, text = report([fine, broken], places)
    assert code == 1
    assert text.splitlines() == [
        "README.md:2: https://c.org/: broken: 404",
        "docs/sql.md:3: https://c.org/: broken: 404",
        "links to other sites: 2 checked, 1 broken",
    ]


def test_no_way_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no site can be reached one line says that nothing was checked, and CI goes on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    monkeypatch.setattr("links.outside_links", lambda _root: {closed: ["README.md:1"]})
    assert main() == 0
    told = capsys.readouterr().out
    assert told.startswith(f"links to other sites: NOT checked: none can be reached ({closed}: ")
    assert told.count("\n") == 1


def test_a_broken_link_ends_ci(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CI asks for the links, and ends where one is broken."""
    assert "-m links" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    with served() as site:
        monkeypatch.setattr("links.outside_links", lambda _root: {f"{site}/lost": ["README.md:1"]})
        assert main() == 1
    assert f"README.md:1: {site}/lost: broken: 404\n" in capsys.readouterr().out
