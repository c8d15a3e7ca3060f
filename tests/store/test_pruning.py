from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from store.driving import Driver, at, key, published

from downloader.rules.states import FINISHED, UNFINISHED, State
from downloader.rules.steps import PollFailed, UrlReceived
from downloader.store import control, hook_events, pruning
from downloader.store.database import Database, database_url
from downloader.store.schema import UTCText, to_text

if TYPE_CHECKING:
    from datetime import datetime

    import pytest

Row = tuple[Any, ...]


def _prune(driver: Driver, before: datetime) -> int:
    """Prune as the service does, all there is."""
    pruned = 0
    newest = pruning.newest_event(driver.database)
    for after in range(0, newest, pruning.WINDOW):
        keys = pruning.runs_with_old_history(driver.database, after, before)
        for first in range(0, len(keys), pruning.MOST_RUNS):
            while rows := pruning.prune(
                driver.database, keys[first : first + pruning.MOST_RUNS], before
            ):
                assert rows <= pruning.MOST_ROWS
                pruned += rows
    return pruned


def _events(driver: Driver) -> list[Row]:
    return driver.query(
        "SELECT event_id, run_id, at, from_state, to_state, reason"
        " FROM run_events ORDER BY event_id"
    )


def _hook(driver: Driver, run_id: int, seconds: float) -> None:
    event = hook_events.HookEvent(key(run_id), at(seconds), "hook_done", "exit 0, 1.000 s")
    hook_events.HookQueue(driver.database, ()).turn([event], 0)


def _kept(rows: list[Row], states: dict[int, str], before: str) -> list[Row]:
    """Return which rows have to stay: what is to be said of them in the plainest words."""
    last = {run_id: event for event, run_id, _, was, becomes, _ in rows if was != becomes}
    return [
        row
        for row in rows
        if states[row[1]] in UNFINISHED or row[2] >= before or row[0] >= last[row[1]]
    ]


def test_what_stays_of_a_history(driver: Driver) -> None:
    """Of a finished run stay its last transition, what its hook came to, and what is not old."""
    driver.done(1)
    _hook(driver, 1, 5)
    driver.failed(2)
    driver.cancelled(3)
    driver.done(6, seconds=100)
    driver.ready(4)
    driver.submit(5)
    assert _prune(driver, at(50)) == 3 + 1 + 1
    left: dict[int, list[str]] = {}
    for _, run_id, *_, reason in _events(driver):
        left.setdefault(run_id, []).append(reason)
    assert left == {
        1: ["published", "hook_done"],
        2: ["provider_failed"],
        3: ["cancel"],
        4: ["submitted", "url_received"],
        5: ["submitted"],
        6: ["submitted", "url_received", "claimed", "published"],
    }
    assert _prune(driver, at(50)) == 0


def test_a_history_of_several_lives(driver: Driver) -> None:
    """What a run went through before a retry goes too, hooks among it, once it is finished."""
    driver.failed(1)
    _hook(driver, 1, 1)
    control.retry(driver.database, [key(1)], at(2))
    _hook(driver, 1, 3)
    assert _prune(driver, at(50)) == 0
    driver.poll(1, step=PollFailed("bad_run", "Refused."), seconds=4)
    _hook(driver, 1, 5)
    assert _prune(driver, at(50)) == 5
    assert [row[-1] for row in _events(driver)] == ["bad_run", "hook_done"]


def test_a_run_that_is_put_back_meanwhile(driver: Driver) -> None:
    """What is chosen and then put back before it is deleted keeps its history."""
    driver.failed(1)
    [chosen] = pruning.runs_with_old_history(driver.database, 0, at(50))
    control.retry(driver.database, [key(1)], at(2))
    assert pruning.prune(driver.database, [chosen], at(50)) == 0
    assert len(_events(driver)) == 3


def test_small_transactions(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction deletes more than it may, and nothing is left of what must go."""
    for run_id in range(1, 5):
        driver.submit(run_id)
        for number in range(30):
            step = PollFailed("bad_run", "Refused.")
            driver.poll(run_id, step=step, seconds=number)
            control.retry(driver.database, [key(run_id)], at(number))
        driver.poll(run_id, step=PollFailed("bad_run", "Refused."), seconds=40)
    rows = pruning.prune(driver.database, [key(1), key(2)], at(100))
    assert rows == 2 * 61
    limited = pruning._DELETE.text.replace(f"LIMIT {pruning.MOST_ROWS}", "LIMIT 10")
    moment = sa.bindparam("before", type_=UTCText)
    monkeypatch.setattr(pruning, "_DELETE", sa.text(limited).bindparams(moment))
    found = []
    while rows := pruning.prune(driver.database, [key(3), key(4)], at(100)):
        found.append(rows)
    assert found == [10] * 12 + [2]
    assert len(_events(driver)) == 4


def test_windows(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories that reach over the ends of the windows are pruned whole."""
    monkeypatch.setattr(pruning, "WINDOW", 3)
    driver.done(*range(1, 8))
    assert _prune(driver, at(50)) == 21
    assert {row[-1] for row in _events(driver)} == {"published"}


def test_numbers_are_not_given_out_again(driver: Driver) -> None:
    """The newest event is never deleted, so that whoever reads on from a number misses nothing."""
    driver.done(1)
    newest = pruning.newest_event(driver.database)
    _prune(driver, at(50))
    driver.submit(2)
    assert [row[0] for row in _events(driver)] == [newest, newest + 1]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["url", "fail", "save", "cancel", "retry", "hook"]), st.integers(1, 3)
    ),
    max_size=25,
)


@given(STEPS, st.integers(0, 26))
def test_any_history(migrated_file: Path, steps: list[tuple[str, int]], before: int) -> None:
    """Whatever runs went through, just what is old and over goes, and `runs` is untouched."""
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(migrated_file, Path(folder) / "runs.sqlite3")
        with closing(Database(database_url(path))) as database:
            driver = Driver(database)
            _go_through(driver, steps)
            rows, states = _events(driver), driver.states()
            runs = driver.query("SELECT * FROM runs")
            _prune(driver, at(before))
            assert _events(driver) == _kept(rows, states, to_text(at(before)))
            assert driver.query("SELECT * FROM runs") == runs
            assert {row[1]: row[4] for row in _events(driver)} == states


def _go_through(driver: Driver, steps: list[tuple[str, int]]) -> None:
    driver.submit(1, 2, 3)
    for second, (step, run_id) in enumerate(steps):
        state = driver.states()[run_id]
        if step == "url" and state == State.PENDING:
            driver.poll(run_id, step=UrlReceived("https://x.example/a", None, "OK"), seconds=second)
        elif step == "fail" and state == State.PENDING:
            driver.poll(run_id, step=PollFailed("bad_run", "Refused."), seconds=second)
        elif step == "save" and state == State.READY:
            claims = [
                one
                for one in driver.claim_ready(second, most=10).claimed
                if one.run.key.run_id == run_id
            ]
            driver.end(claims, published(run_id), second)
        elif step == "cancel" and state in UNFINISHED:
            control.cancel(driver.database, [key(run_id)], at(second))
        elif step == "retry" and state in FINISHED - {State.DONE}:
            control.retry(driver.database, [key(run_id)], at(second))
        elif step == "hook":
            _hook(driver, run_id, second)


def test_the_plans(driver: Driver) -> None:
    """Looking goes through the events of its window alone; deleting finds rows by their run."""
    driver.done(1)
    values = {"after": 0, "upto": 50_000, "before": to_text(at(0)), "keys": "[]"}
    plans = {
        name: [
            row[3] for row in driver.query("EXPLAIN QUERY PLAN " + _with(statement.text, values))
        ]
        for name, statement in (("look", pruning._LOOK), ("delete", pruning._DELETE))
    }
    assert plans["look"] == [
        "SEARCH event USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (run_type=? AND run_id=?)",
    ]
    found = "\n".join(plans["delete"])
    assert "SEARCH run_events USING INTEGER PRIMARY KEY (rowid=?)" in found
    assert "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (run_type=? AND run_id=?)" in found
    assert "SEARCH event USING INDEX ix_run_events_run (run_type=? AND run_id=?)" in found
    assert (
        "SEARCH later USING INDEX ix_run_events_run (run_type=? AND run_id=? AND rowid>?)" in found
    )
    scans = [line for line in plans["delete"] if line.startswith("SCAN")]
    assert len(scans) == 1
    assert scans[0].startswith("SCAN given VIRTUAL TABLE")


def _with(text: str, values: dict[str, object]) -> str:
    for name, value in values.items():
        text = text.replace(f":{name}", repr(value))
    return text
