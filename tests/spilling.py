"""Finding secrets where they must not be: whole or in pieces, as they are or encoded."""

from __future__ import annotations

import base64
import logging
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from downloader.simulator.server import Simulator

API_KEY: Final = "cambKEY.7f3a9c1e5b8d2046-ZqWx"
"""The key of these tests: nothing else looks like a part of it."""

_PIECE: Final = 12
"""So many characters of a secret are one, too: an excerpt cuts it anywhere."""

_SIGNATURES: Final = frozenset(
    {"x-amz-signature", "x-goog-signature", "signature", "sig", "x-amz-security-token"}
)
_RUN: Final = re.compile(rb"[!-~]{%d,}" % _PIECE)


def signed(address: str, number: int = 1) -> str:
    """Return an address with a signature that nothing has issued."""
    return f"{address}?X-Amz-Expires=60&X-Amz-Signature={number:08x}" + "5ec2e7d0" * 7


def secrets_of(url: str) -> Iterator[str]:
    """Yield what of a presigned URL must not be shown: as it stands there, and decoded."""
    _, _, query = url.partition("?")
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name.lower() in _SIGNATURES:
            yield value
            yield dict(parse_qsl(parameter))[name]


@dataclass
class Secrets:
    """The key, and the signature of every URL that is known to be issued."""

    key: str = API_KEY
    urls: list[str] = field(default_factory=list)

    def watch(self, simulator: Simulator) -> None:
        """Take note of every URL that a simulator issues from now on, redirects included."""
        state = simulator._state
        issue = state.presigned

        def issuing(*arguments: Any, **options: Any) -> str:  # noqa: ANN401 - as the original takes them
            url = issue(*arguments, **options)
            self.urls.append(url)
            return url

        state.presigned = issuing  # type: ignore[method-assign] # for this simulator alone

    def also(self, url: str) -> str:
        """Take note of a URL that a test issues itself, and return it."""
        assert list(secrets_of(url)), "this URL has no signature"
        self.urls.append(url)
        return url

    def __call__(self, data: bytes | str, *, urls: Iterable[str] | None = None) -> list[str]:
        """Return the pieces of secrets in `data`; `urls` narrows down which are looked for."""
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        named = self.urls if urls is None else urls
        wanted = {self.key, *(one for url in named for one in secrets_of(url))}
        pieces = {
            one[start : start + _PIECE].encode()
            for one in wanted
            for start in range(len(one) - _PIECE + 1)
        }
        found = [
            run[start : start + _PIECE].decode()
            for run in _RUN.findall(raw)
            for start in range(len(run) - _PIECE + 1)
            if run[start : start + _PIECE] in pieces
        ]
        return found + [one for one in _encoded(self.key) if one in raw.decode("latin-1")]


def _encoded(secret: str) -> list[str]:
    raw = secret.encode()
    return [
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        quote(secret, safe=""),
        secret.encode("utf-16-le").decode("latin-1"),
        "".join(reversed(secret)),
    ]


class Listener(logging.Handler):
    """Keeps whatever any logger says, with its tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: list[str] = []
        self._last: logging.LogRecord | None = None
        self.speakers: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, as text; several loggers may hand on the same one."""
        if record is self._last:
            return
        self._last = record
        self.speakers.add(record.name)
        self.lines.append(f"{record.name}: {self.format(record)} {record.args!r}")

    @property
    def text(self) -> str:
        """Everything that was said."""
        return "\n".join(self.lines)


def cells(database: Path) -> Iterator[tuple[str, str, object]]:
    """Yield every value in a database, its table or view and its column, but for `runs.url`."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as raw:
        names = raw.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        for (name,) in names.fetchall():
            rows = raw.execute(f'SELECT * FROM "{name}"')  # noqa: S608 - a name of the schema
            columns = [column[0] for column in rows.description]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    if (name, column) != ("runs", "url"):
                        yield name, column, value


def rows_text(database: Path) -> str:
    """Return every value in a database but for `runs.url`, as one text."""
    return "\n".join(f"{name}.{column}: {value}" for name, column, value in cells(database))


def issued_in(database: Path) -> list[str]:
    """Return the URLs that `runs.url` holds now."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as raw:
        return [url for (url,) in raw.execute("SELECT url FROM runs WHERE url IS NOT NULL")]


def files_of(database: Path) -> list[Path]:
    """Return the database, its WAL, index, lock and backups, those that are there."""
    return sorted(database.parent.glob(f"{database.name}*"))


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and whatever hangs on to it, shown in a traceback or not."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def told_by(error: BaseException) -> str:
    """Return everything that an exception and its chain say, to people and to programmers."""
    return "\n".join(f"{one} {one!r} {one.args!r}" for one in chain_of(error))
