"""A limit on what all transfers receive together, over real sockets, with every engine."""

from __future__ import annotations

import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trustme
from transfer.wire import Collected, answering, fetch, fetch_into, head, ok

from downloader.rules.rates import CATCH_UP_SECONDS
from downloader.transfer import guard as guard_module
from downloader.transfer.engine import Timing
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.rate_limit import RateLimit

if TYPE_CHECKING:
    from pathlib import Path

    from transfer.engines import MakeEngine, Serve

BODY = bytes(range(256)) * 1000
SOON_SECONDS = 10


def test_transfers_together_keep_to_the_rate(make_engine: MakeEngine, serve: Serve) -> None:
    """Four at a time receive everything whole, and together no faster than they may."""
    rate = 1_000_000
    limited = make_engine(rate_limit=RateLimit(rate))
    server = serve(answering(ok(BODY)))
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(limited, server.origin + "/x"), range(8)))
    seconds = time.monotonic() - began
    assert [one.body for one in found] == [BODY] * 8
    assert 8 * len(BODY) <= rate * (seconds + CATCH_UP_SECONDS)


def test_a_transfer_held_back_is_not_a_slow_one(make_engine: MakeEngine, serve: Serve) -> None:
    """Neither the stall time-out nor the floor speed ends a transfer that waits for its turn."""
    timing = Timing(stall_seconds=0.3, floor_bytes_per_second=1_000_000, floor_after_seconds=0.3)
    limited = make_engine(timing, rate_limit=RateLimit(100_000))
    server = serve(answering(ok(BODY)))
    assert fetch(limited, server.origin + "/x").body == BODY


def test_cancelled_while_it_waits(make_engine: MakeEngine, serve: Serve) -> None:
    """A transfer that is to wait for minutes stops at once when it is told to."""
    engine = make_engine(rate_limit=RateLimit(1000))
    server = serve(answering(ok(BODY)))
    guard, sink = Guard(600), Collected()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(fetch_into, engine, server.origin + "/x", sink, guard)
        assert sink.arrived.wait(SOON_SECONDS)
        guard.cancel()
        with pytest.raises(Interrupted):
            outcome.result(SOON_SECONDS)


def test_another_rate_while_it_waits(make_engine: MakeEngine, serve: Serve) -> None:
    """A transfer that is to wait for minutes goes on as soon as it may."""
    limit = RateLimit(1000)
    engine = make_engine(rate_limit=limit)
    server = serve(answering(ok(BODY)))
    sink = Collected()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(fetch_into, engine, server.origin + "/x", sink)
        assert sink.arrived.wait(SOON_SECONDS)
        limit.change(None)
        outcome.result(SOON_SECONDS)
    assert sink.body == BODY


def test_paused_over_tls(
    make_engine: MakeEngine, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TLS has read ahead as a transfer was paused comes when it goes on."""
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    chunked = head(200, transfer_encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    server = serve(answering(ok(BODY), chunked), tls=context)
    limited = make_engine(Timing(stall_seconds=0.3), rate_limit=RateLimit(1_000_000))
    for _ in range(3):
        assert fetch(limited, server.origin + "/x").body == BODY
    assert server.connections == 1


def test_bytes_without_use_count_too(make_engine: MakeEngine, serve: Serve) -> None:
    """What a refusal brings, and what is thrown away unread, has been received all the same."""
    limit = RateLimit(100_000)
    server = serve(answering(head(403, content_length="30000") + b"x" * 30_000))
    sink = Collected(wanted=1)
    assert not limit.reached
    began = time.monotonic()
    fetch_into(make_engine(rate_limit=limit), server.origin + "/x", sink)
    assert sink.status == 403
    assert len(sink.body) <= 100_000 * (time.monotonic() - began + CATCH_UP_SECONDS)
    assert limit.book(0) == 0
    limit.book(50_000)
    assert limit.reached


def test_a_pause_ends_with_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that ends during a pause ends the transfer; one that is extended does not."""
    now = [0.0]
    monkeypatch.setattr(guard_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    guard = Guard(1.0)

    class Waiting:
        """Stands for the event that a pause waits on: the time passes, and nobody sets it."""

        def __init__(self, extend: int) -> None:
            self.extend = extend

        def is_set(self) -> bool:
            return False

        def wait(self, seconds: float) -> None:
            now[0] += seconds
            if self.extend:
                self.extend -= 1
                guard.extend(1.0)

    monkeypatch.setattr(guard, "_cancelled", Waiting(extend=3))
    guard.pause(3.5)
    assert now[0] == 3.5
    monkeypatch.setattr(guard, "_cancelled", Waiting(extend=0))
    with pytest.raises(Interrupted):
        guard.pause(3.5)
    assert now[0] == 4.0
