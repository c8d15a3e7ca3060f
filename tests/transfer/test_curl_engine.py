"""What the engine on libcurl promises beyond what every engine does."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from harness import wait_until
from transfer.wire import Collected, Peer, answering, fetch, fetch_into, head, ok

from downloader.rules.decisions import ProblemKind
from downloader.transfer.curl_answer import MAX_HEADER_BYTES
from downloader.transfer.curl_engine import CurlEngine
from downloader.transfer.engine import Timing, TransferError
from downloader.transfer.guard import Guard, Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transfer.engines import Serve

SOON_SECONDS = 10
"""Far less than the engine's time-outs here, far more than waking a thread takes."""


@pytest.fixture
def engine() -> Iterator[CurlEngine]:
    """Make an engine that by itself would wait for minutes."""
    patient = Timing(connect_seconds=120, stall_seconds=120)
    with contextlib.closing(CurlEngine(patient, connections=4)) as engine:
        yield engine


# ---------------------------------------------------------------------------------- cancelling


def test_woken_for_nothing(engine: CurlEngine, serve: Serve) -> None:
    """A transfer that is told to stop as it ends leaves no trace in the one after it."""
    server = serve(answering(ok(b"body")))
    for _ in range(20):
        guard = Guard(600)

        class Cancelling(Collected):
            def write(self, chunk: bytes, guard: Guard = guard) -> bool:
                guard.cancel()
                return super().write(chunk)

        with contextlib.suppress(Interrupted):
            fetch_into(engine, server.origin + "/x", Cancelling(), guard)
        assert fetch(engine, server.origin + "/y").body == b"body"


# -------------------------------------------------------------------------------------- answers


def test_callbacks_that_raise_are_not_printed(
    engine: CurlEngine, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a sink raises comes out of the transfer, and not on standard error."""

    class Raising(Collected):
        def write(self, chunk: bytes) -> bool:
            raise ValueError(chunk)

    server = serve(answering(ok(b"secret" * 100_000)))
    with pytest.raises(ValueError, match="secret"):
        fetch_into(engine, server.origin + "/x", Raising(), Guard(60))
    assert capfd.readouterr() == ("", "")


def test_redirect_without_a_body_keeps_the_connection(engine: CurlEngine, serve: Serve) -> None:
    """A redirect within one origin that has no body costs no new connection."""
    server = serve(answering(head(302, location="/y", content_length="0"), ok(b"body")))
    assert fetch(engine, server.origin + "/x").body == b"body"
    assert (server.connections, len(server.requests)) == (1, 2)


def test_size_of_a_head(engine: CurlEngine, serve: Serve) -> None:
    """A head may be of some size, and no more."""
    line = b"X-A: " + b"a" * 993 + b"\r\n"
    fits = (MAX_HEADER_BYTES - 1000) // len(line)

    def answer(lines: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line * lines + b"\r\n"

    server = serve(answering(answer(fits), answer(fits + 2)))
    assert len(fetch(engine, server.origin + "/x").headers["x-a"]) > fits * 993
    with pytest.raises(TransferError) as raised:
        fetch(engine, server.origin + "/x")
    assert raised.value.problem.kind is ProblemKind.TRANSIENT
    assert "larger" in raised.value.problem.error_message


def test_folded_header(engine: CurlEngine, serve: Serve) -> None:
    """A header that goes on in the next line, as it once could, is one line for us."""
    server = serve(answering(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\t 2\r\nContent-Length: 0\r\n\r\n"))
    found = fetch(engine, server.origin + "/x").headers
    assert found["x-a"].split() == ["1", "2"]
    assert found["content-length"] == "0"


def test_sessions_that_are_kept(serve: Serve) -> None:
    """No more connections are kept than was said, however many were in use at once."""

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(head(200, content_length="2"), b"x")
            wait_until(lambda: len(server.requests) >= 5)
            peer.send(b"y")

    server = serve(script)
    with (
        contextlib.closing(CurlEngine(Timing(), connections=2)) as engine,
        ThreadPoolExecutor(5) as pool,
    ):
        for outcome in [pool.submit(fetch, engine, server.origin + "/x") for _ in range(5)]:
            assert outcome.result(60).body == b"xy"
        for _ in range(3):
            assert server.closed.acquire(timeout=SOON_SECONDS)
        assert not server.closed.acquire(blocking=False)
        assert len(engine._idle) == 2


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127%2e0.0.1/x", "unusable_url"),
        ("http://a b/x", "unusable_url"),
        ("ftp://127.0.0.1/x", "unusable_url"),
        ("http://nobody.invalid/x", "storage_unreachable"),
    ],
)
def test_hosts_that_nobody_has(engine: CurlEngine, url: str, code: str) -> None:
    """A host goes to libcurl only in a form that it reads as we do."""
    with pytest.raises(TransferError) as raised:
        fetch(engine, url)
    assert raised.value.problem.error_code == code
