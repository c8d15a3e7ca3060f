"""Asking before the time, putting off unasked, and what the history tells of the past."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from store.driving import OTHER_TYPE, TYPE, Driver, at, key, published, signed_url

from downloader.rules.pace import Lead, PutOff, Recall
from downloader.rules.steps import NewUrl, PollLater, UrlReceived
from downloader.store import control, pacing, past, polling
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from downloader.rules.states import RunKey
    from downloader.store.polling import DueRun


def _put_off(
    driver: Driver,
    *,
    most: int = 1000,
    submitted: tuple[float, float] = (-1, 1e6),
    due_before: float = 100,
    asked_before: float = 100,
    until: float = 140,
    longest: float = 300,
    jitter: float = 0.0,
) -> int:
    decided = PutOff(
        TYPE,
        at(submitted[0]),
        at(submitted[1]),
        most,
        at(due_before),
        at(asked_before),
        at(until),
    )
    return pacing.put_off(driver.database, decided, max_poll_seconds=longest, jitter=jitter)


def _near(
    driver: Driver, run_id: int, seconds: float, *, upwards: bool, quiet: float = 5
) -> list[int]:
    lead = Lead(key(run_id), upwards, strong=True, quiet_seconds=quiet, submitted_until=at(3))
    batches = pacing.claim_near(
        driver.database, driver.owner, [lead], now=at(seconds), lease_until=at(seconds + 60)
    )
    assert all(batch.lead == lead for batch in batches)
    return [run_id for batch in batches for run_id in batch.batch.run_ids]


def _due(driver: Driver, run_type: str = TYPE) -> dict[int, str]:
    """Return when each pending run is due: minutes and seconds."""
    sql = "SELECT run_id, next_attempt_at FROM runs WHERE state = 'pending' AND run_type = ?"
    return {run_id: text[14:19] for run_id, text in driver.query(sql, run_type)}


def test_due_runs_are_put_off(driver: Driver) -> None:
    """All due runs but a few evenly spread wait until the moment given; nothing else changes."""
    driver.submit(*range(1, 101))
    before = driver.row(50)
    assert _put_off(driver, most=100, until=140) == 94
    due = _due(driver)
    kept = [run_id for run_id in due if due[run_id] == "00:00"]
    # And those at both ends: there they begin to finish, where they do so in some order.
    assert kept == [1, 20, 40, 60, 80, 100]
    after = driver.row(50)
    assert {name for name in after if after[name] != before[name]} == {"next_attempt_at"}
    # The order stays, and each is asked for at its time.
    assert sorted(run.key.run_id for one in driver.claim_due(139) for run in one.runs) == kept
    assert [one.batch.run_ids for one in driver.claim_due(140, most=5)] == [(2, 3, 4, 5, 6)]


def test_other_samples_are_kept_another_time(driver: Driver) -> None:
    """Which runs stay due is drawn anew each time."""
    driver.submit(*range(1, 21))
    _put_off(driver, most=20, jitter=0.6)
    assert [run_id for run_id, due in _due(driver).items() if due == "00:00"] == [
        1,
        2,
        6,
        10,
        14,
        18,
        20,
    ]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 4),
        ({"most": 4}, 1),
        ({"until": 1000}, 4),
        ({"due_before": 301, "until": 400}, 0),  # the longest pause ends before they are due again
        ({"until": 140, "longest": 99}, 0),
        ({"submitted": (0, 100)}, 0),  # older
        ({"submitted": (-10, -1)}, 0),  # younger
        ({"due_before": -1}, 0),
    ],
)
def test_which_runs_are_put_off(driver: Driver, changes: dict[str, float], count: int) -> None:
    """Only so many, of the age given, due by the time given, and never beyond the longest pause."""
    driver.submit(*range(1, 11))
    driver.submit(*range(1, 11), run_type=OTHER_TYPE)
    options = {"most": 10} | changes
    assert _put_off(driver, **options) == count  # type: ignore[arg-type]  # a table of options
    assert set(_due(driver, OTHER_TYPE).values()) == {"00:00"}
    due = set(_due(driver).values()) - {"00:00"}
    assert due <= {"05:00" if options.get("until", 0) > 300 else "02:20"}


def test_runs_with_a_reason_to_be_asked_for_are_not_put_off(driver: Driver) -> None:
    """Claimed runs, runs with an error, and those asked for just now stay as they are."""
    driver.submit(*range(1, 9))
    driver.poll(*range(1, 8), step=PollLater(at(10), "PENDING"), seconds=1)
    for columns, run_id in (
        ("error_code = 'url_refused', error_message = 'Refused.'", 1),
        ("error_code = 'http_500', error_message = 'Answers 500.'", 2),
        (f"updated_at = '{to_text(at(90))}'", 3),
        (f"lease_owner = 'a:1', lease_expires_at = '{to_text(at(97))}'", 4),
        (f"updated_at = '{to_text(at(90))}'", 8),  # never asked for
    ):
        driver.execute(f"UPDATE runs SET {columns} WHERE run_id = ?", run_id)  # noqa: S608 - above
    before = _due(driver)
    assert _put_off(driver, asked_before=80, jitter=0.999) == 2
    after = _due(driver)
    assert {run_id for run_id in after if after[run_id] != before[run_id]} == {6, 7}
    driver.submit(9)  # 8 is no longer the last
    assert _put_off(driver, asked_before=80, jitter=0.999) == 1
    assert _due(driver)[8] != before[8]


def test_where_none_is_to_be_put_off_nothing_is_written(driver: Driver) -> None:
    """Looking for runs to put off, or to claim, takes no lock where there are none."""
    driver.submit(1, 2)
    driver.poll(1, 2, step=PollLater(at(500)))
    with driver.database.write():  # held by another meanwhile
        assert _put_off(driver) == 0
        assert driver.claim_due(100) == []
        assert _near(driver, 2, 10, upwards=True) == []


def test_runs_that_were_put_off_are_called_back(driver: Driver) -> None:
    """Those of the age and type that wait are due now, but what was asked for, or had an error."""
    driver.submit(*range(1, 101))
    _put_off(driver, most=100, until=140)
    driver.poll(1, step=PollLater(at(200)), seconds=90)
    driver.submit(101, seconds=50)
    driver.execute(
        "UPDATE runs SET error_code = 'http_500', error_message = 'No.' WHERE run_id = 2"
    )
    decided = Recall(TYPE, at(-1), at(20), at(80), at(100))
    assert pacing.recall(driver.database, decided) == 93
    due = _due(driver)
    assert (due[1], due[2], due[3], due[99], due[101]) == (
        "03:20",
        "02:20",
        "01:40",
        "01:40",
        "00:50",
    )
    assert pacing.recall(driver.database, decided) == 0


def test_neighbours_are_claimed_before_their_time(driver: Driver) -> None:
    """The nearest pending runs above or below a finished one are claimed, due or not."""
    driver.submit(*range(1, 30))
    driver.poll(*range(1, 30), step=PollLater(at(500)))
    assert _near(driver, 15, 10, upwards=True) == [16, 17, 18, 19, 20]
    assert _near(driver, 15, 10, upwards=False) == [14, 13, 12, 11, 10]
    assert _near(driver, 15, 10, upwards=True) == [21, 22, 23, 24, 25]
    assert _near(driver, 29, 10, upwards=True) == []
    row = driver.row(16)
    assert row["lease_expires_at"] == row["next_attempt_at"] == "2026-03-01 12:01:10.000000"


def test_which_neighbours_are_left_alone(driver: Driver) -> None:
    """None asked for just now, with an error, not pending, much younger, or of another type."""
    driver.submit(*range(1, 8))
    driver.poll(2, step=PollLater(at(500), None, "http_500", "Answers 500."))
    driver.poll(3, step=UrlReceived(signed_url(3), None, None))
    driver.poll(4, step=PollLater(at(500)), seconds=6)
    control.cancel(driver.database, [key(6)], at(0))
    driver.submit(8, run_type=OTHER_TYPE)
    driver.submit(9, seconds=3.001)
    driver.execute(
        "UPDATE runs SET lease_owner = 'a:1', lease_expires_at = next_attempt_at WHERE run_id = 5"
    )
    # 7 was claimed beside 4 and given back.
    assert _near(driver, 1, 10, upwards=True) == []
    assert _near(driver, 1, 11, upwards=True) == [4, 7]


def test_far_neighbours_are_not_looked_for(driver: Driver) -> None:
    """Where hundreds of neighbours are done already, the next pending one is no neighbour."""
    driver.submit(*range(1, 301))
    control.cancel(driver.database, [key(run_id) for run_id in range(2, 300)], at(0))
    assert _near(driver, 1, 10, upwards=True) == []
    assert _near(driver, 60, 10, upwards=True) == [300]


def test_runs_that_are_too_young(driver: Driver) -> None:
    """A due run that is judged too young is left alone until the moment given, and no filler."""
    driver.submit(1, 2)

    def too_young(due: Sequence[DueRun], now: datetime) -> dict[RunKey, datetime]:
        assert now == at(1)
        return {run.key: now + timedelta(seconds=20) for run in due if run.key == key(2)}

    batches = _claim_unless_young(driver, 1, too_young)
    assert batches == [(1,)]
    assert driver.row(2)["next_attempt_at"] == "2026-03-01 12:00:21.000000"
    driver.submit(3, seconds=2)
    assert [one.batch.run_ids for one in driver.claim_due(2, soon=60)] == [(3,)]
    assert [one.batch.run_ids for one in driver.claim_due(21)] == [(2,)]


def _claim_unless_young(driver: Driver, seconds: float, too_young: object) -> list[tuple[int, ...]]:
    """Claim due runs as the poller does, with its judgement of the young ones."""
    return [
        one.batch.run_ids
        for one in polling.claim_due(
            driver.database,
            driver.owner,
            [TYPE],
            wanted=polling.Wanted(10),
            now=at(seconds),
            cutoff=at(seconds),
            soon_seconds=60,
            lease_until=at(seconds + 60),
            too_young=too_young,  # type: ignore[arg-type]  # the test's own judge
        )
    ]


def test_what_waits_after_an_error_fills_no_batch(driver: Driver) -> None:
    """A run that is to be asked for later after an error is not asked for before its time."""
    driver.submit(1, 2)
    driver.poll(1, step=PollLater(at(50), "PENDING"))
    driver.poll(2, step=PollLater(at(40), None, "throttled", "Too many requests."))
    driver.submit(3, seconds=5)
    assert [one.batch.run_ids for one in driver.claim_due(5, soon=300)] == [(3, 1)]
    assert [one.batch.run_ids for one in driver.claim_due(40)] == [(2,)]


def test_no_past(driver: Driver) -> None:
    """Of a type that nothing has finished of nothing is known."""
    assert past.past_durations(driver.database) == {}
    driver.submit(1, 2, 3)
    assert past.past_durations(driver.database) == {}


def test_the_past(driver: Driver) -> None:
    """What runs took is known by type: 0 of one that was finished when it was first asked for."""
    driver.submit(1, 2, 3)
    driver.poll(1, step=UrlReceived(signed_url(1), None, None), seconds=7)
    driver.poll(2, 3, step=PollLater(at(10)), seconds=8)
    driver.poll(2, step=UrlReceived(signed_url(2), None, None), seconds=40)
    for claim in driver.claim_ready(41).claimed:
        driver.end([claim], published(claim.run.key.run_id), 42)
    driver.poll(3, step=UrlReceived(signed_url(3), None, None), seconds=30)
    [claim] = driver.claim_ready(43).claimed
    expired = NewUrl(at(44), "url_expired", "Expired.", attempts=0, refreshes=1)
    driver.end([claim], expired, 44)
    driver.poll(3, step=UrlReceived(signed_url(3), None, None), seconds=200)
    found = past.past_durations(driver.database)
    assert {name: one.durations for name, one in found.items()} == {TYPE: (0.0, 40.0)}


def test_the_past_before_a_large_submission(driver: Driver) -> None:
    """Thousands of new runs do not hide how long those before them took."""
    driver.submit(*range(1, 200))
    driver.poll(*range(1, 200), step=PollLater(at(10)), seconds=1)
    driver.poll(*range(1, 200), step=UrlReceived(signed_url(1), None, None), seconds=50)
    driver.submit(*range(1000, 6000), seconds=100)
    found = past.past_durations(driver.database)[TYPE].durations
    assert len(found) >= 16
    assert set(found) == {50.0}
