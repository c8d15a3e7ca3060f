from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from store.driving import OTHER_TYPE, Driver

if TYPE_CHECKING:
    from cli.calling import Caller


def test_cancel(call: Caller, driver: Driver) -> None:
    """Unfinished runs are cancelled; of the others it is said what they are."""
    driver.one_of_each_state()
    answer = call("cancel", "1", "2", "3", "4")
    assert (answer.code, answer.out) == (0, "cancelled 3\n")
    assert answer.err == "run 4 is done: only unfinished ones can be cancelled\n"
    assert {driver.states()[run_id] for run_id in (1, 2, 3)} == {"cancelled"}


def test_retry(call: Caller, driver: Driver) -> None:
    """Failed and cancelled runs are put back; of the others it is said what they are."""
    driver.one_of_each_state()
    answer = call("retry", "4", "5", "6")
    assert (answer.code, answer.out) == (0, "put back 2\n")
    assert answer.err == "run 4 is done: only failed and cancelled ones can be retried\n"
    assert {driver.states()[run_id] for run_id in (5, 6)} == {"pending"}


@pytest.mark.parametrize(
    ("command", "changed", "unchanged"),
    [
        ("cancel", {"cancelled": 3}, {"4": "done", "5": "failed", "6": "cancelled"}),
        ("retry", {"retried": 2}, {"1": "pending", "2": "ready", "3": "downloading", "4": "done"}),
    ],
)
def test_json(
    call: Caller,
    driver: Driver,
    command: str,
    changed: dict[str, int],
    unchanged: dict[str, str],
) -> None:
    """With --json the answer says what changed and what did not."""
    driver.one_of_each_state()
    answer = call(command, "1", "2", "3", "4", "5", "6", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json == changed | {"unchanged": unchanged}


@pytest.mark.parametrize("command", ["cancel", "retry"])
def test_runs_that_are_not_tracked(call: Caller, driver: Driver, command: str) -> None:
    """A run that is not tracked, or of another type, is named, and then no run is changed."""
    driver.one_of_each_state()
    before = driver.states()
    answer = call(command, "1", "5", "99")
    assert answer.code == 2
    assert "Run 99 (text-to-sound) is not tracked: nothing was changed." in answer.err
    answer = call(command, "tts/5")
    assert answer.code == 2
    assert "Run 5 (tts) is not tracked, but text-to-sound/5 is: name it so." in answer.err
    assert call(command, "1", "5", "--type", OTHER_TYPE).code == 2
    assert driver.states() == before


@pytest.mark.parametrize("command", ["cancel", "retry"])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("abc", "is not a run id"),
        ("0", "is zero: run ids start at 1"),
        ("1.5", "is not a run id"),
        (str(2**63), "is too large"),
    ],
)
def test_bad_ids(call: Caller, driver: Driver, command: str, bad: str, said: str) -> None:
    """A bad id among good ones, and nothing is changed."""
    driver.one_of_each_state()
    before = driver.states()
    answer = call(command, "1", "5", bad)
    assert (answer.code, answer.out) == (2, "")
    assert f"{bad!r} {said}" in answer.err
    assert driver.states() == before


def test_retry_of_all_that_failed(call: Caller, driver: Driver) -> None:
    """`retry --failed` puts back every failed run of its type, and says how many."""
    driver.one_of_each_state()
    driver.failed(7)
    assert call("retry", "--failed", "--type", OTHER_TYPE, "--json").json == {"retried": 0}
    answer = call("retry", "--failed")
    assert (answer.code, answer.out, answer.err) == (0, "put back 2\n", "")
    assert call("retry", "--failed", "--json").json == {"retried": 0}
    assert driver.states()[6] == "cancelled"


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "--failed", "5"], ["cancel"]])
def test_what_to_change_must_be_said(call: Caller, driver: Driver, arguments: list[str]) -> None:
    """Neither nothing nor both ids and --failed will do."""
    driver.failed(5)
    assert call(*arguments).code == 2
    assert driver.states() == {5: "failed"}
