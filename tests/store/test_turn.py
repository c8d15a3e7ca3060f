"""All that there is to do in one transaction: what it comes to, and what it costs."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from store.driving import PUT_BACK, at, key, published, signed_url, url_received, usable

from downloader.rules.pace import Lead
from downloader.rules.resume import Journal
from downloader.rules.steps import (
    HeldUp,
    NewUrl,
    PollFailed,
    PollLater,
    TransferFailed,
    TryAgain,
    UrlReceived,
)
from downloader.store import control, leases, polling, transfers
from downloader.store.database import Database, database_url
from downloader.store.leases import Owner
from downloader.store.pacing import Near
from downloader.store.turn import Done, Turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from store.driving import Driver

    from downloader.rules.states import RunKey
    from downloader.rules.steps import PollStep, TransferStep

NEW_URL = NewUrl(at(0), "url_refused", "Refused.", attempts=0, refreshes=1)
TRY_AGAIN = TryAgain(at(0), "reset", "Reset.", attempts=1)
FAILED = TransferFailed("url_expired", "Expired.", attempts=0, refreshes=20)


def _ready(driver: Driver, seconds: float, *, expected: bool = False) -> transfers.Claim:
    moment, until = at(seconds), at(seconds + 60)
    return transfers.Claim(driver.owner, 100, moment, None, until, usable, expected)


def _of(batches: list[polling.ClaimedBatch]) -> dict[RunKey, str]:
    return {run.key: one.lease for one in batches for run in one.runs}


def _refused(driver: Driver) -> None:
    driver.end(driver.downloading(1), NEW_URL)


def _with_a_part(driver: Driver) -> None:
    [claim] = driver.downloading(1)
    transfers.note_object(driver.database, claim, Journal('"part"', 700, "then", "md5"), at(0))
    driver.end([claim], TRY_AGAIN)
    driver.end(driver.claim_ready().claimed, NEW_URL)


def _in_doubt(driver: Driver) -> None:
    driver.submit(1)
    driver.poll(1, step=PollLater(at(0), None, "unavailable", "503.", blamed=True))
    driver.poll(1, step=PollLater(at(0), "HTTP 404", unknown_since=at(0), unknown_answers=3))


@pytest.mark.parametrize(
    "before", [lambda driver: driver.submit(1), _refused, _with_a_part, _in_doubt]
)
def test_a_url_taken_at_once(
    driver: Driver, database_file: Path, tmp_path: Path, before: Callable[[Driver], None]
) -> None:
    """Row and transfer are as if it had been ready and claimed; the history has one event."""
    before(driver)
    told = driver.reasons(1)
    driver.database.empty_log()
    (tmp_path / "other.sqlite3").write_bytes(database_file.read_bytes())
    batches = driver.claim_due(5)
    [begun] = driver.answer(batches, seconds=7, lease=33).begun
    row = driver.row(1)
    assert row["state"] == "downloading"
    assert (row["lease_owner"], row["lease_expires_at"]) == (
        begun.lease,
        "2026-03-01 12:00:40.000000",
    )
    assert (row["url"], row["next_attempt_at"]) == (signed_url(1), None)
    assert row["ready_at"] == "2026-03-01 12:00:07.000000"
    assert driver.query("SELECT * FROM run_events ORDER BY event_id DESC LIMIT 1")[0][3:] == (
        "2026-03-01 12:00:07.000000",
        "pending",
        "downloading",
        "url_received",
        "SUCCESS",
    )
    assert driver.reasons(1) == [*told, "url_received"]
    with closing(Database(database_url(tmp_path / "other.sqlite3"))) as database:
        other = type(driver)(database)
        other.answer([], seconds=7)
        other.claim_due(5)
        [lease] = [one for (one,) in other.query("SELECT lease_owner FROM runs")]
        assert polling.record_polls(database, [(key(1), lease, url_received(1))], at(7)) == [True]
        [claimed] = other.claim_ready(7, lease=33).claimed
        assert claimed.run == begun.run
        assert other.row(1) == row | {"lease_owner": claimed.lease}


def test_what_was_begun_is_rescued_with_its_url(driver: Driver) -> None:
    """Where its process dies the run goes back, and keeps its URL."""
    driver.begun(1, lease=60)
    assert leases.rescue(driver.database, at(61)) == [key(1)]
    [claim] = driver.claim_ready(61).claimed
    assert claim.run.url == signed_url(1)


def test_a_url_that_is_valid_later_is_not_begun(driver: Driver) -> None:
    """It waits for its time, whoever would take it."""
    driver.submit(1)
    [(run, lease)] = _of(driver.claim_due()).items()
    step = UrlReceived(signed_url(1), None, None, next_attempt_at=at(9))
    turn = Turn(judged=[(run, lease, step)], begun=polling.Begun({run: "new"}, at(60)))
    assert driver.turn(turn) == Done(judged=[True])
    assert driver.states() == {1: "ready"}


POLL_STEPS: list[PollStep] = [
    url_received(0),
    PollLater(at(9), "PENDING"),
    PollLater(at(9), None, "unavailable", "503."),
    PollLater(at(9), None, "unavailable", "503.", blamed=True),
    PollLater(at(9), asked=False),
    PollFailed("provider_failed", "No."),
    PollFailed("deadline", "Too late.", answered=False),
]
TRANSFER_STEPS: list[TransferStep] = [
    published(0),
    TRY_AGAIN,
    HeldUp(at(0), "storage_busy", "503."),
    NEW_URL,
    PUT_BACK,
    FAILED,
]


def _lose(driver: Driver, lost: list[int], before: str) -> None:
    """Let others have these runs; the leases on them are lost."""
    if before == "cancelled":
        control.cancel(driver.database, [key(one) for one in lost], at(0))
    else:
        for one in lost:
            driver.execute("UPDATE runs SET lease_owner = 'other' WHERE run_id = ?", one)


def _assert_lost(driver: Driver, held: list[bool], lost: list[int], rows: dict[int, Any]) -> None:
    assert held == [one not in lost for one in range(1, len(held) + 1)]
    assert {one: (driver.row(one), driver.reasons(one)) for one in lost} == rows


@pytest.mark.parametrize("how", ["cancelled", "claimed by another"])
@pytest.mark.parametrize("lost", [[2], [1, 3], [1, 2, 3]])
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("step", POLL_STEPS)
def test_answers_of_lost_runs(
    driver: Driver, step: PollStep, lost: list[int], how: str, *, begins: bool
) -> None:
    """Of runs whose claim was lost nothing is written; the others of the same turn hold."""
    driver.submit(1, 2, 3)
    claims = _of(driver.claim_due())
    _lose(driver, lost, how)
    rows = {one: (driver.row(one), driver.reasons(one)) for one in lost}
    judged = [(run, claims[run], step) for run in sorted(claims)]
    new = {run: f"new:{run.run_id}" for run in claims} if begins else {}
    done = driver.turn(Turn(judged=judged, begun=polling.Begun(new, at(60))))
    _assert_lost(driver, done.judged, lost, rows)
    taken = {one.run.key.run_id: one.lease for one in done.begun}
    kept = {1, 2, 3} - set(lost) if begins and isinstance(step, UrlReceived) else set()
    assert taken == {one: f"new:{one}" for one in kept}


@pytest.mark.parametrize("how", ["cancelled", "claimed by another"])
@pytest.mark.parametrize("lost", [[2], [1, 3], [1, 2, 3]])
@pytest.mark.parametrize("step", TRANSFER_STEPS)
def test_outcomes_of_lost_runs(
    driver: Driver, step: TransferStep, lost: list[int], how: str
) -> None:
    """Of transfers whose lease was lost nothing is written; the others of the same turn hold."""
    claims = driver.downloading(1, 2, 3)
    _lose(driver, lost, how)
    rows = {one: (driver.row(one), driver.reasons(one)) for one in lost}
    held = driver.end(sorted(claims, key=lambda one: one.run.key), step)
    _assert_lost(driver, held, lost, rows)


def test_steps_of_every_kind_in_one_turn(driver: Driver) -> None:
    """Each step is carried out as it would be alone; a lease that none has had spoils none."""
    claims = driver.downloading(*range(1, 7))
    driver.submit(*range(11, 18))
    asked = _of(driver.claim_due())
    outcomes = [
        (key(number), {one.run.key: one.lease for one in claims}[key(number)], step)
        for number, step in enumerate(TRANSFER_STEPS, 1)
    ]
    judged = [(key(number), asked[key(number)], step) for number, step in enumerate(POLL_STEPS, 11)]
    done = driver.turn(
        Turn([(key(1), "nobody", FAILED), *outcomes], [(key(11), "nobody", POLL_STEPS[5]), *judged])
    )
    assert done.outcomes == [False, *[True] * 6]
    assert done.judged == [False, *[True] * 7]
    ended = ["done", "ready", "ready", "pending", "ready", "failed"]
    answered = ["ready", "pending", "pending", "pending", "pending", "failed", "failed"]
    assert driver.states() == dict(enumerate(ended, 1)) | dict(enumerate(answered, 11))


def test_a_transfer_that_ends_in_the_turn_of_its_url(driver: Driver) -> None:
    """What the API has said comes first, so that the transfer it began can end in the same turn."""
    driver.submit(1)
    [(run, lease)] = _of(driver.claim_due()).items()
    done = driver.turn(
        Turn(
            [(run, "new", published(1))],
            [(run, lease, url_received(1))],
            polling.Begun({run: "new"}, at(60)),
        )
    )
    assert (done.outcomes, done.judged, len(done.begun)) == ([True], [True], 1)
    assert driver.states() == {1: "done"}
    assert driver.reasons(1) == ["submitted", "url_received", "published"]


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_an_old_lease_and_a_new_one(driver: Driver, order: slice) -> None:
    """Of two steps of one run that of the lease which it has holds, in any order."""
    [old] = driver.downloading(1)
    leases.rescue(driver.database, at(61))
    [new] = driver.claim_ready(61, owner=Owner()).claimed
    driver.submit(2)
    first, second = _of(driver.claim_due(61)), _of(driver.claim_due(121, owner=Owner()))
    outcomes: list[tuple[RunKey, str, TransferStep]] = [
        (key(1), old.lease, published(1)),
        (key(1), new.lease, PUT_BACK),
    ]
    judged = [
        (key(2), first[key(2)], PollLater(at(1))),
        (key(2), second[key(2)], PollLater(at(2))),
    ]
    done = driver.turn(Turn(outcomes[order], judged[order]), 122)
    assert (done.outcomes, done.judged) == ([False, True][order], [False, True][order])
    assert (driver.row(1)["state"], driver.row(2)["next_attempt_at"]) == (
        "ready",
        "2026-03-01 12:00:02.000000",
    )


def test_what_is_put_back_can_be_claimed_again(driver: Driver) -> None:
    """A turn claims what it has just put back, for a transfer or to be asked for."""
    first, second = driver.downloading(1, 2)
    turn = Turn(
        [(first.run.key, first.lease, PUT_BACK), (second.run.key, second.lease, NEW_URL)],
        ready=_ready(driver, 1),
        due=[driver.due(1)],
    )
    done = driver.turn(turn, 1)
    assert [one.run.key for one in done.ready.claimed] == [first.run.key]
    assert list(_of(done.batches)) == [second.run.key]
    assert driver.reasons(1)[-2:] == ["interrupted", "claimed"]


def test_claims_share_the_room(driver: Driver) -> None:
    """Claims of runs to ask for follow each other while there is use for runs and requests."""
    driver.submit(*range(1, 21))
    lead = Lead(key(10), True, strong=True, quiet_seconds=0, submitted_until=at(0))  # noqa: FBT003
    near = Near(driver.owner, [lead], at(1), at(61))
    room = polling.Room(runs=8, requests=9)
    claimed = driver.turn(Turn(due=[near, driver.due(1), near], room=room), 1).batches
    assert [one.batch.run_ids for one in claimed] == [(11, 12, 13, 14, 15), (1, 2, 3, 4, 5)]
    room = polling.Room(runs=100, requests=1)
    claimed = driver.turn(Turn(due=[driver.due(2), near], room=room), 2).batches
    assert [one.batch.run_ids for one in claimed] == [(6, 7, 8, 9, 10)]


def test_nothing_to_do_takes_no_lock(driver: Driver, database_file: Path) -> None:
    """Where nothing waits a turn ends at once, also while another program writes."""
    driver.submit(1, seconds=99)
    driver.downloading(2)
    lead = Lead(key(2), True, strong=True, quiet_seconds=0, submitted_until=at(0))  # noqa: FBT003
    near = Near(driver.owner, [lead], at(0), at(60))
    with closing(Database(database_url(database_file))) as other, other.write():
        assert driver.turn(Turn()) == Done()
        turn = Turn(ready=_ready(driver, 0), due=[near, driver.due(0), driver.due(99, most=0)])
        assert driver.turn(turn) == Done()


class _Counted:
    """Counts what a database is asked to do."""

    def __init__(self, database: Database) -> None:
        self.statements: list[str] = []
        self.writes = self.rows = 0
        self._connections: dict[int, int] = {}
        sa.event.listen(database.engine, "after_cursor_execute", self._executed)

    def _executed(self, *event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event
        _, cursor, sql, *_ = event
        self.statements.append(sql)
        changes = cursor.connection.total_changes
        self.rows += changes - self._connections.get(id(cursor.connection), changes)
        self._connections[id(cursor.connection)] = changes
        self.writes += sql == "BEGIN IMMEDIATE"


def test_what_a_run_costs(driver: Driver) -> None:
    """A run on its way is three rows and two events, and a turn is one transaction."""
    driver.submit(*range(1, 41))
    driver.claim_due(most=1)
    counted = _Counted(driver.database)
    done, saved, turns = Done(), 0, 0
    while turns == 0 or done.begun or done.batches:
        turns += 1
        asked = _of(done.batches)
        new = {run: driver.owner.new_lease() for run in asked}
        outcomes = [(one.run.key, one.lease, published(one.run.key.run_id)) for one in done.begun]
        judged = [(run, lease, url_received(run.run_id)) for run, lease in asked.items()]
        begun = polling.Begun(new, at(60))
        before = counted.rows
        done = driver.turn(
            Turn(outcomes, judged, begun, _ready(driver, 1), [driver.due(1, most=13)]), 1
        )
        saved += sum(done.outcomes)
        assert counted.rows > before
    assert counted.rows == 5 * saved == 5 * 39
    assert counted.writes == turns
    assert len(counted.statements) <= 10 * turns
    counted.statements.clear()
    assert driver.turn(Turn(ready=_ready(driver, 1), due=[driver.due(1)]), 1) == Done()
    assert counted.writes == turns
