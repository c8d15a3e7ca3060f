"""Looking into the database for metrics: seldom, and without waiting long."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import pytest
from harness import wait_until
from metrics.scraping import Scrape
from prometheus_client import CollectorRegistry, generate_latest

from downloader.clock import utc_now
from downloader.errors import StoreError
from downloader.observe.exposition import Exposition
from downloader.observe.metrics import Figures, Live, Lookout
from downloader.observe.tally import DetailedTally
from downloader.service import _figures
from downloader.store.database import Database, database_url
from downloader.store.intake import submit
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOTHING = Figures({}, 0, None, ())


@pytest.fixture
def rollback(tmp_path: Path) -> Iterator[Database]:
    """Give a database whose writer keeps readers away, as one that was restored by hand may be."""
    path = tmp_path / "runs.sqlite3"
    with contextlib.closing(open_database(path)) as opened:
        submit(opened, "text-to-sound", [1, 2, 3], utc_now())
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    with contextlib.closing(Database(database_url(path))) as opened:
        yield opened


def told(lookout: Lookout) -> Scrape:
    """Return what Prometheus is told."""
    exposition = Exposition(DetailedTally())
    exposition.watch(lambda: Live(0, 8, 0, ()), lookout)
    registry = CollectorRegistry()
    registry.register(exposition)
    return Scrape(generate_latest(registry).decode())


def test_a_database_that_is_busy_holds_no_scrape_up(rollback: Database) -> None:
    """The last known figures are told at once, then that they are old, and new ones when it is."""
    lookout = Lookout(
        lambda: _figures(rollback), pause_seconds=0, patience_seconds=0.05, overdue_seconds=0.3
    )
    wait_until(lambda: told(lookout)("database_up") == 1)
    read_at = lookout.known_at
    with contextlib.closing(sqlite3.connect(rollback.path)) as raw:
        raw.execute("BEGIN EXCLUSIVE")
        raw.execute("UPDATE runs SET state = 'cancelled', next_attempt_at = NULL WHERE run_id = 1")
        began = time.monotonic()
        found = told(lookout)
        assert time.monotonic() - began < 5  # of the 30 seconds that a look waits for its turn
        assert found.of("runs", "state") == {"pending": 3}
        wait_until(lambda: told(lookout)("database_up") == 0)
        found = told(lookout)
        assert found.of("runs", "state") == {"pending": 3}
        assert found("database_read_timestamp_seconds") == pytest.approx(read_at)
        raw.execute("COMMIT")
    wait_until(lambda: told(lookout)("database_up") == 1)
    wait_until(lambda: told(lookout).of("runs", "state") == {"pending": 2, "cancelled": 1})


def test_a_database_that_cannot_be_read(rollback: Database) -> None:
    """Figures that nobody has ever read are left out, and those of before are told on."""
    path = rollback.path
    lookout = Lookout(lambda: _figures(rollback), pause_seconds=0)
    whole = path.read_bytes()
    path.write_bytes(b"no database at all" * 1000)
    found = told(lookout)
    assert found("database_up") == 0
    assert "downloader_runs" not in found.names
    assert found("blocked") == 0  # as far as this process knows
    path.write_bytes(whole)
    wait_until(lambda: told(lookout)("database_up") == 1)
    assert told(lookout).of("runs", "state") == {"pending": 3}
    path.write_bytes(b"no database at all" * 1000)
    wait_until(lambda: told(lookout)("database_up") == 0)
    assert told(lookout).of("runs", "state") == {"pending": 3}


def test_what_takes_long_is_looked_at_seldom() -> None:
    """After a look none is taken for 50 times as long as it took, however often one is asked."""
    looks: list[float] = []
    pause = threading.Event()

    def figures() -> Figures:
        looks.append(time.monotonic())
        pause.wait(0.05)
        return NOTHING

    lookout = Lookout(figures, pause_seconds=0)

    def looked_twice() -> bool:
        lookout.look()
        return len(looks) == 2

    wait_until(looked_twice)
    assert looks[1] - looks[0] >= 50 * 0.05


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_cheap_is_good_for_a_while(*, fails: bool) -> None:
    """However many ask at a time there is one look, and not the next before its time."""
    looks: list[int] = []
    held = threading.Event()

    def figures() -> Figures:
        looks.append(1)
        held.wait()
        if fails:
            raise StoreError
        return NOTHING

    lookout = Lookout(figures, pause_seconds=3600, patience_seconds=60)
    asking = [threading.Thread(target=lookout.look) for _ in range(20)]
    for one in asking:
        one.start()
    wait_until(lambda: len(looks) == 1)
    held.set()
    for one in asking:
        one.join()
    assert len(looks) == 1
    assert lookout.up == (not fails)


def test_the_last_look_is_a_new_one() -> None:
    """At the end what was read a moment ago, or is being read, is read anew."""
    looks: list[int] = []
    held = threading.Event()

    def figures() -> Figures:
        looks.append(1)
        if len(looks) == 2:
            held.wait()
        return Figures({"done": len(looks)}, 0, None, ())

    lookout = Lookout(figures, pause_seconds=3600, patience_seconds=0)

    def in_the_background(call: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=call)
        thread.start()
        return thread

    in_the_background(lookout.look).join()
    wait_until(lambda: lookout.known is not None)
    one = in_the_background(lookout.look_at_last)
    wait_until(lambda: len(looks) == 2)
    two = in_the_background(lookout.look_at_last)
    held.set()
    one.join()
    two.join()
    assert len(looks) == 3
    assert lookout.known is not None
    assert lookout.known.runs == {"done": 3}


def test_reasons_are_of_a_closed_list() -> None:
    """A block that somebody has written into the table by hand is `other`, whatever it says."""
    lookout = Lookout(lambda: Figures({}, 0, None, [("api", "by hand"), ("disk", "disk_full")]))
    exposition = Exposition(DetailedTally())
    exposition.watch(lambda: Live(0, 8, 0, [("api", "throttled"), ("nowhere", "x")]), lookout)
    registry = CollectorRegistry()
    registry.register(exposition)
    found = Scrape(generate_latest(registry).decode())
    blocked = {
        (labels["scope"], labels["reason"])
        for name, labels, value in found.samples()
        if name == "downloader_blocked" and value
    }
    assert blocked == {
        ("api", "other"),
        ("disk", "disk_full"),
        ("api", "no_answer"),
        ("other", "other"),
    }


def test_what_was_received_never_falls() -> None:
    """A transfer that is just being booked out of one sum and into the other leaves no dent."""
    received = iter([100, 40, 120])
    exposition = Exposition(DetailedTally())
    exposition.watch(lambda: Live(0, 8, next(received), ()), Lookout(lambda: NOTHING))
    registry = CollectorRegistry()
    registry.register(exposition)
    seen = [Scrape(generate_latest(registry).decode())("received_bytes_total") for _ in range(3)]
    assert seen == [100, 100, 120]
