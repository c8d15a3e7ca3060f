"""The program's site as a browser sees it, without a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from harness import Program

SQL = "/downloader.json"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode()

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The body as JSON."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Site:
    """A site that a process serves."""

    url: str
    process: subprocess.Popen[str]
    program: Program

    def ask(
        self, path: str, method: str = "GET", *, host: str | None = None, **headers: str
    ) -> Answer:
        """Ask for a path as it is, with the headers that are given."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            hosts = [urlsplit(self.url).netloc if host is None else host]
            for name in [] if hosts == [""] else hosts:
                connection.putheader("Host", name)
            for header, value in headers.items():
                connection.putheader(header.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def select(self, sql: str, **parameters: object) -> Answer:
        """Ask what a statement answers, as rows of JSON."""
        return self.ask(f"{SQL}?{urlencode({'sql': sql, '_shape': 'arrays', **parameters})}")

    def rows(self, sql: str) -> list[list[Any]]:
        """Return the rows that a statement answers."""
        answer = self.select(sql)
        assert answer.status == 200, answer.text
        found: list[list[Any]] = answer.json["rows"]
        return found

    def table(self, relation: str, **arguments: object) -> list[dict[str, Any]]:
        """Return rows of a table as its JSON has them."""
        asked = urlencode({"_shape": "array", "_size": "max", **arguments})
        answer = self.ask(f"/downloader/{quote(relation)}.json?{asked}")
        assert answer.status == 200, answer.text
        found: list[dict[str, Any]] = answer.json
        return found


def address(process: subprocess.Popen[str]) -> str:
    """Return where a process says that its site is."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r" is shown at (http://127\.0\.0\.1:[0-9]+/)$", line):
            assert process.stdout.readline() == "Ctrl-C ends it.\n"
            return found[1]
    raise AssertionError(f"it has not said where its site is: {process.communicate()}")


@contextlib.contextmanager
def inspected(program: Program, *arguments: str) -> Iterator[Site]:
    """Serve the site for a while; it must end in peace, without a word on standard error."""
    with program.start("inspect", "--port", "0", *arguments) as process:
        try:
            yield Site(address(process), process, program)
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    ended = (process.returncode, out, err)
    assert ended == (0, "", ""), ended
