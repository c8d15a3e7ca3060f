"""Every history that the store can write is one that the state machine allows."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store.driving import PUT_BACK, TYPE, Driver, at, key, published, signed_url

from downloader.errors import InputError
from downloader.rules.resume import Journal
from downloader.rules.states import TRANSITIONS, State
from downloader.rules.steps import (
    NewUrl,
    PollFailed,
    PollLater,
    TransferFailed,
    TryAgain,
    UrlReceived,
)
from downloader.store import control, intake, leases, polling, transfers, verification
from downloader.store.database import Database, database_url
from downloader.store.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from downloader.rules.states import RunKey
    from downloader.rules.steps import PollStep, ReadyStep, TransferStep
    from downloader.store.transfers import ReadyRun


def test_every_transition_is_made_and_no_other(driver: Driver) -> None:
    """The store's functions make each of the state machine's transitions, and told of no other."""
    new_url = NewUrl(at(0), "url_refused", "Refused.", attempts=0, refreshes=1)
    failed = TransferFailed("url_expired", "Expired.", attempts=0, refreshes=20)
    driver.one_of_each_state()
    control.cancel(driver.database, [key(1), key(2), key(3)], at(1))
    control.retry(driver.database, [key(5), key(6)], at(2))
    driver.end(driver.downloading(11), new_url)
    driver.end(driver.downloading(12), failed)
    driver.ready(13)
    driver.claim_ready(judge=lambda _run: new_url)
    driver.ready(14)
    driver.claim_ready(judge=lambda _run: failed)
    driver.done(16)
    driver.end(driver.downloading(15), PUT_BACK)
    driver.begun(19)
    lost = [(run, "missing") for run in verification.saved_runs(driver.database)]
    verification.put_back(driver.database, lost, at(3), lambda _run: "Not there.")
    driver.failed(17)
    driver.submit(18)
    for run_id in (15, 17, 18):  # ready, failed, pending
        assert verification.adopt(driver.database, key(run_id), published(run_id), at(3))
    made = driver.query(
        "SELECT DISTINCT from_state, to_state FROM run_events WHERE from_state IS NOT NULL"
    )
    assert set(made) == {(before.value, after.value) for before, after in TRANSITIONS}


@dataclass
class Expected:
    """What a run's row must say."""

    state: State = State.PENDING
    lease: str | None = None
    lease_until: int = 0
    due: int = 0
    expires: int | None = None
    polls: int = 0
    attempts: int = 0
    refreshes: int = 0

    def free(self, state: State, due: int = 0) -> None:
        """Leave the hands of whoever held it."""
        self.state, self.lease, self.lease_until, self.due = state, None, 0, due


RUN_IDS = st.integers(1, 7)
SECONDS = st.integers(0, 30)


class Histories(RuleBasedStateMachine):
    """Runs go through the store in any order; a small model says what each row must be."""

    def __init__(self, template: Path, folder: Path) -> None:
        super().__init__()
        path = Path(shutil.copy(template, folder / "runs.sqlite3"))
        self.driver = Driver(Database(database_url(path)))
        self.database = self.driver.database
        self.now = 0
        self.runs: dict[int, Expected] = {}
        self.polling: list[tuple[int, str]] = []
        self.transferring: list[tuple[int, str]] = []

    def teardown(self) -> None:
        """Close the database; the next history overwrites it."""
        self.database.close()

    @rule(run_ids=st.sets(RUN_IDS))
    def submit(self, run_ids: set[int]) -> None:
        """Track runs."""
        found = intake.submit(self.database, TYPE, sorted(run_ids), at(self.now))
        new = run_ids - set(self.runs)
        assert found == (len(new), len(run_ids) - len(new))
        self.runs |= {run_id: Expected(due=self.now) for run_id in new}

    @rule(seconds=SECONDS)
    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(most=st.integers(1, 7), soon=SECONDS, lease=st.integers(1, 30))
    def claim_due(self, most: int, soon: int, lease: int) -> None:
        """Claim runs to ask for."""
        due = {i for i, run in self.runs.items() if run.state == "pending" and run.due <= self.now}
        claimed = set()
        for batch in self.driver.claim_due(self.now, most=most, soon=soon, lease=lease):
            assert 1 <= len(batch.runs) <= 5
            for one in batch.runs:
                run_id = one.key.run_id
                run = self.runs[run_id]
                assert run_id in due or (run.lease is None and run.due <= self.now + soon)
                assert (one.polls, one.next_attempt_at) == (run.polls, at(run.due))
                run.lease, run.lease_until = batch.lease, self.now + lease
                run.due = run.lease_until
                claimed.add(run_id)
                self.polling.append((run_id, batch.lease))
        assert len(claimed & due) == min(most, len(due))

    @precondition(lambda self: self.polling)
    @rule(data=st.data())
    def record_poll(self, data: st.DataObject) -> None:
        """Record an answer, in time or late."""
        run_id, lease = data.draw(st.sampled_from(self.polling))
        later = self.now + data.draw(SECONDS)
        steps: list[PollStep] = [
            UrlReceived(signed_url(run_id), at(later), "SUCCESS"),
            UrlReceived(signed_url(run_id), None, None),
            PollLater(at(later), "PENDING"),
            PollLater(at(later), None, "http_500", "Answers 500."),
            PollLater(at(later), asked=False),
            PollFailed("provider_failed", "No."),
        ]
        step = data.draw(st.sampled_from(steps))
        run = self.runs[run_id]
        holds = run.state == "pending" and run.lease == lease
        begins = data.draw(st.integers(0, 30)) if data.draw(st.booleans()) else None
        new = self.driver.owner.new_lease()
        until = at(self.now + (begins or 0))
        begun = None if begins is None else polling.Begun({key(run_id): new}, until)
        turn = Turn(judged=[(key(run_id), lease, step)], begun=begun)
        done = self.driver.turn(turn, self.now)
        takes = holds and begins is not None and isinstance(step, UrlReceived)
        assert (done.judged, len(done.begun)) == ([holds], takes)
        if not holds:
            return
        self.polling.remove((run_id, lease))
        match step:
            case UrlReceived() if begins is not None:
                run.state, run.lease, run.lease_until = State.DOWNLOADING, new, self.now + begins
                run.expires = None if step.url_expires_at is None else later
                run.polls += 1
                self.transferring.append((run_id, new))
            case UrlReceived():
                run.free(State.READY, self.now)
                run.expires = None if step.url_expires_at is None else later
                run.polls += 1
            case PollLater():
                run.free(State.PENDING, later)
                run.polls += step.asked
            case PollFailed():
                run.free(State.FAILED)
                run.polls += 1

    @rule(most=st.integers(1, 4), lease=st.integers(1, 30), limit=st.integers(0, 2))
    def claim_ready(self, most: int, lease: int, limit: int) -> None:
        """Claim runs to transfer; those whose URL expired go back or, at the limit, fail."""

        def judge(run: ReadyRun) -> ReadyStep | None:
            if run.url_expires_at is None or run.url_expires_at > at(self.now):
                return None
            if run.refreshes >= limit:
                return TransferFailed("url_expired", "Expired.", run.attempts, run.refreshes)
            return NewUrl(at(self.now), "url_expired", "E.", run.attempts, run.refreshes + 1)

        waiting = sorted(
            (run.expires is None, run.expires or 0, run_id)
            for run_id, run in self.runs.items()
            if run.state == "ready" and run.due <= self.now
        )
        found = self.driver.claim_ready(self.now, most=most, lease=lease, judge=judge)
        left = {run_id for unknown, end, run_id in waiting if not unknown and end <= self.now}
        assert found.expired + found.failed == min(most, len(left))
        assert len(found.claimed) == min(most, len(waiting)) - found.expired - found.failed
        ends = [claim.run.url_expires_at for claim in found.claimed]
        assert ends == sorted(ends, key=lambda end: (end is None, end or at(0)))
        for claim in found.claimed:
            run_id = claim.run.key.run_id
            run = self.runs[run_id]
            assert run.state == "ready"
            assert run_id not in left
            run.state, run.lease, run.lease_until = State.DOWNLOADING, claim.lease, self.now + lease
            self.transferring.append((run_id, claim.lease))
        states = self.driver.states()
        gone = [run_id for run_id in left if states[run_id] != "ready"]
        assert len(gone) == found.expired + found.failed
        for run_id in gone:
            run = self.runs[run_id]
            fails = run.refreshes >= limit
            run.free(State.FAILED if fails else State.PENDING, self.now)
            run.refreshes += not fails

    @precondition(lambda self: self.transferring)
    @rule(data=st.data())
    def record_transfer(self, data: st.DataObject) -> None:
        """Record how a transfer ended, in time or late."""
        run_id, lease = data.draw(st.sampled_from(self.transferring))
        run = self.runs[run_id]
        later = self.now + data.draw(SECONDS)
        spent = (run.attempts + 1, run.refreshes)
        steps: list[TransferStep] = [
            published(run_id),
            TryAgain(at(later), "reset", "Reset.", run.attempts + 1),
            NewUrl(at(later), "url_refused", "Refused.", *spent),
            PUT_BACK,
            TransferFailed("http_404", "Gone.", *spent),
        ]
        step = data.draw(st.sampled_from(steps))
        holds = run.state == "downloading" and run.lease == lease
        outcomes = [(key(run_id), lease, step)]
        assert transfers.record_transfers(self.database, outcomes, at(self.now)) == [holds]
        if not holds:
            return
        self.transferring.remove((run_id, lease))
        if step is not PUT_BACK:
            run.attempts += 1
        if isinstance(step, TryAgain):
            run.free(State.READY, later)
        elif isinstance(step, NewUrl):
            run.free(State.PENDING, later)
        elif step is PUT_BACK:
            run.free(State.READY)
        else:
            run.free(State.FAILED if isinstance(step, TransferFailed) else State.DONE)

    @rule()
    def rescue(self) -> None:
        """Put back what nobody works on any more."""
        lost = {
            run_id
            for run_id, run in self.runs.items()
            if run.state == "downloading" and run.lease_until < self.now
        }
        rescued = leases.rescue(self.database, at(self.now))
        assert {one.run_id for one in rescued} == lost
        for run_id in lost:
            self.runs[run_id].free(State.READY, self.now)

    @rule(seconds=st.integers(1, 30))
    def heartbeat(self, seconds: int) -> None:
        """Extend every claim that was ever made and not ended."""
        held = [(key(run_id), lease) for run_id, lease in self.polling + self.transferring]
        lost = {lease for one, lease in held if self.runs[one.run_id].lease != lease}
        assert leases.lost_leases(self.database, held) >= lost
        found = leases.extend_leases(self.database, held, at(self.now + seconds), at(self.now))
        assert found == lost
        for one, lease in held:
            run = self.runs[one.run_id]
            if run.lease == lease:
                run.lease_until = self.now + seconds
                if run.state == "pending":
                    run.due = run.lease_until

    @precondition(lambda self: self.transferring)
    @rule(data=st.data(), size=st.none() | st.integers(0, 2**40))
    def note_object(self, data: st.DataObject, size: int | None) -> None:
        """Note what a transfer has begun to fetch."""
        run_id, lease = data.draw(st.sampled_from(self.transferring))
        run = transfers.ReadyRun(key(run_id), "", None, None, 0, 0, None, None, None, at(0))
        claim = transfers.ClaimedRun(run, lease)
        holds = self.runs[run_id].state == "downloading" and self.runs[run_id].lease == lease
        noted = transfers.note_object(self.database, claim, Journal(None, size), at(self.now))
        assert noted == holds

    def _keys(self, run_ids: set[int]) -> list[RunKey]:
        return [key(run_id) for run_id in sorted(run_ids)]

    @rule(run_ids=st.sets(RUN_IDS, max_size=3))
    def cancel(self, run_ids: set[int]) -> None:
        """End runs."""
        unfinished = {State.PENDING, State.READY, State.DOWNLOADING}
        changed = self._change(control.cancel, run_ids, unfinished)
        for one in changed:
            self.runs[one.run_id].free(State.CANCELLED)

    @rule(run_ids=st.sets(RUN_IDS, max_size=3))
    def retry(self, run_ids: set[int]) -> None:
        """Put runs back."""
        changed = self._change(control.retry, run_ids, {State.FAILED, State.CANCELLED})
        for one in changed:
            self.runs[one.run_id] = Expected(due=self.now)

    @rule(run_ids=st.sets(RUN_IDS, max_size=3), possible=st.booleans())
    def put_back(self, run_ids: set[int], possible: bool) -> None:  # noqa: FBT001 - drawn
        """Put runs back whose file is lost, where it can be moved out of the way."""
        done = {run.key.run_id: run for run in verification.saved_runs(self.database)}
        assert set(done) == {i for i, run in self.runs.items() if run.state == "done"}
        lost = [(done[run_id], "damaged") for run_id in sorted(run_ids & set(done))]
        for _ in range(2):  # by the second time they are changed
            verification.put_back(
                self.database, lost, at(self.now), lambda _run: "Edited." if possible else None
            )
        if possible:
            self.runs |= {run.key.run_id: Expected(due=self.now) for run, _ in lost}

    @rule(run_id=RUN_IDS)
    def adopt(self, run_id: int) -> None:
        """Record a file that was published without its commit."""
        run = self.runs.get(run_id, Expected(State.CANCELLED))
        ran_out = run.state == "downloading" and run.lease_until < self.now
        expected = ran_out or run.state in {State.PENDING, State.READY, State.FAILED}
        adopted = verification.adopt(self.database, key(run_id), published(run_id), at(self.now))
        assert adopted == expected
        if adopted:
            run.free(State.DONE)
            run.attempts += 1

    def _change(
        self, change: Callable[..., control.Changed], run_ids: set[int], allowed: set[State]
    ) -> list[RunKey]:
        """Change runs; with one that is not tracked among them, none is changed."""
        keys = self._keys(run_ids)
        if run_ids - set(self.runs):
            with pytest.raises(InputError):
                change(self.database, keys, at(self.now))
            return []
        changed = change(self.database, keys, at(self.now)).changed
        assert {one.run_id for one in changed} == {
            run_id for run_id in run_ids if self.runs[run_id].state in allowed
        }
        return changed

    @rule()
    def retry_failed(self) -> None:
        """Put every failed run back."""
        failed = [run_id for run_id, run in self.runs.items() if run.state == "failed"]
        assert control.retry_failed(self.database, TYPE, at(self.now)) == len(failed)
        self.runs |= {run_id: Expected(due=self.now) for run_id in failed}

    @invariant()
    def each_row_is_as_expected(self) -> None:
        """Every row says what the model says, and no run is lost."""
        rows = self.driver.query(
            "SELECT run_id, state, lease_owner, polls, attempts, refreshes FROM runs"
        )
        assert {row[0]: row[1:] for row in rows} == {
            run_id: (run.state.value, run.lease, run.polls, run.attempts, run.refreshes)
            for run_id, run in self.runs.items()
        }

    @invariant()
    def each_history_is_allowed(self) -> None:
        """Lead by allowed transitions from its submission to its state, in every history."""
        state: dict[int, str] = {}
        for run_id, before, after in self.driver.query(
            "SELECT run_id, from_state, to_state FROM run_events ORDER BY event_id"
        ):
            assert state.get(run_id) == before
            assert before is None or (State(before), State(after)) in TRANSITIONS
            state[run_id] = after
        assert state == {run_id: run.state.value for run_id, run in self.runs.items()}


def test_any_history(migrated_file: Path, tmp_path: Path) -> None:
    """Whatever happens to runs in whatever order, rows and histories are what they must be."""

    class Here(Histories):
        def __init__(self) -> None:
            super().__init__(migrated_file, tmp_path)

    run_state_machine_as_test(Here, settings=settings(max_examples=40, stateful_step_count=40))
