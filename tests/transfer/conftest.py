"""What the tests of transfers share: the engines, all of them, and raw servers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from transfer.engines import ENGINES, MakeEngine, Serve, make_engines
from transfer.wire import RawServer, Script

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from downloader.transfer.engine import Engine


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the proxies and certificates of whoever runs the tests out of them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=ENGINES)
def make_engine(request: pytest.FixtureRequest) -> Iterator[MakeEngine]:
    """Make engines of each kind: `make_engine(Timing(stall_seconds=0.3))`."""
    with contextlib.ExitStack() as stack:
        yield make_engines(request.param, stack)


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    """Give an engine of each kind, patient with silence."""
    return make_engine()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start raw servers: `serve(answering(ok(b"body")))`."""
    with contextlib.ExitStack() as stack:

        def start(script: Script, *, tls: ssl.SSLContext | None = None) -> RawServer:
            return stack.enter_context(RawServer(script, tls=tls))

        yield start
