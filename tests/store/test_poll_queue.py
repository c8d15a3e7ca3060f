from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from store.driving import OTHER_TYPE, SIGNATURE, TYPE, Driver, at, key, signed_url

from downloader.rules.answer_body import NOT_FOUND
from downloader.rules.steps import NewUrl, PollFailed, PollLater, UrlReceived
from downloader.store import control, leases, polling
from downloader.store.leases import Owner
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from downloader.rules.steps import PollStep
    from downloader.store.polling import ClaimedBatch


def _ids(batches: list[ClaimedBatch]) -> list[tuple[int, ...]]:
    return [batch.batch.run_ids for batch in batches]


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (2, [2]), (5, [5]), (6, [3, 3]), (7, [5, 2])]
)
def test_due_runs_are_packed(driver: Driver, count: int, sizes: list[int]) -> None:
    """Due runs make as few batches as can be, and none of one where that can be helped."""
    driver.submit(*range(1, count + 1))
    batches = driver.claim_due()
    assert sorted(map(len, _ids(batches)), reverse=True) == sizes
    assert sorted(run_id for ids in _ids(batches) for run_id in ids) == list(range(1, count + 1))
    assert len({batch.lease for batch in batches}) == len(batches)


def test_a_claim_tells_what_the_decision_needs(driver: Driver) -> None:
    """A claimed run comes with its polls, its submission and when it was due."""
    driver.submit(1)
    driver.poll(1, step=PollLater(at(5), "PENDING"))
    [batch] = driver.claim_due(6)
    [run] = batch.runs
    assert (run.key, run.polls) == (key(1), 1)
    assert (run.submitted_at, run.next_attempt_at) == (at(0), at(5))


def test_the_types_are_never_mixed(driver: Driver) -> None:
    """Each batch is of one run type, also where its neighbours would fill it."""
    driver.submit(1, 2)
    driver.submit(1, 3, run_type=OTHER_TYPE)
    found = {batch.batch.run_type: batch.batch.run_ids for batch in driver.claim_due(soon=60)}
    assert found == {TYPE: (1, 2), OTHER_TYPE: (1, 3)}


def test_a_short_batch_is_topped_up(driver: Driver) -> None:
    """Runs that are due soon fill a batch that is asked for anyway, the soonest first."""
    driver.submit(1)
    for run_id, due in ((2, 9), (3, 4), (4, 6), (5, 5), (6, 3), (7, 20)):
        driver.submit(run_id, seconds=due)
    assert _ids(driver.claim_due(soon=10)) == [(1, 6, 3, 5, 4)]
    assert _ids(driver.claim_due(5, soon=0)) == []


def test_soon_has_an_end(driver: Driver) -> None:
    """A run due after the horizon, of another type, or claimed by another fills no batch."""
    driver.submit(1, seconds=2)
    assert _ids(driver.claim_due(2, lease=5)) == [(1,)]
    driver.submit(2, seconds=2)
    driver.submit(3, seconds=12.001)
    driver.submit(4, seconds=3, run_type=OTHER_TYPE)
    driver.submit(5, seconds=12)
    assert _ids(driver.claim_due(2, soon=10)) == [(2, 5)]


def test_nothing_is_asked_for_before_it_is_due(driver: Driver) -> None:
    """Runs due soon make no batch of their own."""
    driver.submit(1, 2, seconds=1)
    assert driver.claim_due(0.999, soon=60) == []
    assert _ids(driver.claim_due(1)) == [(1, 2)]


def test_at_most_so_many(driver: Driver) -> None:
    """No more due runs are claimed than asked for, of all types the most overdue first."""
    for run_id in range(1, 9):
        driver.submit(run_id, seconds=run_id)
    driver.submit(1, seconds=1.5, run_type=OTHER_TYPE)
    claimed = [run.key for batch in driver.claim_due(100, most=3) for run in batch.runs]
    assert sorted(claimed) == [key(1), key(2), key(1, OTHER_TYPE)]


def test_the_cutoff(driver: Driver) -> None:
    """What fell due after the cutoff is left alone, however late it is."""
    driver.submit(1, seconds=1)
    driver.submit(2, seconds=3)
    assert _ids(driver.claim_due(10, cutoff=2)) == [(1,)]
    assert driver.claim_due(10, cutoff=2) == []


def test_a_claimed_run_is_not_claimed_again(driver: Driver) -> None:
    """Nobody else asks for a run while its claim lasts."""
    driver.submit(1, 2)
    assert len(driver.claim_due(0, lease=60)) == 1
    assert driver.claim_due(59.999, owner=Owner()) == []
    row = driver.row(1)
    assert row["lease_expires_at"] == row["next_attempt_at"] == "2026-03-01 12:01:00.000000"


def test_a_claim_whose_holder_died(driver: Driver) -> None:
    """A claim that ran out falls due by itself, and the first holder's answers are void."""
    driver.submit(1)
    [old] = driver.claim_due(0, lease=60)
    [new] = driver.claim_due(60, owner=Owner())
    assert new.lease != old.lease
    step = UrlReceived(signed_url(1), None, "SUCCESS")
    before = driver.row(1)
    assert polling.record_polls(driver.database, [(key(1), old.lease, step)], at(61)) == [False]
    assert driver.row(1) == before
    assert driver.reasons(1) == ["submitted"]
    assert polling.record_polls(driver.database, [(key(1), new.lease, step)], at(62)) == [True]
    assert driver.reasons(1) == ["submitted", "url_received"]


def test_a_refused_url_is_remembered_until_there_is_another(driver: Driver) -> None:
    """A 'not yet' between two refusals does not make the second one free again."""
    [claim] = driver.downloading(1)
    driver.end([claim], NewUrl(at(0), "url_refused", "Refused.", attempts=0, refreshes=1))
    driver.poll(1, step=PollLater(at(1)))
    assert driver.row(1)["error_code"] == "url_refused"


@pytest.mark.parametrize("code", ["unavailable", "unexpected_status"])
def test_a_url_heals_an_error_of_the_api(driver: Driver, code: str) -> None:
    """What the API had against a run is over when it gives a URL: nobody is to look for it."""
    driver.submit(1)
    driver.poll(1, step=PollLater(at(2), None, code, "It answers 503."))
    driver.poll(1, step=UrlReceived(signed_url(1), None, None), seconds=2)
    assert (driver.row(1)["error_code"], driver.row(1)["error_message"]) == (None, None)


@pytest.mark.parametrize("code", ["url_expired", "unexpected_status"])
def test_a_url_heals_no_error_of_the_storage(driver: Driver, code: str) -> None:
    """What the storage had against a run stays until a file is saved, a code of both included."""
    [claim] = driver.downloading(1)
    driver.end([claim], NewUrl(at(0), code, "It says no.", attempts=1, refreshes=1))
    driver.poll(1, step=UrlReceived(signed_url(1), None, None))
    assert driver.row(1)["error_code"] == code


def test_a_late_answer_that_nobody_has_claimed_since(driver: Driver) -> None:
    """An answer that comes after the claim's end is good while nobody else has the run."""
    driver.submit(1)
    [batch] = driver.claim_due(0, lease=60)
    judged = [(key(1), batch.lease, UrlReceived(signed_url(1), None, None))]
    assert polling.record_polls(driver.database, judged, at(100)) == [True]


@pytest.mark.parametrize(
    "step",
    [
        UrlReceived(signed_url(1), None, "SUCCESS"),
        PollLater(at(9)),
        PollLater(at(9), asked=False),
        PollFailed("provider_failed", "No."),
    ],
)
def test_a_run_cancelled_meanwhile(driver: Driver, step: PollStep) -> None:
    """What comes for a run that a person has cancelled changes nothing."""
    driver.submit(1, 2)
    [batch] = driver.claim_due()
    control.cancel(driver.database, [key(1)], at(1))
    before = driver.row(1)
    judged = [(key(1), batch.lease, step), (key(2), batch.lease, step)]
    assert polling.record_polls(driver.database, judged, at(2)) == [False, True]
    assert driver.row(1) == before
    assert driver.row(2)["lease_owner"] is None


def test_a_url_received(driver: Driver) -> None:
    """A run with a URL is ready at once, and says until when."""
    driver.submit(1)
    driver.poll(1, step=UrlReceived(signed_url(1), at(900), "SUCCESS"), seconds=3)
    row = driver.row(1)
    assert SIGNATURE in row["url"]
    now = "2026-03-01 12:00:03.000000"
    assert (row["state"], row["polls"], row["remote_status"]) == ("ready", 1, "SUCCESS")
    assert row["url_expires_at"] == "2026-03-01 12:15:00.000000"
    assert row["next_attempt_at"] == row["ready_at"] == row["updated_at"] == now
    assert driver.reasons(1) == ["submitted", "url_received"]


def test_not_finished_yet(driver: Driver) -> None:
    """A run that is not finished is asked for later; that is no change of state."""
    driver.submit(1)
    driver.poll(1, step=PollLater(at(2), "PENDING"))
    driver.poll(1, step=PollLater(at(6), None, "http_500", "Answers 500."), seconds=2)
    row = driver.row(1)
    assert (row["state"], row["polls"], row["remote_status"]) == ("pending", 2, "PENDING")
    assert (row["error_code"], row["error_message"]) == ("http_500", "Answers 500.")
    assert row["next_attempt_at"] == "2026-03-01 12:00:06.000000"
    assert row["lease_owner"] is None
    driver.poll(1, step=PollLater(at(9), "RUNNING"), seconds=6)
    row = driver.row(1)
    assert (row["remote_status"], row["error_code"], row["error_message"]) == (
        "RUNNING",
        None,
        None,
    )
    assert driver.reasons(1) == ["submitted"]


def _unknown(driver: Driver) -> tuple[str | None, int, str | None, str | None]:
    row = driver.row(1)
    since = row["unknown_since"]
    return since and since[17:19], row["unknown_answers"], row["remote_status"], row["error_code"]


def test_a_run_that_the_service_does_not_know(driver: Driver) -> None:
    """What is known of it is counted from answer to answer; none at all changes nothing of it."""
    driver.submit(1)

    def answer(seconds: float, step: PollStep) -> None:
        [batch] = driver.claim_due(seconds)
        [run] = batch.runs
        assert _unknown(driver)[1] == run.unknown_answers
        since = None if run.unknown_since is None else to_text(run.unknown_since)
        assert driver.row(1)["unknown_since"] == since
        assert polling.record_polls(driver.database, [(key(1), batch.lease, step)], at(seconds))

    def unknown(seconds: float, answers: int) -> PollLater:
        return PollLater(
            at(seconds),
            NOT_FOUND,
            "unknown_run",
            "It is not known.",
            unknown_since=at(1),
            unknown_answers=answers,
        )

    answer(1, unknown(2, 1))
    assert _unknown(driver) == ("01", 1, NOT_FOUND, "unknown_run")
    answer(2, unknown(3, 2))
    answer(3, PollLater(at(4), None, "unavailable", "It answers 503."))
    assert _unknown(driver) == ("01", 2, NOT_FOUND, "unavailable")
    answer(4, PollLater(at(5), asked=False))
    answer(5, unknown(6, 3))
    assert _unknown(driver) == ("01", 3, NOT_FOUND, "unknown_run")
    answer(6, PollLater(at(7)))
    assert _unknown(driver) == (None, 0, None, None)
    answer(7, unknown(8, 1))
    answer(8, PollLater(at(9), "PENDING"))
    assert _unknown(driver) == (None, 0, "PENDING", None)
    answer(9, unknown(10, 1))
    answer(10, PollFailed("unknown_run", "It is not known.", NOT_FOUND))
    assert _unknown(driver) == ("01", 2, NOT_FOUND, "unknown_run")
    control.retry(driver.database, [key(1)], at(11))
    assert _unknown(driver) == (None, 0, None, None)
    answer(11, unknown(12, 1))
    answer(12, UrlReceived("https://storage.example/1", None, "SUCCESS"))
    assert _unknown(driver) == (None, 0, "SUCCESS", None)


def test_a_claim_given_back(driver: Driver) -> None:
    """A claim given back unasked counts no poll, and leaves the last answer's traces."""
    driver.submit(1)
    driver.poll(1, step=PollLater(at(2), "PENDING", "http_500", "Answers 500."))
    before = driver.row(1)
    driver.poll(1, step=PollLater(at(2), asked=False), seconds=2)
    after = driver.row(1)
    assert {name for name in after if after[name] != before[name]} <= {"updated_at"}


def test_failed_at_the_provider(driver: Driver) -> None:
    """A run that failed at the provider is failed, with the provider's word and the reason."""
    driver.submit(1)
    driver.poll(1, step=PollLater(at(0), "PENDING"))
    driver.poll(1, step=PollFailed("deadline", "Too late."))
    row = driver.row(1)
    assert (row["state"], row["polls"], row["remote_status"]) == ("failed", 2, "PENDING")
    assert (row["error_code"], row["error_message"]) == ("deadline", "Too late.")
    assert driver.query("SELECT reason, detail FROM run_events ORDER BY event_id DESC LIMIT 1") == [
        ("deadline", "Too late.")
    ]


def test_when_the_next_is_due(driver: Driver) -> None:
    """The next due time is the earliest of the types asked about, claims included."""
    types = [TYPE, OTHER_TYPE]
    assert polling.next_due_at(driver.database, types) is None
    driver.submit(1, seconds=50)
    driver.submit(2, seconds=20, run_type=OTHER_TYPE)
    assert polling.next_due_at(driver.database, types) == at(20)
    assert polling.next_due_at(driver.database, [TYPE]) == at(50)
    driver.claim_due(20, lease=100)
    assert polling.next_due_at(driver.database, types) == at(50)
    driver.claim_due(50, lease=10)
    assert polling.next_due_at(driver.database, [TYPE]) == at(60)


def test_an_extended_claim_is_due_later(driver: Driver) -> None:
    """A holder that is alive keeps its runs from falling due."""
    driver.submit(1)
    [batch] = driver.claim_due(0, lease=60)
    held = [(key(1), batch.lease)]
    assert leases.extend_leases(driver.database, held, at(120), at(0)) == set()
    assert driver.claim_due(119) == []
    assert len(driver.claim_due(120)) == 1
    assert leases.extend_leases(driver.database, held, at(300), at(0)) == {batch.lease}
    assert leases.lost_leases(driver.database, held) == {batch.lease}


def test_every_claim_has_a_name_of_its_own() -> None:
    """No two claims, of one owner or of two, have the same name."""
    names = [owner.new_lease() for owner in (Owner(), Owner()) for _ in range(50)]
    assert len(set(names)) == 100


def test_new_runs_go_first(driver: Driver) -> None:
    """Runs never asked for are claimed before those that are asked for again, however late."""
    driver.submit(*range(1, 101))
    driver.poll(*range(1, 101), step=PollLater(at(300), "PENDING"), seconds=200)
    driver.submit(101, 102, seconds=900)
    claimed = driver.claim_due(900, most=10)
    assert sorted(_ids(claimed)[0])[-2:] == [101, 102]
    assert sum(len(one.runs) for one in claimed) == 10


def test_those_most_likely_to_be_finished_go_next(driver: Driver) -> None:
    """A run whose pause was short overtakes those whose pause was long and are less late for it."""
    driver.submit(*range(1, 101))
    driver.poll(*range(1, 101), step=PollLater(at(700), "PENDING"), seconds=300)
    driver.submit(101, seconds=690)
    driver.poll(101, step=PollLater(at(692), "PENDING"), seconds=690)
    driver.execute("UPDATE runs SET next_attempt_at = ? WHERE run_id = 101", to_text(at(720)))
    assert 101 in _ids(driver.claim_due(730, most=5))[0]


def test_the_longest_due_have_a_share(driver: Driver) -> None:
    """However many new runs there are, some of those claimed are the ones due the longest."""
    driver.submit(1)
    driver.poll(1, step=PollLater(at(10), "PENDING"))
    driver.submit(*range(2, 102), seconds=20)

    def claim(wanted: polling.Wanted) -> set[int]:
        batches = polling.claim_due(
            driver.database,
            driver.owner,
            [TYPE],
            wanted=wanted,
            now=at(30),
            cutoff=at(30),
            soon_seconds=0,
            lease_until=at(90),
        )
        return {run.key.run_id for one in batches for run in one.runs}

    assert claim(polling.Wanted(5)) == {2, 3, 4, 5, 6}
    assert claim(polling.Wanted(5, longest=1)) == {1, 7, 8, 9, 10}
    driver.execute(
        "UPDATE runs SET updated_at = ?, next_attempt_at = ? WHERE run_id BETWEEN 11 AND 14",
        to_text(at(25)),
        to_text(at(29)),
    )
    assert claim(polling.Wanted(100, only_new=True)) == set(range(15, 102))
    assert claim(polling.Wanted(0)) == set()


def test_what_has_no_answer_while_others_have_is_asked_for_alone(driver: Driver) -> None:
    """After two polls in a row without an answer, others with, a run has a request of its own."""
    driver.submit(1, 2, 3)
    error = PollLater(at(0), None, "unavailable", "It answers 503.", blamed=True)
    driver.poll(1, 2, 3, step=PollLater(at(0), None, "unavailable", "It answers 503."))
    driver.poll(1, 2, step=error)
    assert _ids(driver.claim_due(1, lease=0)) == [(1, 2, 3)]
    driver.poll(2, step=error, seconds=1)
    assert sorted(_ids(driver.claim_due(2, lease=0))) == [(1, 3), (2,)]
    row = driver.row(2)
    assert (row["polls"], row["answers"], row["poll_errors"]) == (3, 0, 2)
    driver.poll(2, step=PollLater(at(9), "PENDING"), seconds=2)
    row = driver.row(2)
    assert (row["polls"], row["answers"], row["poll_errors"]) == (4, 1, 0)


@pytest.mark.parametrize(("answered", "answers"), [(True, 1), (False, 0)])
def test_how_many_answers_a_run_had_in_the_end(
    driver: Driver,
    answered: bool,  # noqa: FBT001 - a table
    answers: int,
) -> None:
    """The deadline may come with an answer about a run, or without one."""
    driver.submit(1)
    driver.poll(1, step=PollFailed("deadline", "Too late.", answered=answered))
    assert (driver.row(1)["polls"], driver.row(1)["answers"]) == (1, answers)
