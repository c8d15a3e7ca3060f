from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from children import Child
from store.driving import Driver, at, key, published, signed_url

from downloader.rules.steps import UrlReceived
from downloader.store import control, leases
from downloader.store.leases import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 500


def claim_pending(driver: Driver) -> list[int]:
    """Claim batches until nothing is due; return every run claimed."""
    found: list[int] = []
    while batches := driver.claim_due(most=5, soon=9):
        found += [run.key.run_id for batch in batches for run in batch.runs]
    return found


def claim_ready(driver: Driver) -> list[int]:
    """Claim runs with a URL until none is left; return every run claimed."""
    found: list[int] = []
    while claimed := driver.claim_ready(most=3).claimed:
        found += [claim.run.key.run_id for claim in claimed]
    return found


PROCESS = """
import sys
from contextlib import closing
from downloader.store.migrate import open_database
from store import test_claim_races
from store.driving import Driver

with closing(open_database(sys.argv[1])) as database:
    print("ready", flush=True)
    sys.stdin.readline()
    print(*getattr(test_claim_races, sys.argv[2])(Driver(database)))
"""


@pytest.fixture
def full(driver: Driver) -> Driver:
    """Drive a database with runs enough in both queues."""
    driver.submit(*range(1, RUNS + 1))
    driver.poll(*range(1, RUNS + 1), step=UrlReceived(signed_url(1), None, None))
    driver.submit(*range(RUNS + 1, 2 * RUNS + 1))
    return driver


BOTH = pytest.mark.parametrize(
    ("claim_all", "runs"),
    [(claim_ready, range(1, RUNS + 1)), (claim_pending, range(RUNS + 1, 2 * RUNS + 1))],
)


def _assert_each_claimed_once(driver: Driver, found: list[list[int]], runs: range) -> None:
    assert Counter(run_id for ids in found for run_id in ids) == Counter(runs)
    leases = driver.query(
        "SELECT run_id, lease_owner FROM runs WHERE run_id BETWEEN ? AND ?", runs[0], runs[-1]
    )
    assert all(lease for _, lease in leases)


@BOTH
def test_threads(full: Driver, claim_all: Callable[[Driver], list[int]], runs: range) -> None:
    """Threads that claim at once share the runs out: each is claimed exactly once."""
    with ThreadPoolExecutor(6) as pool:
        drivers = [Driver(full.database, Owner()) for _ in range(6)]
        _assert_each_claimed_once(full, list(pool.map(claim_all, drivers)), runs)


@BOTH
def test_processes(full: Driver, claim_all: Callable[[Driver], list[int]], runs: range) -> None:
    """Processes that claim at once share the runs out: each is claimed exactly once."""
    tests = str(Path(__file__).parent.parent)
    processes = [
        Child(
            [sys.executable, "-c", PROCESS, str(full.database.path), claim_all.__name__],
            env=os.environ | {"PYTHONPATH": tests},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [
        [int(run_id) for run_id in process.communicate(timeout=60)[0].split()]
        for process in processes
    ]
    assert [process.returncode for process in processes] == [0] * 4
    _assert_each_claimed_once(full, found, runs)


def test_cancelling_against_publishing(driver: Driver) -> None:
    """Of a cancel and a publication at once exactly one wins, and both know which."""
    claims = driver.downloading(*range(1, 41))
    with ThreadPoolExecutor(2) as pool:

        def cancel() -> list[int]:
            return [
                claim.run.key.run_id
                for claim in claims
                if control.cancel(driver.database, [claim.run.key], at(1)).changed
            ]

        def publish() -> list[int]:
            return [
                claim.run.key.run_id
                for claim in reversed(claims)
                if driver.end([claim], published(claim.run.key.run_id), 1) == [True]
            ]

        first, second = pool.submit(cancel), pool.submit(publish)
        cancelled, done = first.result(), second.result()
    assert sorted(cancelled + done) == list(range(1, 41))
    expected = dict.fromkeys(cancelled, "cancelled") | dict.fromkeys(done, "done")
    assert driver.states() == expected


def test_rescuers_at_once(driver: Driver) -> None:
    """Each run whose lease ran out is put back by one rescuer, and told of once."""
    driver.downloading(*range(1, 101))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: leases.rescue(driver.database, at(100)), range(4)))
    assert Counter(one for rescued in found for one in rescued) == Counter(map(key, range(1, 101)))
    told = driver.query("SELECT count(*) FROM run_events WHERE reason = 'lease_ran_out'")
    assert told == [(100,)]
