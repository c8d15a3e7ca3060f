"""Asks for every page of other sites that this project names, and tells which are gone.

Run it in a checkout, from the folder `tests`: `python -m links`. It ends with 1 where a page is not
found, a host is unknown or a certificate is bad. Where nothing outside can be reached it says
so, and ends with 0.
"""

from __future__ import annotations

import re
import socket
import ssl
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urldefrag, urlsplit

import httpx
from pages import ROOT

from downloader import __version__
from downloader.settings import DEFAULT_API_URL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Places = dict[str, list[str]]
"""Where each link is, as `page:line`."""

_FILES: Final = ("*.md", "pyproject.toml", "docs/**/*", "downloader/**/*", "migrations/**/*.py")
_NOT_READ: Final = {".png", ".svg", ".pyc"}
_LINK: Final = re.compile(r"https?://[^\s<>\"'`\\()\[\]|]+")
_NOBODYS: Final = ("example", "invalid", "test", "localhost", "internal")
"""Names that are kept for examples and for networks of one's own (RFC 2606, RFC 6761)."""
_EXAMPLES: Final = ("example.com", "example.net", "example.org")

_AT_A_TIME: Final = 4
_TIMEOUT_SECONDS: Final = 20.0
_AGENT: Final = f"downloader-links/{__version__}"


class Verdict(Enum):
    """What became of a link."""

    FOUND = "found"
    BROKEN = "broken"
    UNSURE = "unsure"
    """The site answers, but with something that says nothing of the page, such as 403 or 503."""
    UNREACHED = "unreached"


class Finding(NamedTuple):
    """What became of a link, and why; `answered`: its site was reached."""

    link: str
    verdict: Verdict
    why: str
    answered: bool = True


def outside_links(root: Path) -> Places:
    """Return the links to other sites that a checkout has in what is read or printed."""
    found: Places = defaultdict(list)
    for path in sorted({path for glob in _FILES for path in root.glob(glob) if path.is_file()}):
        if path.suffix not in _NOT_READ:
            # In manual pages a hyphen is escaped.
            lines = path.read_text(encoding="utf-8").replace("\\-", "-").splitlines()
            for number, line in enumerate(lines, 1):
                for link in _links(line):
                    found[link].append(f"{path.relative_to(root)}:{number}")
    return dict(found)


def _links(line: str) -> Iterator[str]:
    for written in _LINK.findall(line):
        link, _ = urldefrag(written.rstrip(".,;:!?*"))
        host = urlsplit(link).hostname or ""
        _, dot, last = host.rpartition(".")
        is_name = bool(dot) and not last.isdigit() and "{" not in link
        if is_name and last not in _NOBODYS and not host.endswith(_EXAMPLES):
            yield link


def look(links: Sequence[str], *, timeout: float = _TIMEOUT_SECONDS) -> list[Finding]:
    """Ask for each link, a few at a time."""
    with (
        httpx.Client(
            follow_redirects=True, timeout=timeout, headers={"User-Agent": _AGENT}
        ) as client,
        ThreadPoolExecutor(_AT_A_TIME) as pool,
    ):
        return list(pool.map(partial(_ask_twice, client), links))


def _ask_twice(client: httpx.Client, link: str) -> Finding:
    first = _ask(client, link)
    return first if first.verdict is Verdict.FOUND else _ask(client, link)


def _ask(client: httpx.Client, link: str) -> Finding:
    """Ask for a link by HEAD, and by GET where that is not answered well: not all know HEAD."""
    try:
        status = client.head(link).status_code
        if status >= 400:
            with client.stream("GET", link) as answer:
                status = answer.status_code
    except httpx.TooManyRedirects:
        return Finding(link, Verdict.BROKEN, "it redirects without end")
    except httpx.HTTPError as error:
        return Finding(link, *_trouble(error), answered=False)
    if status < 400 or link == DEFAULT_API_URL:  # where requests begin, not a page
        return Finding(link, Verdict.FOUND, f"{status}")
    return Finding(link, Verdict.BROKEN if status in (404, 410) else Verdict.UNSURE, f"{status}")


def _trouble(error: BaseException) -> tuple[Verdict, str]:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Verdict.BROKEN, f"its certificate is bad: {cause.verify_message}"
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            return Verdict.BROKEN, "its host is unknown"
        cause = cause.__cause__ or cause.__context__
    return Verdict.UNREACHED, f"no answer: {str(error) or type(error).__name__}"


def report(findings: Sequence[Finding], places: Mapping[str, Sequence[str]]) -> tuple[int, str]:
    """Return the exit code and what to print.

    Where no site at all has answered, it is this machine that has no way out.
    """
    if findings and not any(one.answered for one in findings):
        link, _, why, _ = findings[0]
        return 0, f"links to other sites: NOT checked: none can be reached ({link}: {why})"
    lines = [
        f"{where}: {one.link}: {one.verdict.value}: {one.why}"
        for one in findings
        if one.verdict is not Verdict.FOUND
        for where in places[one.link]
    ]
    broken = sum(one.verdict is Verdict.BROKEN for one in findings)
    lines.append(f"links to other sites: {len(findings)} checked, {broken} broken")
    return int(broken > 0), "\n".join(lines)


def main() -> int:
    """Check the links of this checkout; return the exit code."""
    places = outside_links(ROOT)
    code, text = report(look(sorted(places)), places)
    sys.stdout.write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
