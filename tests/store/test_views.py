from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from store.driving import OTHER_TYPE, PUT_BACK, START, TYPE, at, key, published

from downloader.clock import utc_now
from downloader.rules.error_codes import API_ERRORS, BLOCKS, TRANSFER_ERRORS
from downloader.rules.steps import TransferFailed
from downloader.store import blocks, control, intake
from downloader.store.schema import from_text, to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from store.driving import Driver


def _view(driver: Driver, name: str) -> list[dict[str, Any]]:
    with driver.database.read() as connection:
        found = connection.exec_driver_sql(f"SELECT * FROM {name}")  # noqa: S608 - a view's name
        return [dict(row) for row in found.mappings()]


@pytest.mark.parametrize(
    "name",
    ["progress", "failures", "stuck", "throughput_by_hour", "unfinished", "transfers_by_run"],
)
def test_an_empty_database(driver: Driver, name: str) -> None:
    """A view of an empty database has no row, and no error."""
    assert _view(driver, name) == []


def test_progress(driver: Driver) -> None:
    """`progress` counts each state of each run type, with bytes of saved files alone."""
    driver.one_of_each_state()
    driver.submit(1, 2, seconds=9, run_type=OTHER_TYPE)
    found = {row["run_type"]: row for row in _view(driver, "progress")}
    sound, tts = found.pop(TYPE), found.pop(OTHER_TYPE)
    assert found == {}
    states = ["pending", "ready", "downloading", "done", "failed", "cancelled"]
    assert {name: sound[name] for name in states} == dict.fromkeys(states, 1)
    assert (sound["runs"], sound["bytes"], sound["percent_finished"]) == (6, 1000, 50.0)
    assert sound["oldest_unfinished_at"] == "2026-03-01 12:00:00.000000"
    assert tts == dict.fromkeys(states, 0) | {
        "run_type": OTHER_TYPE,
        "runs": 2,
        "pending": 2,
        "bytes": 0,
        "percent_finished": 0.0,
        "oldest_unfinished_at": "2026-03-01 12:00:09.000000",
    }


def test_progress_of_finished_work(driver: Driver) -> None:
    """Where nothing is unfinished there is no oldest, and all of it is finished."""
    driver.done(1, 2, size=5)
    [row] = _view(driver, "progress")
    assert (row["percent_finished"], row["oldest_unfinished_at"], row["bytes"]) == (100.0, None, 10)


@pytest.mark.parametrize(
    ("finished", "of", "percent"),
    [
        (0, 30_001, 0.0),
        (1, 30_001, 0.01),
        (15_000, 30_001, 49.99),
        (30_000, 30_001, 99.99),
        (30_001, 30_001, 100.0),
        (2, 3, 66.66),
        (1, 1, 100.0),
        (0, 1, 0.0),
    ],
)
def test_percent_finished(driver: Driver, finished: int, of: int, percent: float) -> None:
    """It is 100 where all runs are finished and 0 where none is, and nowhere else."""
    intake.submit(driver.database, TYPE, range(1, of + 1), START)
    driver.execute(
        "UPDATE runs SET state = 'cancelled', next_attempt_at = NULL WHERE run_id <= ?", finished
    )
    [row] = _view(driver, "progress")
    assert row["percent_finished"] == percent


def test_failures(driver: Driver) -> None:
    """`failures` tells of each failed run and no other why, and what was tried."""
    claims = driver.downloading(7)
    driver.end(claims, TransferFailed("http_500", "Answers 500.", 8, 2), 30)
    driver.one_of_each_state()
    by_id = {row["run_id"]: row for row in _view(driver, "failures")}
    assert set(by_id) == {5, 7}
    assert by_id[7] == {
        "run_type": "text-to-sound",
        "run_id": 7,
        "error_code": "http_500",
        "error_message": "Answers 500.",
        "remote_status": "SUCCESS",
        "polls": 1,
        "attempts": 8,
        "refreshes": 2,
        "submitted_at": "2026-03-01 12:00:00.000000",
        "failed_at": "2026-03-01 12:00:30.000000",
    }
    assert by_id[5]["remote_status"] == "ERROR"
    assert by_id[5]["error_message"] == "Out of credit"


DAEMON = "is the daemon running?"
ERRORS = "transfers end in errors"
URLS = "its URLs are refused or expire before use"
NO_ANSWER = "the API does not answer for it"
UNKNOWN = "the API does not know it (404), and answers for others"
STORAGE = "it waits for its storage, which is in trouble: nothing is spent"
UNREACHABLE = "its storage cannot be reached"
NOT_FINISHED = "not finished at the provider"
KEY = "the API refuses the key: see blocks"

LATER = timedelta(days=365)  # all from when a test runs, which may be long after it was read
JUST_NOW = timedelta(seconds=-1)
LONG_AGO = timedelta(days=-365)


def _at(due: timedelta) -> str:
    return to_text(utc_now() + due)


def _pending(driver: Driver, due: timedelta = LATER, **values: object) -> None:
    driver.submit(1)
    _set(driver, **{"polls": 1, **values}, next_attempt_at=_at(due))


def _had_a_url(driver: Driver, due: timedelta = LATER, **values: object) -> None:
    _pending(driver, due, ready_at=to_text(START), **values)


def _ready(driver: Driver, due: timedelta = LATER, **values: object) -> None:
    driver.ready(1)
    _set(driver, **values, next_attempt_at=_at(due))


def _set(driver: Driver, **values: object) -> None:
    columns = ", ".join(f"{column} = ?" for column in values)
    driver.execute(f"UPDATE runs SET {columns} WHERE run_id = 1", *values.values())  # noqa: S608 - names above


def _why(driver: Driver) -> str:
    [why] = [row["why"] for row in _view(driver, "stuck") if row["run_id"] == 1]
    return str(why)


def _block(driver: Driver, scope: blocks.Scope, reason: str) -> None:
    blocks.block(driver.database, scope, reason, "Words.", now=START, pause_seconds=float)


def _abandoned(driver: Driver) -> None:
    driver.downloading(1)


def _never_asked(driver: Driver) -> None:
    driver.submit(1)


@pytest.mark.parametrize(
    ("bring_about", "state", "why"),
    [
        (_never_asked, "pending", f"never asked for: {DAEMON}"),
        (
            partial(_pending, polls=0),
            "pending",
            "not asked for yet: its time is still to come",
        ),
        (_pending, "pending", NOT_FINISHED),
        (partial(_pending, due=JUST_NOW), "pending", NOT_FINISHED),
        (
            partial(_pending, due=LONG_AGO),
            "pending",
            f"{NOT_FINISHED} when last asked for: {DAEMON}",
        ),
        (
            partial(_pending, remote_status="UNUSABLE_URL"),
            "pending",
            "the URL that the API gives cannot be used",
        ),
        (
            partial(_pending, remote_status="UNREADABLE_ANSWER"),
            "pending",
            "what the API says of it cannot be read",
        ),
        (partial(_pending, error_code="unknown_run"), "pending", UNKNOWN),
        (partial(_had_a_url, error_code="url_refused", unknown_answers=1), "pending", UNKNOWN),
        (
            partial(_pending, remote_status="HTTP 404"),
            "pending",
            "the API does not know it (404)",
        ),
        (_had_a_url, "pending", "it needs a new URL, and the API gives none yet"),
        (partial(_ready, due=LONG_AGO), "ready", f"no worker takes it: {DAEMON}"),
        (_ready, "ready", "it waits for its time"),
        (_abandoned, "downloading", "its worker is gone: the lease has run out"),
    ],
)
def test_stuck(driver: Driver, bring_about: Callable[[Driver], None], state: str, why: str) -> None:
    """`stuck` shows each run that does not get on, and why; the tests' runs are of long ago."""
    bring_about(driver)
    [row] = _view(driver, "stuck")
    assert (row["run_id"], row["state"], row["why"]) == (1, state, why)


API_WHYS = {
    "api_unreachable": "the API cannot be reached",
    "api_not_found": "nothing is found at the URL of the API (404)",
}


@pytest.mark.parametrize("due", [LATER, JUST_NOW, LONG_AGO])
@pytest.mark.parametrize("code", sorted(API_ERRORS))
def test_stuck_by_an_error_of_the_api(driver: Driver, code: str, due: timedelta) -> None:
    """What the API answered is blamed on it: of a new run, and of one that needs a new URL."""
    _pending(driver, due, error_code=code, poll_errors=1)
    assert _why(driver) == API_WHYS.get(code, NO_ANSWER)
    _set(driver, ready_at=to_text(START), attempts=2, refreshes=1)
    assert _why(driver) == API_WHYS.get(code, NO_ANSWER)


@pytest.mark.parametrize("due", [LATER, JUST_NOW, LONG_AGO])
@pytest.mark.parametrize("code", [*sorted(TRANSFER_ERRORS), "one_of_a_later_version"])
def test_stuck_by_an_error_of_a_transfer(driver: Driver, code: str, due: timedelta) -> None:
    """What a transfer met is blamed on neither the API nor a daemon that is away.

    An attempt that is spent is told from a storage that is waited for at no cost.
    """
    whys = {"url_expired": URLS, "url_refused": URLS, "storage_unreachable": UNREACHABLE}
    _had_a_url(driver, due, error_code=code, attempts=1)
    assert _why(driver) == whys.get(code, ERRORS)
    _set(driver, attempts=0)
    assert _why(driver) == whys.get(code, STORAGE)
    _set(driver, attempts=0, refreshes=1)
    assert _why(driver) == whys.get(code, STORAGE)
    driver.execute("UPDATE runs SET state = 'ready', url = 'https://storage.example/1'")
    assert _why(driver) == whys.get(code, STORAGE)
    _set(driver, attempts=3)
    assert _why(driver) == whys.get(code, ERRORS)


BLOCK_WHYS: dict[tuple[blocks.Scope, str], str] = {
    ("api", "key_refused"): KEY,
    ("api", "payment_required"): "the service asks for payment: see blocks",
    ("api", "one_of_a_later_version"): "the API is not asked: see blocks",
    ("disk", "disk_full"): "the disk is full: see blocks",
    ("disk", "output_unusable"): "the output folder cannot be used: see blocks",
    ("disk", "one_of_a_later_version"): "nothing can be saved: see blocks",
}


@pytest.mark.parametrize("block", BLOCK_WHYS)
def test_stuck_by_a_block(driver: Driver, block: tuple[blocks.Scope, str]) -> None:
    """What is due and blocked is told so, whatever it has met before; what waits is not."""
    (scope, reason), why = block, BLOCK_WHYS[block]
    blocked, other = (_pending, _ready) if scope == "api" else (_ready, _pending)
    blocked(driver, LONG_AGO, polls=0)
    _block(driver, scope, reason)
    assert _why(driver) == why
    _set(driver, error_code="url_expired", refreshes=1)
    assert _why(driver) == why
    _set(driver, next_attempt_at=_at(LATER))
    assert _why(driver) == URLS
    driver.execute("DELETE FROM run_events")
    driver.execute("DELETE FROM runs")
    other(driver, LONG_AGO)
    assert DAEMON in _why(driver)


def test_every_block_has_a_reason() -> None:
    """Each block that the program knows is among those of the test above."""
    assert set(BLOCK_WHYS) >= BLOCKS


def test_others_are_served_first(driver: Driver) -> None:
    """Where leases show that somebody works, nobody asks for a daemon."""
    now = (utc_now() - START).total_seconds()
    driver.submit(1)
    driver.submit(2, seconds=1)
    driver.execute("UPDATE runs SET next_attempt_at = ? WHERE run_id = 2", to_text(at(-60)))
    [batch] = driver.claim_due(now, most=1)
    assert batch.batch.run_ids == (2,)
    assert _why(driver) == "not asked for yet: it waits for its turn"
    _set(driver, polls=1)
    assert _why(driver) == NOT_FINISHED
    driver.ready(3, seconds=now + 1)
    assert len(driver.claim_ready(now + 1).claimed) == 1
    driver.execute(
        "UPDATE runs SET state = 'ready', url = 'https://storage.example/1' WHERE run_id = 1"
    )
    assert _why(driver) == "it waits for its turn: others are being saved"


def test_an_unknown_run_is_stuck_at_once(driver: Driver) -> None:
    """A run that the service does not know is shown before its hour is over."""
    intake.submit(driver.database, TYPE, [1], utc_now())
    assert _view(driver, "stuck") == []
    _set(driver, unknown_answers=1, unknown_since=to_text(utc_now()), error_code="unknown_run")
    [row] = _view(driver, "stuck")
    assert (row["why"], row["unknown_answers"]) == (UNKNOWN, 1)


def test_not_stuck(driver: Driver) -> None:
    """What is new, being transferred, or at its end is not stuck."""
    now = (utc_now() - START).total_seconds()
    driver.done(1, seconds=now)
    driver.failed(2, seconds=now)
    driver.cancelled(3, seconds=now)
    driver.downloading(4, seconds=now)
    driver.ready(5, seconds=now)
    intake.submit(driver.database, "tts", [6], utc_now() - timedelta(minutes=59))
    assert _view(driver, "stuck") == []
    intake.submit(driver.database, "tts", [7], utc_now() - timedelta(minutes=61))
    assert [row["run_id"] for row in _view(driver, "stuck")] == [7]


def test_a_transfer_that_was_interrupted_is_not_stuck(driver: Driver) -> None:
    """Being put back spends nothing, and so does not make a new run look stuck."""
    now = (utc_now() - START).total_seconds()
    driver.end(driver.downloading(1, seconds=now), PUT_BACK, now)
    assert driver.states() == {1: "ready"}
    assert _view(driver, "stuck") == []


def test_throughput_by_hour(driver: Driver) -> None:
    """`throughput_by_hour` sums the saved files of each hour, and the mean time from submit."""
    for run_id, (submitted, saved) in enumerate([(0, 10), (0, 20), (0, 3600), (7200, 7201)], 1):
        driver.ready(run_id, seconds=submitted)
        claims = driver.claim_ready(saved).claimed
        assert [claim.run.key for claim in claims] == [key(run_id)]
        driver.end(claims, published(run_id, size=100), saved)
    driver.submit(9)
    rows = sorted(_view(driver, "throughput_by_hour"), key=lambda row: str(row["hour"]))
    assert [(row["hour"], row["runs"], row["bytes"]) for row in rows] == [
        ("2026-03-01 12:00:00", 2, 200),
        ("2026-03-01 13:00:00", 1, 100),
        ("2026-03-01 14:00:00", 1, 100),
    ]
    means = [row["mean_seconds_from_submit"] for row in rows]
    assert means == pytest.approx([15.0, 3600.0, 1.0], abs=0.01)


def _minutes_ago(minutes: float) -> float:
    return (utc_now() - START).total_seconds() - minutes * 60


def test_eta(driver: Driver) -> None:
    """`eta` takes the last hour's rate, from its first run on, for what is unfinished."""
    driver.done(1, 2, 3, seconds=_minutes_ago(61), size=7)
    driver.done(4, seconds=_minutes_ago(30), size=20)
    driver.done(5, 6, seconds=_minutes_ago(20), size=30)
    driver.failed(7, seconds=_minutes_ago(10))
    driver.done(8, seconds=_minutes_ago(-60), size=40)  # the clock was set back since
    driver.submit(10, 11, 12, seconds=_minutes_ago(1))
    [row] = _view(driver, "eta")
    assert (row["unfinished"], row["finished_last_hour"], row["bytes_last_hour"]) == (3, 4, 80)
    assert row["runs_per_hour"] == pytest.approx(6, rel=0.05)
    assert row["seconds_left"] == pytest.approx(1800, rel=0.05)
    expected = (from_text(row["expected_at"]) - utc_now()).total_seconds()
    assert expected == pytest.approx(row["seconds_left"], abs=60)


def test_eta_of_stragglers(driver: Driver) -> None:
    """For how long nothing has ended, nothing may end yet: a few that never finish take long."""
    driver.done(*range(1, 31), seconds=_minutes_ago(40))
    driver.done(*range(31, 61), seconds=_minutes_ago(25))
    driver.submit(100, seconds=_minutes_ago(50))
    [row] = _view(driver, "eta")
    assert row["runs_per_hour"] == pytest.approx(88.5, rel=0.05)
    assert row["seconds_left"] == pytest.approx(25 * 60, abs=60)


@pytest.mark.parametrize(
    ("done", "pending", "known"),
    [((), (9,), (False, False)), ((1,), (9,), (False, False)), ((1, 2), (), (True, False))],
    ids=["nothing finished", "one finished", "nothing is left"],
)
def test_no_eta(
    driver: Driver, done: tuple[int, ...], pending: tuple[int, ...], known: tuple[bool, bool]
) -> None:
    """`eta` says nothing that nothing is known of."""
    driver.done(*done, seconds=_minutes_ago(5))
    driver.submit(*pending)
    [row] = _view(driver, "eta")
    assert (row["unfinished"], row["finished_last_hour"]) == (len(pending), len(done))
    assert (row["runs_per_hour"] is not None, row["seconds_left"] is not None) == known
    assert (row["expected_at"] is None) == (row["seconds_left"] is None)


def test_unfinished(driver: Driver) -> None:
    """`unfinished` has each run that is not at its end, with the columns that `runs` has."""
    driver.one_of_each_state()
    for row in (found := _view(driver, "unfinished")):
        assert row.items() <= driver.row(row["run_id"]).items()
    assert {row["run_id"]: row["state"] for row in found} == {
        1: "pending",
        2: "ready",
        3: "downloading",
    }


def test_transfers_by_run(driver: Driver) -> None:
    """`transfers_by_run` counts a transfer that was cancelled, or is under way, as neither."""
    claims = driver.downloading(1, 2, 3)
    driver.end([claim for claim in claims if claim.run.key == key(2)], published(2), 5)
    control.cancel(driver.database, [key(3)], utc_now())
    driver.end(driver.begun(5, seconds=1).begun, PUT_BACK, 2)
    driver.submit(4)
    found = _view(driver, "transfers_by_run")
    counts = ["run_id", "transfers", "saved", "errors", "broken_off"]
    assert [[row[name] for name in counts] for row in found] == [
        [1, 1, 0, 0, 0],
        [2, 1, 1, 0, 0],
        [3, 1, 0, 0, 0],
        [5, 1, 0, 0, 1],
    ]
    began = "2026-03-01 12:00:01.000000"
    assert (found[-1]["first_at"], found[-1]["last_at"]) == (began, began)
