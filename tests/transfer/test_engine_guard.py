"""What every engine does alike when it is told to stop, shared by threads, or given much."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import threading
import time
import tracemalloc
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest
from harness import wait_until
from transfer.wire import Collected, Peer, Script, answering, fetch, fetch_into, fields, head, ok

from downloader.transfer import guard as guard_module
from downloader.transfer.engine import Timing, TransferError
from downloader.transfer.files import allow_files
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.unusable import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from transfer.engines import MakeEngine, Serve

    from downloader.transfer.engine import Engine

MB = 1024 * 1024
SOON_SECONDS = 10
"""Far less than any time-out of the engine under test, far more than waking a thread takes."""


def stalls(*data: bytes) -> Script:
    """Answer a request with these bytes, and nothing more."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*data)
        peer.stall()

    return script


@contextlib.contextmanager
def fetching(
    engine: Engine, url: str, guard: Guard, sink: Collected | None = None
) -> Iterator[tuple[Future[None], Collected]]:
    """Fetch in another thread."""
    sink = sink or Collected()
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(fetch_into, engine, url, sink, guard), sink


@pytest.mark.parametrize(
    "answer",
    [
        head(200, content_length="1000") + b"x" * 500,
        head(200, transfer_encoding="chunked") + b"3\r\nabc\r\n",
        head(200) + b"x" * 500,
    ],
    ids=["length", "chunked", "no length"],
)
def test_cancel_wakes_a_stalled_transfer(
    make_engine: MakeEngine, serve: Serve, answer: bytes
) -> None:
    """A transfer that waits for bytes stops at once when it is told to, whatever its time-outs."""
    engine = make_engine(Timing(stall_seconds=120))
    server = serve(stalls(answer))
    guard = Guard(600)
    with fetching(engine, server.origin + "/x", guard) as (outcome, sink):
        assert sink.arrived.wait(SOON_SECONDS)
        guard.cancel()
        with pytest.raises(Interrupted):
            outcome.result(SOON_SECONDS)
    assert server.deserted.wait(SOON_SECONDS), "the connection was left open"


def test_cancel_before_the_body(make_engine: MakeEngine, serve: Serve) -> None:
    """A transfer whose headers have come is woken before the first byte of its body, too."""
    begun = threading.Event()

    class Told(Collected):
        def begin(self, status: int, headers: Mapping[str, str]) -> None:
            super().begin(status, headers)
            begun.set()

    engine = make_engine(Timing(stall_seconds=120))
    server = serve(stalls(head(200, content_length="1000")))
    guard = Guard(600)
    with fetching(engine, server.origin + "/x", guard, Told()) as (outcome, _):
        assert begun.wait(SOON_SECONDS)
        guard.cancel()
        with pytest.raises(Interrupted):
            outcome.result(SOON_SECONDS)


def test_cancel_before_the_headers(make_engine: MakeEngine, serve: Serve) -> None:
    """A transfer without an answer yet stops at the latest when the stall time-out is over."""
    asked = threading.Event()

    def silent(peer: Peer) -> None:
        peer.request()
        asked.set()
        peer.stall()

    engine = make_engine(Timing(stall_seconds=0.5))
    server = serve(silent)
    guard = Guard(600)
    with fetching(engine, server.origin + "/x", guard) as (outcome, _):
        assert asked.wait(SOON_SECONDS)
        guard.cancel()
        with pytest.raises(Interrupted):
            outcome.result(SOON_SECONDS)


def test_cancel_while_bytes_come(make_engine: MakeEngine, serve: Serve) -> None:
    """A transfer in full flow stops between two chunks."""

    def endless(peer: Peer) -> None:
        peer.request()
        peer.send(head(200))
        while True:
            peer.send(b"x" * 1000)

    class Few(Collected):
        def write(self, chunk: bytes) -> bool:
            self.received[:] = chunk
            self.arrived.set()
            return True

    engine = make_engine()
    server = serve(endless)
    guard = Guard(600)
    with fetching(engine, server.origin + "/x", guard, Few()) as (outcome, sink):
        assert sink.arrived.wait(SOON_SECONDS)
        guard.cancel()
        with pytest.raises(Interrupted):
            outcome.result(SOON_SECONDS)


def test_cancelled_beforehand(engine: Engine, serve: Serve) -> None:
    """A transfer that was told to stop before it began asks for nothing."""
    server = serve(answering(ok(b"body")))
    guard = Guard(600)
    guard.cancel()
    with pytest.raises(Interrupted):
        fetch(engine, server.origin + "/x", guard=guard)
    assert server.requests == []


def test_cancelled_transfer_leaves_the_others_alone(make_engine: MakeEngine, serve: Serve) -> None:
    """Telling one transfer to stop disturbs neither those beside it nor those after it."""
    finish = threading.Event()

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            peer.send(head(200, content_length="1000"), b"x" * 500)
            if request.startswith(b"GET /stalls"):
                peer.stall()
                return
            finish.wait(60)
            peer.send(b"x" * 500)

    engine = make_engine(Timing(stall_seconds=120))
    server = serve(script)
    stop, go_on = Guard(600), Guard(600)
    with (
        fetching(engine, server.origin + "/stalls", stop) as (stopped, first),
        fetching(engine, server.origin + "/goes-on", go_on) as (finished, second),
    ):
        assert first.arrived.wait(SOON_SECONDS)
        assert second.arrived.wait(SOON_SECONDS)
        stop.cancel()
        with pytest.raises(Interrupted):
            stopped.result(SOON_SECONDS)
        finish.set()
        finished.result(SOON_SECONDS)
    assert second.body == b"x" * 1000
    assert fetch(engine, server.origin + "/next").body == b"x" * 1000


def test_cancel_after_the_end(engine: Engine, serve: Serve) -> None:
    """Telling a finished transfer to stop does nothing to the connection it has given back."""
    server = serve(answering(ok(b"body")))
    guard = Guard(600)
    fetch(engine, server.origin + "/x", guard=guard)
    guard.cancel()
    assert fetch(engine, server.origin + "/y").body == b"body"
    assert server.connections == 1


def test_lease_ends_in_a_stall(make_engine: MakeEngine, serve: Serve) -> None:
    """A stall that outlasts the lease ends as an interruption, not as the storage's fault."""
    engine = make_engine(Timing(stall_seconds=0.4))
    server = serve(stalls(head(200, content_length="1000"), b"x"))
    with pytest.raises(Interrupted):
        fetch(engine, server.origin + "/x", guard=Guard(0.1))


def trickles(peer: Peer) -> None:
    """Send a byte now and then, for as long as the client is there."""
    peer.request()
    peer.send(head(200))
    pace = threading.Event()
    while True:
        peer.send(b"x")
        pace.wait(0.01)


def test_lease_ends_while_bytes_come(engine: Engine, serve: Serve) -> None:
    """A transfer stops when its lease ends, though nobody tells it to."""
    server = serve(trickles)
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        fetch(engine, server.origin + "/x", guard=Guard(0.2))
    assert 0.2 <= time.monotonic() - begun < SOON_SECONDS


def test_lease_counts_on_the_monotonic_clock(
    engine: Engine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wall clock that is set back does not prolong a lease."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(Interrupted):
        fetch(engine, serve(trickles).origin + "/x", guard=Guard(0.2))


def test_extended_lease(engine: Engine, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that is extended in time lets the transfer go on past its first end."""
    now = [0.0]
    monkeypatch.setattr(guard_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    release = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length="2"), b"x")
        release.wait(60)
        peer.send(b"y")

    server = serve(script)
    guard = Guard(10)
    with fetching(engine, server.origin + "/x", guard) as (outcome, sink):
        assert sink.arrived.wait(SOON_SECONDS)
        now[0] = 9
        guard.extend(10)
        now[0] = 18
        release.set()
        outcome.result(SOON_SECONDS)
    assert sink.body == b"xy"
    assert not guard.cancelled
    now[0] = 19
    assert guard.cancelled


def test_many_threads(make_engine: MakeEngine, serve: Serve) -> None:
    """Threads that share an engine each get their own bytes, over a connection each."""
    threads, each = 16, 10

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            name = request.split()[1]
            peer.send(ok(name * 3000, x_name=name.decode()))

    server = serve(script)
    engine = make_engine(connections=threads)

    def work(thread: int) -> None:
        for turn in range(each):
            name = f"/{thread}/{turn}"
            found = fetch(engine, server.origin + name, {"x-mine": name})
            assert found.headers["x-name"] == name
            assert found.body == name.encode() * 3000

    with ThreadPoolExecutor(threads) as pool:
        for outcome in [pool.submit(work, thread) for thread in range(threads)]:
            outcome.result(60)
    assert len(server.requests) == threads * each
    assert all(fields(sent)["x-mine"].encode() == sent.split()[1] for sent in server.requests)
    assert server.connections <= threads


def test_no_waiting_for_connections(make_engine: MakeEngine, serve: Serve) -> None:
    """More transfers than connections to be kept wait for nothing but their own bytes."""
    all_here = threading.Barrier(6)

    def script(peer: Peer) -> None:
        peer.request()
        all_here.wait(60)
        peer.send(ok(b"body"))

    server = serve(script)
    engine = make_engine(Timing(connect_seconds=5, stall_seconds=30), connections=1)
    with ThreadPoolExecutor(6) as pool:
        outcomes = [pool.submit(fetch, engine, server.origin + "/x") for _ in range(6)]
        assert {outcome.result(60).body for outcome in outcomes} == {b"body"}


def test_memory_stays_flat(engine: Engine, serve: Serve) -> None:
    """A body of 100 MB goes through in a few MB of memory."""
    piece = b"x" * MB

    def large(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length=str(100 * MB)))
        for _ in range(100):
            peer.send(piece)

    class Counting(Collected):
        count = 0
        largest = 0

        def write(self, chunk: bytes) -> bool:
            self.count += len(chunk)
            self.largest = max(self.largest, len(chunk))
            return True

    sink = Counting()
    server = serve(large)
    process = psutil.Process()
    before = process.memory_info().rss
    tracemalloc.start()
    try:
        fetch_into(engine, server.origin + "/x", sink, Guard(600))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sink.count == 100 * MB
    assert sink.largest <= MB
    assert peak < 8 * MB
    assert process.memory_info().rss - before < 50 * MB


def test_small_chunks_make_no_large_one(engine: Engine, serve: Serve) -> None:
    """A gzip bomb stays as small as it was sent."""
    bomb = bytes.fromhex("1f8b08000000000000ff") + b"\x00" * 1000
    server = serve(answering(ok(bomb, content_encoding="gzip")))
    assert fetch(engine, server.origin + "/x").body == bomb


class Slow(Collected):
    """A sink that takes its time, as one does that keeps to a rate or has a slow disk."""

    def write(self, chunk: bytes) -> bool:
        """Keep bytes, after a while."""
        threading.Event().wait(1.2)
        return super().write(chunk)


@pytest.mark.parametrize(
    "timing",
    [
        Timing(stall_seconds=1),
        Timing(floor_bytes_per_second=100_000, floor_after_seconds=1),
    ],
    ids=["stall", "floor"],
)
def test_time_of_the_sink(make_engine: MakeEngine, serve: Serve, timing: Timing) -> None:
    """What a sink takes for itself is no silence of the storage, nor does it make it slow."""
    sink = Slow()

    def took(size: int) -> bool:
        return len(sink.received) == size

    def pieces(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length="3"))
        for taken in range(3):
            wait_until(partial(took, taken))
            peer.send(b"x")

    fetch_into(make_engine(timing), serve(pieces).origin + "/x", sink)
    assert sink.body == b"xxx"


def test_closed_while_transfers_run(make_engine: MakeEngine, serve: Serve) -> None:
    """Closing an engine ends its idle connections; what runs ends well, or with a problem."""
    finish = threading.Event()

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            if request.startswith(b"GET /idle"):
                peer.send(ok(b"body"))
            else:
                peer.send(head(200, content_length="2"), b"x")
                finish.wait(60)
                peer.send(b"y")

    engine = make_engine(Timing(stall_seconds=60))
    server = serve(script)
    with fetching(engine, server.origin + "/x", Guard(600)) as (outcome, sink):
        assert sink.arrived.wait(SOON_SECONDS)
        fetch(engine, server.origin + "/idle")
        engine.close()
        assert server.closed.acquire(timeout=SOON_SECONDS), "an idle connection was left open"
        finish.set()
        try:
            outcome.result(SOON_SECONDS)
        except TransferError as error:
            assert error.problem.error_code == "network"  # noqa: PT017 - either outcome is right
        else:
            assert sink.body == b"xy"
    assert server.closed.acquire(timeout=SOON_SECONDS), "a connection was left open"


def test_descriptors_are_given_back(make_engine: MakeEngine, serve: Serve) -> None:
    """Whatever becomes of its transfers, a closed engine holds no descriptor."""
    process = psutil.Process()

    def fails(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length="5"), b"x")

    def use() -> None:
        engine = make_engine(connections=2)
        server = serve(fails)
        with ThreadPoolExecutor(6) as pool:
            for outcome in [pool.submit(fetch, engine, server.origin + "/x") for _ in range(12)]:
                with pytest.raises(TransferError):
                    outcome.result(60)
        engine.close()
        server.__exit__(None, None, None)

    use()  # what is opened once for all
    before = process.num_fds()
    for _ in range(5):
        use()
    gc.collect()
    assert process.num_fds() <= before


def test_no_descriptors_are_left(make_engine: MakeEngine, serve: Serve) -> None:
    """Where no more files can be opened it is the machine's trouble, not the storage's."""
    server = serve(answering(ok(b"body")))
    engine = make_engine()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # what is freed meanwhile would make room
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        with pytest.raises(DiskError, match="ulimit -n"):
            fetch(engine, server.origin + "/x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert fetch(engine, server.origin + "/x").body == b"body"


def test_files_are_allowed_for() -> None:
    """The limit on open files is raised to what is wanted, as far as it may be."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
        allow_files(150)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (150, limits[1])
        allow_files(120)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (150, limits[1])
        allow_files(2**62)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 150
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
