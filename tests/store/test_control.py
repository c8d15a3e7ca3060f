from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from store.driving import OTHER_TYPE, TYPE, Driver, at, key, published

from downloader.errors import InputError
from downloader.rules.resume import Journal
from downloader.rules.states import State
from downloader.rules.steps import TransferFailed, UrlReceived
from downloader.store import blocks, control, inspection, leases, listing, transfers
from downloader.store.listing import Filter
from downloader.store.status import status

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from downloader.store.control import Changed

ALL = [key(run_id) for run_id in range(1, 7)]
STATES = dict(
    zip(ALL, ["pending", "ready", "downloading", "done", "failed", "cancelled"], strict=False)
)


def _assert_unchanged(changed: Changed, states: set[str]) -> None:
    assert changed.unchanged == {one: state for one, state in STATES.items() if state in states}


def test_cancel(driver: Driver) -> None:
    """Unfinished runs are cancelled, others are not."""
    driver.one_of_each_state()
    changed = control.cancel(driver.database, ALL, at(5))
    assert changed.changed == [key(1), key(2), key(3)]
    _assert_unchanged(changed, {"done", "failed", "cancelled"})
    for run_id in (1, 2, 3):
        row = driver.row(run_id)
        kept = [row[name] for name in ("url", "url_expires_at", "lease_owner", "next_attempt_at")]
        assert (row["state"], kept) == ("cancelled", [None] * 4)
        assert driver.reasons(run_id)[-1] == "cancel"
    assert driver.query(
        "SELECT from_state FROM run_events WHERE at = ?", "2026-03-01 12:00:05.000000"
    ) == [
        ("pending",),
        ("ready",),
        ("downloading",),
    ]


@pytest.mark.parametrize("change", [control.cancel, control.retry])
def test_a_run_that_is_not_tracked(driver: Driver, change: Callable[..., Changed]) -> None:
    """With one run that is not tracked among them, no run is changed."""
    driver.one_of_each_state()
    before = driver.states()
    with pytest.raises(InputError, match=r"Run 7 .* not tracked"):
        change(driver.database, [*ALL, key(7)], at(5))
    assert driver.states() == before


def test_a_cancelled_transfer_finds_its_lease_gone(driver: Driver) -> None:
    """Whoever transfers a run that is cancelled sees it, and cannot publish."""
    [claim] = driver.downloading(1)
    control.cancel(driver.database, [key(1)], at(1))
    held = [(claim.run.key, claim.lease)]
    assert leases.lost_leases(driver.database, held) == {claim.lease}
    assert driver.end([claim], published(1), 2) == [False]
    assert driver.states() == {1: "cancelled"}


def test_retry(driver: Driver) -> None:
    """Failed and cancelled runs are put back, others are not."""
    driver.one_of_each_state()
    changed = control.retry(driver.database, ALL, at(5))
    assert changed.changed == [key(5), key(6)]
    _assert_unchanged(changed, {"pending", "ready", "downloading", "done"})
    assert (driver.reasons(5)[-1], driver.reasons(6)[-1]) == ("retry", "retry")


def test_a_retried_run_is_as_if_submitted_anew(driver: Driver) -> None:
    """A retried run has fresh counters, no trace of its errors, and its deadline from now.

    But for the object that its part is of: that is gone on with.
    """
    [claim] = driver.downloading(1)
    transfers.note_object(driver.database, claim, Journal('"e"', 7), at(0))
    driver.end([claim], TransferFailed("http_404", "Gone.", attempts=8, refreshes=3))
    assert control.retry(driver.database, [key(1)], at(50)).changed == [key(1)]
    driver.submit(2, seconds=50)
    one, other = driver.row(1), driver.row(2)
    assert one | {"run_id": 2, "etag": None, "bytes": None} == other
    assert (one["etag"], one["bytes"]) == ('"e"', 7)
    assert driver.reasons(1)[-2:] == ["http_404", "retry"]


def test_a_run_named_twice(driver: Driver) -> None:
    """A run named twice is changed once."""
    driver.submit(1)
    assert control.cancel(driver.database, [key(1), key(1)], at(0)).changed == [key(1)]
    assert driver.reasons(1) == ["submitted", "cancel"]


def test_retry_of_all_that_failed(driver: Driver) -> None:
    """Every failed run of the type, or of all types, is put back, and no other."""
    driver.one_of_each_state()
    driver.failed(8, 9)
    control.cancel(driver.database, [key(9)], at(0))
    assert control.retry_failed(driver.database, OTHER_TYPE, at(1)) == 0
    assert control.retry_failed(driver.database, TYPE, at(1)) == 3
    assert control.retry_failed(driver.database, None, at(1)) == 0
    states = driver.states()
    assert [states[run_id] for run_id in (4, 5, 6, 8, 9)] == [
        "done",
        "pending",
        "cancelled",
        "pending",
        "pending",
    ]
    driver.poll(8, step=UrlReceived("https://s/8", None, None), seconds=2)
    assert driver.reasons(8) == ["submitted", "provider_failed", "retry", "url_received"]
    [row] = driver.query(
        "SELECT from_state, to_state, detail FROM run_events WHERE run_id = 5 AND reason = 'retry'"
    )
    assert row == ("failed", "pending", None)


def test_many_runs_are_changed_in_parts(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has a transaction of its own; together they change, and tell of, each run once."""
    monkeypatch.setattr(control, "PART", 7)
    driver.submit(*range(1, 31))
    driver.done(31)
    keys = [key(run_id) for run_id in range(31, 0, -1)]
    with pytest.raises(InputError, match="32"):
        control.cancel(driver.database, [*keys, key(32)], at(1))
    assert set(driver.states().values()) == {"pending", "done"}
    changed = control.cancel(driver.database, keys, at(1))
    assert changed.changed == keys[1:]
    assert changed.unchanged == {key(31): "done"}
    driver.execute(
        "UPDATE runs SET state = 'failed', error_code = 'x', error_message = 'X.' WHERE run_id < 30"
    )
    assert control.retry_failed(driver.database, TYPE, at(2)) == 29
    assert control.retry(driver.database, keys, at(3)).changed == [key(30)]
    assert [driver.reasons(run_id) for run_id in range(1, 31)] == [
        ["submitted", "cancel", "retry"]
    ] * 30


def test_blocks(driver: Driver) -> None:
    """What stops the service is told once a scope, with its latest reason and how often tried."""
    database = driver.database
    assert blocks.current_blocks(database) == []

    def pause(probes: int) -> float:
        return 10.0 * (probes + 1)

    def block(scope: blocks.Scope, reason: str, message: str, now: int) -> datetime:
        return blocks.block(database, scope, reason, message, now=at(now), pause_seconds=pause)

    assert block("api", "key_refused", "Refused.", 1) == at(11)
    assert block("disk", "disk_full", "Full.", 0) == at(10)
    # Many tasks meet a trouble at once: they are one try, and wait no longer for it.
    assert block("disk", "disk_full", "Still full.", 5) == at(10)
    assert block("api", "payment", "Pay.", 11) == at(31)
    assert blocks.current_blocks(database) == [
        blocks.Block("disk", "disk_full", "Still full.", at(0), at(10), 1),
        blocks.Block("api", "payment", "Pay.", at(11), at(31), 2),
    ]
    assert status(database, at(20)).blocked == blocks.current_blocks(database)
    assert blocks.unblock(database, "disk")
    assert not blocks.unblock(database, "disk")
    assert [block.scope for block in blocks.current_blocks(database)] == ["api"]


def test_status(driver: Driver) -> None:
    """The status counts every state, saved bytes alone, and knows the oldest unfinished run."""
    empty = status(driver.database, at(20))
    assert (set(empty.runs.values()), empty.bytes, empty.oldest_unfinished_at) == ({0}, 0, None)
    assert list(empty.runs) == [state.value for state in State]
    driver.done(10, 11, seconds=1, size=500)
    assert status(driver.database, at(20)).oldest_unfinished_at is None
    assert not inspection.any_unfinished(driver.database, [TYPE])
    [claim] = driver.downloading(12, seconds=2)
    transfers.note_object(driver.database, claim, Journal(None, 10**9), at(2))
    driver.submit(13, 14, seconds=3)
    found = status(driver.database, at(20))
    assert found.runs == dict.fromkeys(found.runs, 0) | {"pending": 2, "downloading": 1, "done": 2}
    assert (found.bytes, found.oldest_unfinished_at) == (1000, at(2))
    assert inspection.count_unfinished(driver.database) == 3
    assert inspection.any_unfinished(driver.database, [TYPE])


@pytest.mark.parametrize("state", list(State))
def test_unfinished(driver: Driver, state: State) -> None:
    """Pending, ready and downloading are unfinished; the others are at their end."""
    getattr(driver, "submit" if state == "pending" else state.value)(1)
    unfinished = state in {State.PENDING, State.READY, State.DOWNLOADING}
    assert inspection.any_unfinished(driver.database, [TYPE]) is unfinished
    assert inspection.count_unfinished(driver.database) == unfinished


def test_lists(driver: Driver) -> None:
    """Runs are listed the last changed first, by state and type, as many as asked for."""
    driver.submit(1, 2, seconds=0)
    driver.submit(3, seconds=5, run_type=OTHER_TYPE)
    driver.failed(4, seconds=3)

    def ids(*states: State, run_type: str | None = None, limit: int | None = None) -> list[int]:
        rows = listing.list_runs(driver.database, Filter(states, run_type), limit=limit)
        return [row["run_id"] for row in rows]

    driver.execute("UPDATE runs SET updated_at = submitted_at")
    assert ids() == [3, 4, 2, 1]
    assert ids(State.PENDING) == [3, 2, 1]
    assert ids(State.PENDING, run_type=TYPE) == [2, 1]
    assert ids(limit=2) == [3, 4]
    assert ids(State.DONE) == []
    assert ids(State.PENDING, State.FAILED) == [3, 4, 2, 1]


def test_a_long_list_is_whole(driver: Driver) -> None:
    """A list longer than what is fetched at a time has every run once."""
    driver.submit(*range(1, 2502))
    rows = listing.list_runs(driver.database, Filter())
    assert sorted(row["run_id"] for row in rows) == list(range(1, 2502))


def test_one_run(driver: Driver) -> None:
    """One run is shown with its history; one that is not tracked is not there."""
    driver.done(1)
    assert listing.show_run(driver.database, key(1, OTHER_TYPE)) is None
    assert listing.show_run(driver.database, key(2)) is None
    found = listing.show_run(driver.database, key(1))
    assert found is not None
    run, history = found
    assert (run["state"], run["done_at"]) == ("done", at(0))
    assert [event.to_state for event in history] == ["pending", "ready", "downloading", "done"]
    assert inspection.states_of(driver.database, [key(1), key(2)]) == {key(1): "done"}


def test_what_was_saved_of_late(driver: Driver) -> None:
    """A status tells of the last hour; its first file starts the measure and is not counted."""
    driver.done(1, 2, seconds=0, size=100)
    driver.done(3, 4, 5, seconds=1000, size=500)

    def of_late(now: float) -> tuple[float, int, int]:
        found = status(driver.database, at(now)).recent
        return found.seconds, found.runs, found.bytes

    assert of_late(1000) == (1000, 2, 200)  # what comes at this moment is not before it
    assert of_late(1001) == (1001, 5, 1700)
    assert of_late(3601) == (2601, 3, 1500)
    assert of_late(4601) == (0, 0, 0)
    rates = status(driver.database, at(2000)).recent.per_second
    assert rates == pytest.approx((4 / 2000, 4 / 2000 * 340))


def test_one_file_makes_no_rate(driver: Driver) -> None:
    """Of one file, and of a clock that was set back, a status tells no rate."""
    driver.done(1, seconds=0, size=100)
    assert status(driver.database, at(10)).recent.per_second is None
    driver.done(2, 3, seconds=20, size=100)
    assert status(driver.database, at(5)).recent.per_second is None


def test_failures_that_came_last(driver: Driver) -> None:
    """A status tells of the three runs that failed last, the newest first, and why."""
    for run_id in range(1, 6):
        driver.failed(run_id, seconds=run_id, message=f"Reason {run_id}")
    found = status(driver.database, at(10)).failures
    assert [(one.run_id, one.error_message, one.failed_at) for one in found] == [
        (5, "Reason 5", at(5)),
        (4, "Reason 4", at(4)),
        (3, "Reason 3", at(3)),
    ]


def test_filters(driver: Driver) -> None:
    """A list can be of an error, and of what was submitted before or after a moment."""
    driver.submit(1, seconds=0)
    driver.submit(2, seconds=100)
    driver.failed(3, seconds=50)
    driver.done(4, seconds=200)

    def ids(which: Filter) -> set[int]:
        return {row["run_id"] for row in listing.list_runs(driver.database, which)}

    assert ids(Filter(error_codes=("provider_failed", "other"))) == {3}
    assert ids(Filter(submitted_before=at(50))) == {1, 3}
    assert ids(Filter(submitted_after=at(50))) == {2, 3, 4}
    assert ids(Filter(submitted_after=at(40), submitted_before=at(60))) == {3}
    assert ids(Filter((State.PENDING,), TYPE, (), at(100), at(1))) == {2}


def test_saved_files(driver: Driver) -> None:
    """What is saved is told in the order of the run ids, whatever was saved first."""
    driver.done(30, seconds=1)
    driver.done(4, seconds=2)
    driver.submit(5)
    found = list(listing.saved_files(driver.database, Filter()))
    assert [row["run_id"] for row in found] == [4, 30]
    assert found[0] == {
        "run_type": TYPE,
        "run_id": 4,
        "location": "/audio/4.wav",
        "bytes": 1000,
        "sha256": f"{4:064x}",
        "audio_format": "wav",
        "submitted_at": at(2),
        "done_at": at(2),
    }
    assert [
        row["run_id"] for row in listing.saved_files(driver.database, Filter(run_type="x"))
    ] == []
