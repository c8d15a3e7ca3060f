"""No more transfers are at work than there are desks, and none keeps one while it waits."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from harness import wait_until
from transfer.bench import RUN_1, presigned

from downloader.rules.resume import NOTHING
from downloader.transfer.desks import Desks, processors
from downloader.transfer.engine import Timing
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.output import Output
from downloader.transfer.transfer import Order, transfer

if TYPE_CHECKING:
    from pathlib import Path

    from harness import StartSimulator
    from transfer.engines import MakeEngine


def test_there_is_one_for_each_processor() -> None:
    """There is at least one processor, and no more than the machine has."""
    assert 1 <= processors() <= 4096


def test_who_is_away_leaves_a_desk() -> None:
    """Whoever waits for something lets another work, and takes a desk again before going on."""
    desks = Desks(1)
    guard = Guard(60, desks)
    entered, order = threading.Event(), []

    def other() -> None:
        with desks:
            order.append("other")
            entered.set()

    with ThreadPoolExecutor(1) as pool, guard.away.at_desk():
        working = pool.submit(other)
        order.append("before")
        with guard.away:
            assert entered.wait(10)
        order.append("after")
        working.result(10)
    assert order == ["before", "other", "after"]


def test_a_pause_for_a_limit_is_spent_away() -> None:
    """A transfer that `--max-rate` holds back keeps no desk, and stops when it is told to."""
    desks = Desks(1)
    guard = Guard(60, desks)

    def limited() -> None:
        with guard.away.at_desk():
            guard.pause(600)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(limited)
        for _ in range(3):
            with desks:  # it is free while the other pauses
                pass
        guard.cancel()
        with pytest.raises(Interrupted):
            waiting.result(10)
        with desks:
            pass


def test_a_desk_that_is_forfeited() -> None:
    """The desk of a thread that hangs is another's; if it goes on it has none to give."""
    desks = Desks(1)
    hanging, others = Guard(60, desks), [Guard(60, desks) for _ in range(2)]
    with hanging.away.at_desk():
        hanging.away.forfeit()
        with others[0].away.at_desk(), ThreadPoolExecutor(1) as pool:
            with hanging.away:
                pass

            def sit() -> None:
                with others[1].away.at_desk():
                    pass

            waiting = pool.submit(sit)
            wait_until(lambda: others[1].away.waits_for_desk)
            assert others[1].is_alive(time.monotonic())
            with others[0].away:
                waiting.result(10)
    desks.take()  # just one is there
    desks.leave()


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
    """Two transfers that wait for bytes leave the only desk to a third, with either engine."""
    simulator = start_simulator(min_size=300_000, max_size=300_000)
    stalls = {"kind": "stall", "after": 100_000}
    simulator.set_rules([{"runs": [1, 2], "where": "storage", "fault": stalls}])
    desks, engine = Desks(1), make_engine(Timing())
    received = {1: 0, 2: 0, 3: 0}

    def save(run_id: int, guard: Guard) -> int:
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
        with guard.away.at_desk():
            return transfer(order, output, engine, guard).step.bytes

    with ThreadPoolExecutor(3) as pool:
        guards = {run_id: Guard(600, desks) for run_id in received}
        stalled = [pool.submit(save, run_id, guards[run_id]) for run_id in (1, 2)]
        wait_until(lambda: received[1] > 0 and received[2] > 0)
        assert pool.submit(save, 3, guards[3]).result(30) == 300_000
        for run_id in (1, 2):
            guards[run_id].cancel()
        for one in stalled:
            with pytest.raises(Interrupted):
                one.result(10)
