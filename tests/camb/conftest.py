"""What the tests of the API client share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from transfer.wire import RawServer, Script

from downloader.camb.client import ApiClient

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

KEY = "test-key-0123456789"


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the proxies and certificates of whoever runs the tests out of them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Start raw servers that end with the test: `serve(answering(ok(b"{}")))`."""
    with contextlib.ExitStack() as stack:

        def start(script: Script, *, tls: ssl.SSLContext | None = None) -> RawServer:
            return stack.enter_context(RawServer(script, tls=tls))

        yield start


@pytest.fixture
def make_client() -> Iterator[Callable[..., ApiClient]]:
    """Make clients that are closed with the test: `make_client(url, answer_seconds=0.3)`."""
    with contextlib.ExitStack() as stack:

        def make(url: str, **seconds: float) -> ApiClient:
            return stack.enter_context(contextlib.closing(ApiClient(url, KEY, **seconds)))

        yield make
