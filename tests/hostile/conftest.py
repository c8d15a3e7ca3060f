"""What the tests of bad input share: raw servers, the command line, and a limit on patience."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from cli.calling import Caller
from transfer.engines import ENGINES
from transfer.wire import RawServer, Script

from downloader.camb.client import ApiClient
from downloader.store.migrate import open_database
from downloader.transfer.engine import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from downloader.transfer.engine import Engine


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings, proxies and certificates of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(("DOWNLOADER_", "CAMB_", "XDG_", "CREDENTIALS_")):
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[[Script], RawServer]]:
    """Start raw servers that end with the test: `serve(answering(ok(b"body")))`."""
    with contextlib.ExitStack() as stack:
        yield lambda script: stack.enter_context(RawServer(script))


@pytest.fixture
def make_client() -> Iterator[Callable[..., ApiClient]]:
    """Make API clients that are closed with the test: `make_client(url, answer_seconds=0.3)`."""
    with contextlib.ExitStack() as stack:

        def make(url: str, answer_seconds: float = 30) -> ApiClient:
            client = ApiClient(url, "test-key-0123456789", answer_seconds=answer_seconds)
            return stack.enter_context(contextlib.closing(client))

        yield make


@pytest.fixture(params=ENGINES)
def make_engine(request: pytest.FixtureRequest) -> Iterator[Callable[..., Engine]]:
    """Make engines of each kind, closed with the test: `make_engine(stall_seconds=0.3)`."""
    with contextlib.ExitStack() as stack:

        def make(stall_seconds: float = 30, connect_seconds: float = 10) -> Engine:
            timing = Timing(connect_seconds=connect_seconds, stall_seconds=stall_seconds)
            engine = ENGINES[request.param](timing, connections=4)
            return stack.enter_context(contextlib.closing(engine))

        yield make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty database; the file is for copying."""
    path = tmp_path_factory.mktemp("empty") / "runs.sqlite3"
    open_database(path).close()
    return path


@pytest.fixture
def call(
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Caller:
    """Call the command line in this process, with an empty database and an API that is down."""
    caller = Caller(tmp_path, monkeypatch, capsys)
    caller.set(
        HOME=str(tmp_path / "home"),
        DOWNLOADER_DATABASE=str(caller.database),
        DOWNLOADER_OUTPUT=str(tmp_path / "audio"),
        DOWNLOADER_API_URL="http://127.0.0.1:9/apis",
        DOWNLOADER_MIN_FREE="0",
        CAMB_API_KEY="test-key-0123456789",
    )
    shutil.copy(empty_database, caller.database)
    monkeypatch.chdir(tmp_path)
    return caller
