from __future__ import annotations

import tracemalloc
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store.driving import at, key

from downloader.rules.states import State
from downloader.rules.steps import PollFailed, TransferFailed
from downloader.store import backlog as module
from downloader.store import control, hook_events
from downloader.store.backlog import Backlog, EndedRun

if TYPE_CHECKING:
    from store.driving import Driver


def _ended(run_id: int, state: State = State.DONE) -> EndedRun:
    return EndedRun(key(run_id), state, at(run_id / 1_000_000))


@given(st.lists(st.integers(0, 30), max_size=60))
def test_first_in_first_out(steps: list[int]) -> None:
    """Whatever comes and goes in which order, runs leave as they came, however many wait."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "MOST_IN_MEMORY", 7)
        backlog, expected, number = Backlog([State.DONE]), deque[EndedRun](), 0
        for step in steps:
            if step % 3:
                runs = [_ended(number + n) for n in range(step)]
                number += step
                backlog.add(runs)
                expected += runs
            else:
                for _ in range(step):
                    assert backlog.take() == (expected.popleft() if expected else None)
            assert len(backlog) == len(expected)
        while expected:
            assert backlog.take() == expected.popleft()
        assert backlog.take() is None
        backlog.close()


def test_only_runs_with_a_hook_wait() -> None:
    """A run that ended in a state that nobody has a hook for is left out."""
    backlog = Backlog([State.FAILED])
    backlog.add([_ended(1), _ended(2, State.FAILED), _ended(3)])
    assert backlog.take() == _ended(2, State.FAILED)
    assert backlog.take() is None


def test_many_wait_in_bounded_memory() -> None:
    """A hundred thousand that wait take no more memory than some thousand."""
    backlog = Backlog([State.DONE])
    backlog.add([_ended(n) for n in range(2000)])
    tracemalloc.start()
    for start in range(2000, 100_000, 500):
        backlog.add([_ended(n) for n in range(start, start + 500)])
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < 500_000
    assert [backlog.take() for _ in range(100_000)] == [_ended(n) for n in range(100_000)]
    backlog.close()


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept is counted as lost; what is in memory, and what comes after, is not."""
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 2)
    backlog = Backlog([State.DONE])
    backlog.add([_ended(n) for n in range(5)])
    assert backlog._others is not None
    backlog._others.execute("DROP TABLE ended")
    backlog.add([_ended(5)])
    assert (len(backlog), backlog.lost) == (2, 4)
    assert [backlog.take(), backlog.take(), backlog.take()] == [_ended(0), _ended(1), None]
    backlog.add([_ended(n) for n in range(6, 10)])
    assert [backlog.take() for _ in range(4)] == [_ended(n) for n in range(6, 10)]


def test_a_run_that_was_put_back(driver: Driver) -> None:
    """A run that is not as it ended has no hook due; the row of one has the state it is in then."""
    driver.failed(1, seconds=5)
    ended = EndedRun(key(1), State.FAILED, at(5))
    row = hook_events.row_as_it_ended(driver.database, ended)
    assert row is not None
    assert (row["run_id"], row["state"], "url" in row) == (1, "failed", False)
    control.retry(driver.database, [key(1)], at(6))
    assert hook_events.row_as_it_ended(driver.database, ended) is None
    hook_events.record(
        driver.database, [hook_events.HookEvent(key(1), at(7), "hook_done", "exit 0, 1.000 s")]
    )
    assert driver.query(
        "SELECT from_state, to_state, reason FROM run_events ORDER BY event_id DESC LIMIT 1"
    ) == [("pending", "pending", "hook_done")]
    driver.poll(1, step=PollFailed("bad_run", "Refused."), seconds=8)
    assert hook_events.row_as_it_ended(driver.database, ended) is None
    again = EndedRun(key(1), State.FAILED, at(8))
    assert hook_events.row_as_it_ended(driver.database, again) is not None
    assert hook_events.row_as_it_ended(driver.database, EndedRun(key(9), State.DONE, at(8))) is None


def test_runs_that_are_given_up_before_a_transfer(driver: Driver) -> None:
    """A claim names the runs whose URL expired once too often: they have ended, too."""
    driver.ready(1, 2)
    found = driver.claim_ready(
        judge=lambda run: (
            TransferFailed("url_expired", "Expired.", 0, 9) if run.key == key(2) else None
        )
    )
    assert (found.given_up, found.failed) == ((key(2),), 1)
