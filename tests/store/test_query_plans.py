from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from store.driving import TYPE, at, key, published, url_received

from downloader.camb.run_types import RUN_TYPES
from downloader.rules.pace import Lead, PutOff
from downloader.rules.resume import Journal
from downloader.rules.steps import PollLater
from downloader.store import (
    control,
    inspection,
    leases,
    pacing,
    past,
    polling,
    transfers,
    verification,
)
from downloader.store.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from store.driving import Driver

Plans = list[tuple[str, list[str]]]


@contextmanager
def _plans(driver: Driver) -> Iterator[Plans]:
    """Collect what SQLite says of every statement on `runs` that is executed meanwhile."""
    seen: list[tuple[str, Any]] = []
    plans: Plans = []

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event
        _connection, _cursor, statement, parameters, _context, many = event
        if " runs " in statement.replace("\n", " "):
            seen.append((statement, parameters[0] if many else parameters))

    sa.event.listen(driver.database.engine, "before_cursor_execute", note)
    try:
        yield plans
    finally:
        sa.event.remove(driver.database.engine, "before_cursor_execute", note)
    for statement, parameters in seen:
        found = driver.query("EXPLAIN QUERY PLAN " + statement, *parameters)
        plans.append((" ".join(statement.split()), [row[3] for row in found]))


def _claim_due(driver: Driver) -> None:
    driver.claim_due(most=6, soon=30)


def _claim_near(driver: Driver) -> None:
    for upwards in (False, True):
        lead = Lead(key(110), upwards, strong=True, quiet_seconds=0, submitted_until=at(20))
        assert pacing.claim_near(
            driver.database, driver.owner, [lead], now=at(20), lease_until=at(80)
        )


def _put_off(driver: Driver) -> None:
    decided = PutOff(TYPE, at(-1), at(5), 100, at(30), at(5), at(60))
    assert pacing.put_off(driver.database, decided, max_poll_seconds=300, jitter=0.5) > 0


def _look_back(driver: Driver) -> None:
    assert past.past_durations(driver.database)


def _next_due(driver: Driver) -> None:
    polling.next_due_at(driver.database, [TYPE])


def _claim_ready(driver: Driver) -> None:
    driver.claim_ready(most=2)


def _claim_ready_once(driver: Driver) -> None:
    driver.claim_ready(most=2, cutoff=0)


def _count_ready(driver: Driver) -> None:
    transfers.count_ready(driver.database, at(0))


def _take_turn(driver: Driver) -> None:
    claims = driver.claim_ready().claimed
    outcomes = [(one.run.key, one.lease, published(one.run.key.run_id)) for one in claims]
    batches = driver.claim_due(20)
    judged = [
        (run.key, one.lease, url_received(run.key.run_id)) for one in batches for run in one.runs
    ]
    begun = polling.Begun({run: f"new:{run.run_id}" for run, _, _ in judged[::2]}, at(80))
    done = driver.turn(Turn(outcomes, judged, begun), 20)
    assert all(done.outcomes + done.judged)
    assert min(len(done.outcomes), len(done.begun), len(judged) - len(done.begun)) > 1


def _rescue(driver: Driver) -> None:
    leases.rescue(driver.database, at(3600))


def _retry_failed(driver: Driver) -> None:
    control.retry_failed(driver.database, None, at(0))


def _any_unfinished(driver: Driver) -> None:
    inspection.any_unfinished(driver.database, RUN_TYPES)


def _count_unfinished(driver: Driver) -> None:
    inspection.count_unfinished(driver.database)


def _saved_runs(driver: Driver) -> None:
    assert list(verification.saved_runs(driver.database))


@pytest.mark.parametrize(
    ("call", "indexes"),
    [
        (_claim_due, {"ix_runs_pending", "sqlite_autoindex_runs_1"}),
        (_claim_near, {"sqlite_autoindex_runs_1"}),
        (_put_off, {"ix_runs_pending", "sqlite_autoindex_runs_1"}),
        (_look_back, {"sqlite_autoindex_runs_1"}),
        (_next_due, {"ix_runs_pending"}),
        (_claim_ready, {"ix_runs_ready", "sqlite_autoindex_runs_1"}),
        (_claim_ready_once, {"ix_runs_ready", "sqlite_autoindex_runs_1"}),
        (_count_ready, {"ix_runs_ready"}),
        (_take_turn, {"ix_runs_pending", "ix_runs_ready", "sqlite_autoindex_runs_1"}),
        (_rescue, {"ix_runs_downloading"}),
        (_retry_failed, {"ix_runs_failed"}),
        (_any_unfinished, {"ix_runs_pending", "ix_runs_ready", "ix_runs_downloading"}),
        (_count_unfinished, {"ix_runs_pending", "ix_runs_ready", "ix_runs_downloading"}),
        (_saved_runs, {"sqlite_autoindex_runs_1"}),
    ],
)
def test_a_queue_is_looked_at_through_its_own_index(
    driver: Driver, call: Callable[[Driver], None], indexes: set[str]
) -> None:
    """What is done for every batch and every transfer reads its queue's index, never the table."""
    driver.one_of_each_state()
    driver.ready(21, 22, 23)
    driver.submit(*range(100, 110))
    driver.submit(*range(110, 120), seconds=10)
    if call is _any_unfinished:  # looks into each queue only where those before it are empty
        tracked = [key(run_id) for run_id in driver.states() if run_id != 3]
        control.cancel(driver.database, tracked, at(0))
    with _plans(driver) as plans:
        call(driver)
    details = [detail for _, found in plans for detail in found]
    used = {
        found[1]
        for detail in details
        if (found := re.search(r"USING (?:COVERING )?INDEX (\w+)", detail))
    }
    assert used == indexes
    by_row = "SEARCH runs USING INTEGER PRIMARY KEY (rowid=?)"  # of what an index has found
    unindexed = [one for one in details if "runs" in one and "INDEX" not in one]
    assert set(unindexed) <= {by_row}


def test_the_pending_claim_needs_no_sorting(driver: Driver) -> None:
    """The claim of due runs takes them in the order of the index, however many are pending."""
    driver.submit(*range(1, 50))
    driver.submit(*range(50, 60), seconds=10)
    with _plans(driver) as plans:
        assert len(driver.claim_due(most=1, soon=30)) == 1
    assert len(plans) >= 3
    assert [found for _, found in plans if any("TEMP B-TREE" in line for line in found)] == []


def test_outcomes_find_their_run_by_its_key(driver: Driver) -> None:
    """Recording what became of one run looks up that run alone."""
    driver.done(1)
    claims = driver.downloading(3)
    driver.submit(2)
    with _plans(driver) as plans:
        driver.poll(2, step=PollLater(at(60)))
        transfers.note_object(driver.database, claims[0], Journal(None, 1), at(0))
        held = [(claims[0].run.key, claims[0].lease)]
        assert leases.extend_leases(driver.database, held, at(60), at(0)) == set()
        assert leases.lost_leases(driver.database, held) == set()
        assert driver.end(claims, published(3)) == [True]
    updates = [found for statement, found in plans if statement.startswith("UPDATE")]
    assert len(updates) >= 4
    assert {line for found in updates for line in found} == {
        "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (run_type=? AND run_id=?)"
    }
