from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from store.driving import TYPE

from downloader.errors import StoreError
from downloader.rules.states import State
from downloader.store.schema import RUNS_CHECKS, TIME_COLUMNS

if TYPE_CHECKING:
    from store.driving import Driver

    from downloader.store.database import Database

NOW = "2026-03-01 12:00:00.000000"
BASE: dict[str, Any] = {
    "run_type": TYPE,
    "run_id": 1,
    "submitted_at": NOW,
    "updated_at": NOW,
}
VALID: dict[str, dict[str, Any]] = {
    "pending": {"next_attempt_at": NOW},
    "ready": {"url": "https://s/1?x", "url_expires_at": NOW, "next_attempt_at": NOW},
    "downloading": {"url": "https://s/1?x", "lease_owner": "me", "lease_expires_at": NOW},
    "done": {
        "location": "/a/1.wav",
        "bytes": 7,
        "sha256": "0" * 64,
        "audio_format": "wav",
        "done_at": NOW,
    },
    "failed": {"error_code": "deadline", "error_message": "Too late."},
    "cancelled": {},
}

# The state a row says it is in, what is changed of a valid row of it, and the CHECK that refuses.
IMPOSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    ("pending", {"run_id": 0}, "run_id_positive"),
    ("pending", {"run_id": -1}, "run_id_positive"),
    ("pending", {"run_type": ""}, "run_type_named"),
    ("cancelled", {"state": "lost"}, "state_known"),
    ("cancelled", {"state": "DONE"}, "state_known"),
    ("pending", {"polls": -1}, "counters_positive"),
    ("pending", {"attempts": -1}, "counters_positive"),
    ("pending", {"refreshes": -1}, "counters_positive"),
    ("ready", {"url": None, "url_expires_at": None}, "url_while_usable"),
    ("downloading", {"url": None}, "url_while_usable"),
    ("pending", {"url": "https://s/1"}, "url_while_usable"),
    ("done", {"url": "https://s/1"}, "url_while_usable"),
    ("failed", {"url": "https://s/1"}, "url_while_usable"),
    ("cancelled", {"url": "https://s/1"}, "url_while_usable"),
    ("pending", {"url_expires_at": NOW}, "url_expiry_of_url"),
    ("pending", {"next_attempt_at": None}, "next_attempt_while_queued"),
    ("ready", {"next_attempt_at": None}, "next_attempt_while_queued"),
    ("downloading", {"next_attempt_at": NOW}, "next_attempt_while_queued"),
    ("done", {"next_attempt_at": NOW}, "next_attempt_while_queued"),
    ("failed", {"next_attempt_at": NOW}, "next_attempt_while_queued"),
    ("cancelled", {"next_attempt_at": NOW}, "next_attempt_while_queued"),
    ("pending", {"lease_owner": "me"}, "lease_whole"),
    ("pending", {"lease_expires_at": NOW}, "lease_whole"),
    ("ready", {"lease_owner": "me", "lease_expires_at": NOW}, "lease_while_worked_on"),
    ("done", {"lease_owner": "me", "lease_expires_at": NOW}, "lease_while_worked_on"),
    ("failed", {"lease_owner": "me", "lease_expires_at": NOW}, "lease_while_worked_on"),
    ("cancelled", {"lease_owner": "me", "lease_expires_at": NOW}, "lease_while_worked_on"),
    ("downloading", {"lease_owner": None, "lease_expires_at": None}, "downloading_has_lease"),
    ("done", {"location": None}, "done_is_whole"),
    ("done", {"bytes": None}, "done_is_whole"),
    ("done", {"sha256": None}, "done_is_whole"),
    ("done", {"audio_format": None}, "done_is_whole"),
    ("done", {"done_at": None}, "done_at_when_done"),
    ("failed", {"done_at": NOW}, "done_at_when_done"),
    ("failed", {"location": "/a/1.wav"}, "location_when_done"),
    ("pending", {"location": "/a/1.wav"}, "location_when_done"),
    ("failed", {"sha256": "0" * 64}, "sha256_when_done"),
    ("done", {"sha256": "abc"}, "sha256_when_done"),
    ("failed", {"error_code": None}, "failed_says_why"),
    ("failed", {"error_message": None}, "failed_says_why"),
    ("done", {"bytes": -1}, "bytes_positive"),
    ("ready", {"url_expires_at": "2026-03-01T12:00:00.000000"}, "url_expires_at_format"),
    ("pending", {"next_attempt_at": "2026-03-01 12:00:00"}, "next_attempt_at_format"),
    ("downloading", {"lease_expires_at": "1772366400"}, "lease_expires_at_format"),
    ("pending", {"submitted_at": "2026-03-01 12:00:00.000000+00:00"}, "submitted_at_format"),
    ("pending", {"ready_at": ""}, "ready_at_format"),
    ("done", {"done_at": "2026-03-01T12:00:00Z"}, "done_at_format"),
    ("pending", {"updated_at": "yesterday"}, "updated_at_format"),
    ("pending", {"answers": -1}, "answers_positive"),
    ("pending", {"poll_errors": -1}, "poll_errors_positive"),
    ("pending", {"unknown_answers": -1}, "unknown_answers_positive"),
    ("pending", {"unknown_since": "now"}, "unknown_since_format"),
    ("ready", {"failing_since": "2026-03-01 12:00:00"}, "failing_since_format"),
]


def _insert(database: Database, table: str, row: dict[str, Any]) -> None:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    with database.write() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO {table} ({names}) VALUES ({marks})",  # noqa: S608 - names of this module
            tuple(row.values()),
        )


@pytest.mark.parametrize("state", list(State))
def test_a_valid_row_of_each_state(driver: Driver, state: State) -> None:
    """Each state has rows that the database accepts, with nothing but what the state needs."""
    _insert(driver.database, "runs", BASE | VALID[state] | {"state": state.value})
    assert driver.states() == {1: state.value}


@pytest.mark.parametrize(
    ("state", "change", "check"),
    [
        pytest.param(*case, id=f"{case[2]}-{case[0]}-{'-'.join(case[1])}-{number}")
        for number, case in enumerate(IMPOSSIBLE)
    ],
)
def test_an_impossible_row(
    database: Database, state: str, change: dict[str, Any], check: str
) -> None:
    """A row that no transition leads to is refused, by the constraint that names the reason."""
    row = BASE | VALID[state] | {"state": state} | change
    with pytest.raises(StoreError, match=rf"CHECK constraint failed: ck_runs_{check}\b"):
        _insert(database, "runs", row)


def test_every_check_is_tried() -> None:
    """No CHECK of `runs` is without an impossible row of its own."""
    assert {check for _, _, check in IMPOSSIBLE} == set(RUNS_CHECKS)
    assert {f"{column}_format" for column in TIME_COLUMNS} <= set(RUNS_CHECKS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run_id": "seven"}, "cannot store TEXT value in INTEGER column runs.run_id"),
        ({"run_id": 1.5}, "cannot store REAL value in INTEGER column runs.run_id"),
        ({"state": b"pending"}, "cannot store BLOB value in TEXT column runs.state"),
        ({"polls": None}, "NOT NULL constraint failed: runs.polls"),
        ({"run_id": None}, "NOT NULL constraint failed: runs.run_id"),
        ({"submitted_at": None}, "NOT NULL constraint failed: runs.submitted_at"),
    ],
)
def test_values_of_another_type(database: Database, change: dict[str, Any], said: str) -> None:
    """A value of another type than its column's, or none where one is needed, is refused."""
    with pytest.raises(StoreError, match=said):
        _insert(database, "runs", BASE | VALID["pending"] | {"state": "pending"} | change)


def test_a_run_is_tracked_once(driver: Driver) -> None:
    """The same run id of the same run type is refused; of another run type it is another run."""
    row = BASE | VALID["pending"] | {"state": "pending"}
    _insert(driver.database, "runs", row)
    with pytest.raises(StoreError, match=r"UNIQUE constraint failed: runs\.run_type"):
        _insert(driver.database, "runs", row)
    _insert(driver.database, "runs", row | {"run_type": "tts"})


@pytest.mark.parametrize(
    ("table", "row", "said"),
    [
        (
            "run_events",
            {"run_type": TYPE, "run_id": 1, "at": NOW, "to_state": "done", "reason": "?"},
            "FOREIGN KEY constraint failed",
        ),
        (
            "run_events",
            {"run_type": TYPE, "run_id": 1, "at": "now", "to_state": "done", "reason": "?"},
            "ck_run_events_at_format",
        ),
        (
            "blocks",
            {"scope": "x", "reason": "r", "message": "m", "since": NOW, "until": NOW},
            "ck_blocks_scope_known",
        ),
        (
            "blocks",
            {"scope": "api", "reason": "r", "message": "m", "since": "", "until": NOW},
            "ck_blocks_since_format",
        ),
        (
            "blocks",
            {"scope": "api", "reason": "r", "message": "m", "since": NOW, "until": ""},
            "ck_blocks_until_format",
        ),
    ],
)
def test_impossible_rows_of_the_other_tables(
    database: Database, table: str, row: dict[str, Any], said: str
) -> None:
    """An event of an untracked run, and a block of an unknown scope or time, are refused."""
    with pytest.raises(StoreError, match=said):
        _insert(database, table, row)
