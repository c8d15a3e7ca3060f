"""Which hooks the history owes: by a model of it, and case by case."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from store.driving import Driver, at, key, published

from downloader.rules.states import State
from downloader.rules.steps import PollFailed, TransferFailed
from downloader.store import control, hook_events, intake, pruning, verification
from downloader.store.database import Database, database_url
from downloader.store.hook_events import HookEvent, HookQueue

if TYPE_CHECKING:
    import pytest

BOTH = (State.DONE, State.FAILED)


def _taken(queue: HookQueue, most: int = 1000, upto: int | None = None) -> list[tuple[int, str]]:
    return [(one.key.run_id, one.state.value) for one in queue.turn([], most, upto)]


def test_nothing_is_owed_from_before(driver: Driver) -> None:
    """A kind of hook that is set for the first time is owed nothing of before, a known one all."""
    driver.done(1)
    driver.failed(2)
    queue = HookQueue(driver.database, [State.DONE])
    queue.begin()
    assert (queue.any_owed(), queue.count(), _taken(queue)) == (False, 0, [])
    driver.failed(3)
    driver.done(4)
    again = HookQueue(driver.database, BOTH)
    again.begin()
    driver.failed(5)
    assert (again.any_owed(), again.count()) == (True, 2)
    assert _taken(again) == [(4, "done"), (5, "failed")]
    assert (again.any_owed(), again.count(), _taken(queue)) == (False, 0, [])


def test_without_a_cursor_nothing_is_owed(driver: Driver) -> None:
    """Where somebody has deleted the cursors no old run gets a hook."""
    queue = HookQueue(driver.database, BOTH)
    queue.begin()
    driver.done(1)
    driver.execute("DELETE FROM hook_cursors")
    assert (queue.any_owed(), queue.count(), _taken(queue)) == (False, 0, [])
    queue.begin()
    assert _taken(queue) == []


def test_a_run_that_was_put_back(driver: Driver) -> None:
    """A run that is not as it ended is owed the hook of its new end alone; a hook's row is none."""
    queue = HookQueue(driver.database, BOTH)
    queue.begin()
    driver.failed(1, seconds=5)
    control.retry(driver.database, [key(1)], at(6))
    assert _taken(queue) == []
    queue.turn([HookEvent(key(1), at(7), "hook_done", "exit 0, 1.000 s")], 0)
    assert driver.query(
        "SELECT from_state, to_state, reason FROM run_events ORDER BY event_id DESC LIMIT 1"
    ) == [("pending", "pending", "hook_done")]
    driver.poll(1, step=PollFailed("bad_run", "Refused."), seconds=8)
    queue.turn([HookEvent(key(1), at(9), "hook_done", "exit 0, 1.000 s")], 0)
    [owed] = queue.turn([], 5)
    assert (owed.key, owed.state, "url" in owed.row) == (key(1), State.FAILED, False)
    assert owed.row["error_code"] == "bad_run"
    assert _taken(queue) == []


def test_every_way_to_end(driver: Driver) -> None:
    """Whatever recorded the end of a run, a hook is owed: a poll, a claim, a transfer, verify."""
    queue = HookQueue(driver.database, BOTH)
    queue.begin()
    driver.ready(1, 2)
    driver.claim_ready(
        judge=lambda run: (
            TransferFailed("url_expired", "Expired.", 0, 9) if run.key == key(2) else None
        )
    )
    driver.failed(3)
    driver.ready(4)
    assert verification.adopt(driver.database, key(4), published(4), at(5))
    driver.cancelled(5)
    assert _taken(queue) == [(2, "failed"), (3, "failed"), (4, "done")]


def test_up_to_an_event(driver: Driver) -> None:
    """A call that ends takes what is owed by then, and leaves what comes after."""
    queue = HookQueue(driver.database, BOTH)
    queue.begin()
    driver.done(1)
    last = queue.newest_event()
    driver.done(2)
    assert (_taken(queue, upto=last), queue.any_owed(last)) == ([(1, "done")], False)
    assert (queue.any_owed(), _taken(queue)) == (True, [(2, "done")])


def test_a_cursor_keeps_up(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is owed for long, a start need not look through all of it again."""
    monkeypatch.setattr(hook_events, "_FAR", 10)
    queue = HookQueue(driver.database, [State.FAILED])
    queue.begin()
    for run_id in range(1, 5):
        driver.done(run_id)
    assert _taken(queue) == []
    newest = queue.newest_event()
    assert driver.query("SELECT * FROM hook_cursors") == [("failed", newest)]
    driver.failed(9)
    assert _taken(queue) == [(9, "failed")]


def test_pruning_leaves_what_is_owed(driver: Driver) -> None:
    """Old history goes, and every hook is owed as before."""
    queue = HookQueue(driver.database, BOTH)
    queue.begin()
    driver.done(1)
    driver.failed(2)
    control.retry(driver.database, [key(2)], at(3))
    driver.poll(2, step=PollFailed("bad_run", "Refused."), seconds=4)
    before = queue.count()
    keys = pruning.runs_with_old_history(driver.database, 0, at(50))
    assert pruning.prune(driver.database, keys, at(50)) > 0
    assert (before, queue.count()) == (2, 2)
    assert _taken(queue) == [(1, "done"), (2, "failed")]


def test_the_plan(driver: Driver) -> None:
    """What is owed is found from the cursor on, and never by a look at every run."""
    text = hook_events._NEXT.text
    for name, value in {"after": 7, "upto": 9, "state": "'done'", "most": 1}.items():
        text = text.replace(f":{name}", str(value))
    first, *others = (row[3] for row in driver.query(f"EXPLAIN QUERY PLAN {text}"))
    assert first == "SEARCH ended USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
    assert set(others) == {
        "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (run_type=? AND run_id=?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH later USING INDEX ix_run_events_run (run_type=? AND run_id=? AND rowid>?)",
    }


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["done", "failed", "retry", "prune"]), st.integers(1, 4)),
        st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 3)),
        st.tuples(st.just("restart"), st.integers(0, 2)),
    ),
    max_size=20,
)


@given(STEPS)
def test_each_end_has_one_hook(
    migrated_file: Path, steps: list[tuple[str, int] | tuple[str, int, int]]
) -> None:
    """However processes come, go and share, each end of a run that stays is taken once, in order.

    They are as many objects: all that these know of each other is the database.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(migrated_file, Path(folder) / "runs.sqlite3")
        with closing(Database(database_url(path))) as database:
            driver = Driver(database)
            queues = [HookQueue(database, BOTH) for _ in range(3)]
            queues[0].begin()
            intake.submit(database, "text-to-sound", [1, 2, 3, 4], at(0))
            owed: list[tuple[int, str]] = []
            for step in steps:
                match step:
                    case "take", int(which), int(most):
                        queue = queues[which]
                        assert queue.any_owed() == bool(owed)
                        assert queue.count() == len(owed)
                        assert _taken(queue, most) == owed[:most]
                        owed = owed[most:]
                    case "restart", int(which):
                        queues[which] = HookQueue(database, BOTH)
                        queues[which].begin()
                    case "retry", int(run_id):
                        if control.retry(database, [key(run_id)], at(0)).changed:
                            owed = [one for one in owed if one[0] != run_id]
                    case "prune", _:
                        keys = pruning.runs_with_old_history(database, 0, at(50))
                        pruning.prune(database, keys, at(50))
                    case str(end), int(run_id):
                        if driver.states()[run_id] != "pending":
                            continue
                        driver.execute(
                            "INSERT INTO run_events (run_type, run_id, at, from_state, to_state,"
                            " reason) SELECT run_type, run_id, updated_at, state, ?, 'made'"
                            " FROM runs WHERE run_id = ?",
                            end,
                            run_id,
                        )
                        driver.execute(_SET[end], run_id)
                        owed.append((run_id, end))
            assert _taken(queues[0]) == owed


_SET = {
    "done": "UPDATE runs SET state = 'done', next_attempt_at = NULL, location = '/a', bytes = 1,"
    " sha256 = printf('%064d', 0), audio_format = 'wav', done_at = updated_at WHERE run_id = ?",
    "failed": "UPDATE runs SET state = 'failed', next_attempt_at = NULL, error_code = 'bad_run',"
    " error_message = 'Refused.' WHERE run_id = ?",
}
