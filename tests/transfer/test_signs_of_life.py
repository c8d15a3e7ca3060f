"""Who works on a transfer, and what becomes of the others where one waits or hangs."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from harness import wait_until
from transfer.bench import RUN_1, presigned
from transfer.wire import Collected, answering, fetch, fetch_into, ok

from downloader.rules.resume import NOTHING
from downloader.transfer import guard as guard_module
from downloader.transfer.engine import Timing
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.output import Output
from downloader.transfer.pool import ThreadPool
from downloader.transfer.transfer import Order, transfer

if TYPE_CHECKING:
    from pathlib import Path

    from harness import StartSimulator
    from transfer.engines import MakeEngine, Serve

SOON_SECONDS = 10


def test_signs_of_life() -> None:
    """A transfer is alive while it does something, waits for a thread, or waits as it may."""
    guard = Guard(60)
    assert guard.is_alive(time.monotonic() + 3600)  # no thread has begun it yet
    guard.begin()
    later = time.monotonic() + 0.001
    wait_until(lambda: time.monotonic() > later)
    assert not guard.is_alive(later)
    guard.check()
    assert guard.is_alive(later)
    guard.allow(100)
    assert guard.is_alive(later + 99)
    guard.cancel()
    assert not guard.is_hung
    with pytest.raises(Interrupted):
        guard.check()


def test_transfers_that_wait_keep_nobody(
    start_simulator: StartSimulator, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Transfers that wait for bytes stay alive, and leave the processors to another."""
    simulator = start_simulator(min_size=300_000, max_size=300_000)
    stalled = range(1, 9)
    stalls = {"kind": "stall", "after": 100_000}
    simulator.set_rules([{"runs": list(stalled), "where": "storage", "fault": stalls}])
    engine = make_engine(Timing())
    received = dict.fromkeys(range(1, 10), 0)
    guards = {run_id: Guard(600) for run_id in received}

    def save(run_id: int) -> int:
        output = Output(tmp_path / "audio", RUN_1.run_type)
        output.prepare()

        def progress(size: int) -> None:
            received[run_id] += size

        order = Order(
            RUN_1._replace(run_id=run_id),
            presigned(simulator, run_id),
            NOTHING,
            lambda _: True,
            progress,
            10**9,
        )
        return transfer(order, output, engine, guards[run_id]).step.bytes

    with ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(save, run_id) for run_id in stalled]
        wait_until(lambda: all(received[run_id] for run_id in stalled))
        assert pool.submit(save, 9).result(30) == 300_000
        if engine.name == "curl":
            now = time.monotonic()
            wait_until(lambda: all(guards[run_id].is_alive(now) for run_id in stalled))
            moving = [one for one in threading.enumerate() if one.name == "transfers"]
            assert len(moving) <= 2
        for run_id in stalled:
            guards[run_id].cancel()
        for one in waiting:
            with pytest.raises(Interrupted):
                one.result(10)


def test_a_write_that_hangs(
    make_engine: MakeEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writes hang, those that come later are made by others; what hung ends as it may."""
    monkeypatch.setattr(guard_module, "HUNG_SECONDS", 0.2)
    server = serve(answering(ok(b"body")))
    engine = make_engine()
    go, hanging = threading.Event(), threading.Semaphore(0)

    class Hanging(Collected):
        def write(self, chunk: bytes) -> bool:
            hanging.release()
            go.wait(60)
            return super().write(chunk)

    with ThreadPoolExecutor(3) as pool:
        hung = [pool.submit(fetch_into, engine, server.origin + "/x", Hanging()) for _ in range(2)]
        for _ in hung:
            assert hanging.acquire(timeout=SOON_SECONDS)
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 0.3)
        assert fetch(engine, server.origin + "/x").body == b"body"
        go.set()
        for one in hung:
            one.result(SOON_SECONDS)


def test_time_that_others_take(make_engine: MakeEngine, serve: Serve) -> None:
    """A transfer whose disk is slow makes no other's storage a silent one."""
    server = serve(answering(ok(b"body")))
    engine = make_engine(Timing(stall_seconds=0.5))
    pause = threading.Event()

    class Slow(Collected):
        def begin(self, status: int, headers: object) -> None:
            pause.wait(0.8)
            super().begin(status, headers)  # type: ignore[arg-type]

    with ThreadPoolExecutor(6) as pool:
        sinks = [Slow() for _ in range(6)]
        ends = [pool.submit(fetch_into, engine, server.origin + "/x", sink) for sink in sinks]
        for one in ends:
            one.result(60)
    assert {sink.body for sink in sinks} == {b"body"}


# --------------------------------------------------------------------------------- the pool


def test_threads_are_used_again() -> None:
    """No more threads than there are calls at a time, and no more than the pool may have."""
    pool, seen, over = ThreadPool("test", 2), set[int](), threading.Semaphore(0)

    def note() -> None:
        seen.add(threading.get_ident())
        over.release()

    for _ in range(5):
        pool.submit(note, Guard(60))
        assert over.acquire(timeout=SOON_SECONDS)
    assert len(seen) <= 2
    running, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(SOON_SECONDS)
        with lock:
            running -= 1
        over.release()

    for _ in range(6):
        pool.submit(work, Guard(60))
    wait_until(lambda: running == 2)
    go.set()
    for _ in range(6):
        assert over.acquire(timeout=SOON_SECONDS)
    assert most == 2
    pool.close()
    wait_until(lambda: not any(one.name == "test" for one in threading.enumerate()))


def test_a_thread_that_hangs_has_its_place_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that hangs after its transfer was told to stop keeps no other from a thread."""
    monkeypatch.setattr(guard_module, "HUNG_SECONDS", 0.1)
    pool, guard = ThreadPool("test", 1), Guard(60)
    go, back, other = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        go.wait(60)
        back.set()

    pool.submit(hang, guard)
    pool.submit(other.set, Guard(60))
    assert not other.wait(0.3)
    guard.cancel()
    assert other.wait(SOON_SECONDS)
    go.set()
    assert back.wait(SOON_SECONDS)
    pool.close()
    wait_until(lambda: not any(one.name == "test" for one in threading.enumerate()))
