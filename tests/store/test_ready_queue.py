from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from store.driving import PUT_BACK, Driver, at, key, published, signed_url

from downloader.rules.decisions import UNREACHABLE
from downloader.rules.resume import Journal
from downloader.rules.steps import (
    HeldUp,
    NewUrl,
    Published,
    PutBack,
    TransferFailed,
    TryAgain,
    UrlReceived,
)
from downloader.store import control, leases, transfers
from downloader.store.leases import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from downloader.rules.steps import ReadyStep, TransferStep
    from downloader.store.transfers import Ready, ReadyRun

NEW_URL = NewUrl(at(9), "url_expired", "Expired.", attempts=0, refreshes=1)
GIVE_UP = TransferFailed("url_expired", "Expired.", attempts=0, refreshes=20)
TRY_AGAIN = TryAgain(at(9), "reset", "The connection was reset.", 1)


def _ids(found: Ready) -> list[int]:
    return [claim.run.key.run_id for claim in found.claimed]


def _expired_at(seconds: float, step: ReadyStep) -> Callable[[ReadyRun], ReadyStep | None]:
    def judge(run: ReadyRun) -> ReadyStep | None:
        return step if run.url_expires_at and run.url_expires_at <= at(seconds) else None

    return judge


def test_the_earliest_to_expire_goes_first(driver: Driver) -> None:
    """Runs are claimed by the end of their URL, those of unknown end last, oldest first."""
    driver.ready(1, expires=None, seconds=1)
    driver.ready(2, expires=None, seconds=0)
    driver.ready(3, expires=900, seconds=2)
    driver.ready(4, expires=300, seconds=2)
    driver.ready(5, expires=600, seconds=2)
    assert _ids(driver.claim_ready(5, most=2)) == [4, 5]
    assert _ids(driver.claim_ready(5, most=9)) == [3, 2, 1]
    assert _ids(driver.claim_ready(5, most=9)) == []


def test_a_claim_brings_what_the_transfer_needs(driver: Driver) -> None:
    """A claimed run comes with its URL, what was spent, and the object that its part is of."""
    [first] = driver.downloading(1)
    transfers.note_object(driver.database, first, Journal('"e"', 77), at(1))
    driver.end([first], TRY_AGAIN, 1)
    assert driver.row(1)["bytes"] == 77
    [claim] = driver.claim_ready(9).claimed
    assert claim.run == transfers.ReadyRun(
        key(1), signed_url(1), at(3600), at(0), 1, 0, '"e"', 77, "reset", at(0), failing_since=at(1)
    )
    row = driver.row(1)
    assert (row["state"], row["next_attempt_at"]) == ("downloading", None)
    assert (row["lease_owner"], row["lease_expires_at"]) == (
        claim.lease,
        "2026-03-01 12:01:09.000000",
    )
    assert claim.lease != first.lease


def test_a_run_that_backs_off_waits(driver: Driver) -> None:
    """A run whose transfer failed is neither claimed nor counted before its next attempt."""
    driver.end(driver.downloading(1), TRY_AGAIN)
    assert (_ids(driver.claim_ready(8.9)), transfers.count_ready(driver.database, at(8.9))) == (
        [],
        0,
    )
    assert transfers.count_ready(driver.database, at(9)) == 1
    assert _ids(driver.claim_ready(9)) == [1]


def test_an_expired_url_goes_back_for_another(driver: Driver) -> None:
    """Runs whose URL is judged too old leave the queue in the same call that claims others."""
    driver.ready(1, expires=10)
    driver.ready(2, expires=100)
    found = driver.claim_ready(10, judge=_expired_at(10, NEW_URL))
    assert (_ids(found), found.expired, found.failed) == ([2], 1, 0)
    row = driver.row(1)
    assert (row["state"], row["url"], row["url_expires_at"]) == ("pending", None, None)
    assert (row["refreshes"], row["attempts"], row["error_code"]) == (1, 0, "url_expired")
    assert row["next_attempt_at"] == "2026-03-01 12:00:09.000000"
    assert driver.reasons(1) == ["submitted", "url_received", "url_expired"]


def test_expired_urls_are_put_back_together(driver: Driver) -> None:
    """Where one URL has expired all that have are put back in the same turn; the others are not."""
    driver.ready(*range(1, 101), expires=60, seconds=0)
    driver.ready(101, expires=600, seconds=1)
    driver.ready(102, expires=70, seconds=1)
    found = driver.claim_ready(65, most=5, judge=_expired_at(65, NEW_URL))
    assert (_ids(found), found.expired, found.failed) == ([], 100, 0)
    assert set(driver.query("SELECT state FROM runs WHERE run_id <= 100")) == {("pending",)}
    told = "SELECT count(*), count(DISTINCT run_id) FROM run_events WHERE reason = 'url_expired'"
    assert driver.query(told) == [(100, 100)]
    assert _ids(driver.claim_ready(65, most=5, judge=_expired_at(65, NEW_URL))) == [102, 101]


HOST_CODES = {UNREACHABLE, "storage_busy"}


def test_runs_that_are_held_up(driver: Driver) -> None:
    """A run whose storage is out of reach stays ready, unclaimed, until its time or the word."""
    driver.ready(1, 2)
    held_up = HeldUp(at(90), UNREACHABLE, "Nobody is there.")
    found = driver.claim_ready(10, judge=lambda run: held_up if run.key.run_id == 1 else None)
    assert (_ids(found), found.held_up, found.found) == ([2], 1, 2)
    row = driver.row(1)
    assert (row["state"], row["attempts"], row["error_code"]) == ("ready", 0, UNREACHABLE)
    assert driver.reasons(1) == ["submitted", "url_received"]
    assert driver.end(list(found.claimed), held_up, 11) == [True]
    assert driver.row(2)["attempts"] == 0
    assert driver.reasons(2)[-1] == UNREACHABLE
    assert transfers.count_held_up(driver.database, at(12), HOST_CODES) == 2
    assert _ids(driver.claim_ready(12)) == []
    assert transfers.end_hold_up(driver.database, at(13), HOST_CODES) == 2
    assert transfers.count_held_up(driver.database, at(13), HOST_CODES) == 0
    assert sorted(_ids(driver.claim_ready(13))) == [1, 2]


def test_an_expired_url_too_many(driver: Driver) -> None:
    """A run whose refreshes are spent fails, and says why."""
    driver.ready(1, expires=10)
    found = driver.claim_ready(10, judge=_expired_at(10, GIVE_UP))
    assert (_ids(found), found.expired, found.failed) == ([], 0, 1)
    row = driver.row(1)
    assert (row["state"], row["url"], row["refreshes"]) == ("failed", None, 20)
    assert (row["error_code"], row["error_message"]) == ("url_expired", "Expired.")
    assert driver.reasons(1)[-1] == "url_expired"


def test_those_that_have_met_trouble_come_last(driver: Driver) -> None:
    """A run without trouble goes before those that have met some, of which chance picks."""
    for run_id in range(1, 40):
        driver.end(driver.downloading(run_id), TryAgain(at(5), "reset", "Reset.", 1))
    driver.ready(40, seconds=8)
    first, *others = _ids(driver.claim_ready(30, most=20))
    assert (first, len(others)) == (40, 19)
    assert others != sorted(others)
    assert max(others) > 20


def test_the_cutoff(driver: Driver) -> None:
    """With a cutoff come runs due by then, and runs made ready since that nobody tried yet."""
    for run_id in (1, 2):
        driver.end(
            driver.downloading(run_id), TryAgain(at(5 if run_id == 1 else 20), "reset", "Reset.", 1)
        )
    driver.ready(3, seconds=15)
    assert _ids(driver.claim_ready(30, cutoff=10)) == [3, 1]
    assert _ids(driver.claim_ready(30, cutoff=10)) == []
    assert _ids(driver.claim_ready(30)) == [2]


def test_a_file_published(driver: Driver) -> None:
    """A saved file makes its run done, with all that is known of the file and no URL."""
    driver.end(driver.downloading(1), TRY_AGAIN)
    claims = driver.claim_ready(9).claimed
    step = Published("/a/1.flac", 123, "ab" * 32, "flac", '"tag"')
    assert driver.end(claims, step, 12) == [True]
    row = driver.row(1)
    assert (row["state"], row["location"], row["bytes"]) == ("done", "/a/1.flac", 123)
    assert (row["sha256"], row["audio_format"], row["etag"]) == ("ab" * 32, "flac", '"tag"')
    assert (row["url"], row["lease_owner"], row["attempts"]) == (None, None, 2)
    assert (row["error_code"], row["error_message"]) == (None, None)
    assert row["done_at"] == "2026-03-01 12:00:12.000000"
    assert driver.reasons(1)[-3:] == ["reset", "claimed", "published"]


def test_a_file_adopted(driver: Driver) -> None:
    """A file that was there already is told apart in the history."""
    step = Published("/a/1.wav", 1, "0" * 64, "wav", None, adopted=True)
    driver.end(driver.downloading(1), step)
    assert driver.reasons(1)[-1] == "adopted"


@pytest.mark.parametrize(
    ("step", "expected", "reason"),
    [
        (TRY_AGAIN, {"state": "ready", "attempts": 1, "error_code": "reset"}, "reset"),
        (
            NewUrl(at(9), "url_refused", "Refused.", attempts=3, refreshes=2),
            {"state": "pending", "attempts": 3, "refreshes": 2, "url": None},
            "url_refused",
        ),
        (
            PutBack(at(9), "stopped"),
            {"state": "ready", "attempts": 0, "error_code": None},
            "stopped",
        ),
        (
            TransferFailed("http_404", "Gone.", attempts=8, refreshes=2),
            {"state": "failed", "attempts": 8, "refreshes": 2, "error_message": "Gone."},
            "http_404",
        ),
    ],
)
def test_other_outcomes(
    driver: Driver, step: TransferStep, expected: dict[str, object], reason: str
) -> None:
    """Each outcome of a transfer sets what it must, and frees the lease."""
    assert driver.end(driver.downloading(1), step, 1) == [True]
    row = driver.row(1)
    assert {name: row[name] for name in expected} == expected
    assert (row["lease_owner"], row["lease_expires_at"]) == (None, None)
    due = None if row["state"] == "failed" else "2026-03-01 12:00:09.000000"
    assert row["next_attempt_at"] == due
    assert driver.reasons(1)[-1] == reason


STEPS = [published(1), TRY_AGAIN, NEW_URL, PUT_BACK, GIVE_UP]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("lost", ["rescued", "claimed again", "cancelled", "ended"])
def test_a_lost_lease(driver: Driver, step: TransferStep, lost: str) -> None:
    """Whoever has lost its lease changes nothing, and is told so."""
    [old] = driver.downloading(1)
    if lost == "cancelled":
        control.cancel(driver.database, [key(1)], at(1))
    elif lost == "ended":
        assert driver.end([old], published(1)) == [True]
    else:
        assert leases.rescue(driver.database, at(61)) == [key(1)]
    if lost == "claimed again":
        assert _ids(driver.claim_ready(61, owner=Owner())) == [1]
    before, reasons = driver.row(1), driver.reasons(1)
    assert driver.end([old], step, 62) == [False]
    assert not transfers.note_object(driver.database, old, Journal("other", 1), at(62))
    held = [(old.run.key, old.lease)]
    assert leases.extend_leases(driver.database, held, at(999), at(0)) == {old.lease}
    assert leases.lost_leases(driver.database, held) == {old.lease}
    assert (driver.row(1), driver.reasons(1)) == (before, reasons)


def test_one_lost_lease_among_others(driver: Driver) -> None:
    """In one commit of several outcomes the lost one is left out, and the others hold."""
    claims = driver.downloading(1, 2, 3)
    control.cancel(driver.database, [claims[1].run.key], at(1))
    assert driver.end(claims, PUT_BACK, 2) == [True, False, True]
    states = driver.states()
    assert [states[claim.run.key.run_id] for claim in claims] == ["ready", "cancelled", "ready"]


def test_rescue(driver: Driver) -> None:
    """Runs whose lease ran out are ready again at once, nothing spent; a live lease stays."""
    driver.downloading(1)
    driver.ready(2, seconds=30)
    driver.claim_ready(30)
    assert leases.rescue(driver.database, at(60)) == []
    assert leases.rescue(driver.database, at(60.001)) == [key(1)]
    assert driver.states() == {1: "ready", 2: "downloading"}
    row = driver.row(1)
    assert (row["attempts"], row["refreshes"], row["error_code"]) == (0, 0, None)
    assert row["url"] == signed_url(1)
    assert driver.reasons(1)[-1] == "lease_ran_out"
    assert leases.rescue(driver.database, at(60.001)) == []
    assert _ids(driver.claim_ready(61)) == [1]


def test_a_heartbeat_keeps_a_claim(driver: Driver) -> None:
    """An extended lease is not rescued before its new end."""
    [claim] = driver.downloading(1)
    held = [(claim.run.key, claim.lease)]
    assert leases.extend_leases(driver.database, held, at(100), at(0)) == set()
    assert leases.lost_leases(driver.database, held) == set()
    assert leases.rescue(driver.database, at(100)) == []
    assert leases.rescue(driver.database, at(101)) == [key(1)]


def test_nothing_at_all_to_do(driver: Driver) -> None:
    """Calls without runs do nothing and fail at nothing."""
    assert driver.end([], PUT_BACK) == []
    assert leases.extend_leases(driver.database, [], at(0), at(0)) == set()
    assert leases.lost_leases(driver.database, []) == set()
    assert driver.claim_ready() == transfers.Ready((), 0, 0)
    assert transfers.count_ready(driver.database, at(0)) == 0
    untracked = [(key(99), "nobody's")]
    assert leases.lost_leases(driver.database, untracked) == {"nobody's"}


def test_a_new_url_after_the_old_one(driver: Driver) -> None:
    """A run that goes back for another URL keeps what is known of its part until it is done."""
    [claim] = driver.downloading(1)
    assert transfers.note_object(driver.database, claim, Journal('"e"', 9), at(0))
    driver.end([claim], NEW_URL)
    driver.poll(1, step=UrlReceived("https://s/new", None, "SUCCESS"), seconds=9)
    [again] = driver.claim_ready(9).claimed
    assert (again.run.url, again.run.etag, again.run.total_bytes) == ("https://s/new", '"e"', 9)
    assert (again.run.refreshes, again.run.error_code) == (1, "url_expired")
