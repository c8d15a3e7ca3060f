from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store.driving import OTHER_TYPE, TYPE, Driver, at

from downloader.rules.states import MAX_RUN_ID
from downloader.store import intake

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_new_and_known(driver: Driver) -> None:
    """New ids are tracked, due at once; known ones are counted and left as they are."""
    assert intake.submit(driver.database, TYPE, [3, 1, 2], at(0)) == (3, 0)
    before = driver.row(1)
    assert intake.submit(driver.database, TYPE, [1, 4], at(9)) == (1, 1)
    assert driver.row(1) == before
    row = driver.row(4)
    set_columns = {name: value for name, value in row.items() if value not in (None, 0)}
    assert set_columns == {
        "run_type": TYPE,
        "run_id": 4,
        "state": "pending",
        "next_attempt_at": "2026-03-01 12:00:09.000000",
        "submitted_at": "2026-03-01 12:00:09.000000",
        "updated_at": "2026-03-01 12:00:09.000000",
    }
    assert driver.query("SELECT run_id, from_state, to_state, reason FROM run_events") == [
        (1, None, "pending", "submitted"),
        (2, None, "pending", "submitted"),
        (3, None, "pending", "submitted"),
        (4, None, "pending", "submitted"),
    ]


def test_the_same_id_twice(driver: Driver) -> None:
    """An id that comes twice in one call is tracked once, and the second counts as known."""
    assert intake.submit(driver.database, TYPE, [7, 7, 8, 7], at(0)) == (2, 2)


def test_the_types_are_apart(driver: Driver) -> None:
    """The same id of two run types is two runs."""
    driver.submit(1)
    assert intake.submit(driver.database, OTHER_TYPE, [1], at(0)) == (1, 0)


def test_the_ends_of_the_range(driver: Driver) -> None:
    """The smallest and the largest run id are tracked as they are."""
    assert intake.submit(driver.database, TYPE, [1, MAX_RUN_ID], at(0)) == (2, 0)
    assert set(driver.states()) == {1, MAX_RUN_ID}


def test_a_finished_run_is_known(driver: Driver) -> None:
    """Submitting a finished run again changes nothing about it."""
    driver.one_of_each_state()
    before = driver.states()
    assert intake.submit(driver.database, TYPE, range(1, 7), at(0)) == (0, 6)
    assert driver.states() == before


@pytest.mark.parametrize("after", [0, 1, 9_999, 10_000, 25_000])
def test_all_or_nothing(driver: Driver, after: int) -> None:
    """An error in the source, wherever it comes, leaves nothing recorded."""

    def source() -> Iterator[int]:
        yield from range(1, after + 1)
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        intake.submit(driver.database, TYPE, source(), at(0))
    assert driver.states() == {}
    assert driver.query("SELECT count(*) FROM run_events") == [(0,)]
    # The connection is fit for use again.
    assert intake.submit(driver.database, TYPE, [1], at(0)) == (1, 0)


def test_a_slow_source_holds_nobody_up(driver: Driver) -> None:
    """While one caller still reads its ids, others write, and it sees what they wrote."""
    with closing(sqlite3.connect(driver.database.path, timeout=0)) as other:

        def source() -> Iterator[int]:
            yield 1
            driver.submit(2, 3)
            other.execute("BEGIN IMMEDIATE")
            other.execute("COMMIT")
            yield 2

        assert intake.submit(driver.database, TYPE, source(), at(0)) == (1, 1)
    assert set(driver.states()) == {1, 2, 3}


def test_what_is_recorded_is_on_the_disk(driver: Driver) -> None:
    """The runs are written with synchronous=FULL: a power cut after the return loses none."""
    synchronous = []

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event
        _connection, cursor, statement, *_ = event
        if "INSERT INTO run" in statement:
            synchronous.append(
                cursor.connection.execute("SELECT synchronous FROM pragma_synchronous").fetchone()
            )

    sa.event.listen(driver.database.engine, "before_cursor_execute", note)
    driver.submit(1)
    assert synchronous == [(2,), (2,)]


CALLS = st.lists(
    st.tuples(st.sampled_from([TYPE, OTHER_TYPE]), st.lists(st.integers(1, 6), max_size=8)),
    max_size=6,
)


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # the runs of earlier examples are deleted
@given(calls=CALLS)
def test_counts_add_up(driver: Driver, calls: list[tuple[str, list[int]]]) -> None:
    """Whatever is submitted in whatever order, every id is new once and known ever after."""
    driver.execute("DELETE FROM run_events")
    driver.execute("DELETE FROM runs")
    tracked: set[tuple[str, int]] = set()
    for run_type, ids in calls:
        new = {(run_type, run_id) for run_id in ids} - tracked
        found = intake.submit(driver.database, run_type, ids, at(0))
        assert found == (len(new), len(ids) - len(new))
        tracked |= new
    assert set(driver.query("SELECT run_type, run_id FROM runs")) == tracked
    events = driver.query("SELECT run_type, run_id FROM run_events")
    assert (set(events), len(events)) == (tracked, len(tracked))
