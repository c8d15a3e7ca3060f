"""How few requests find out that runs have finished, and how soon.

The program's own poller, rules and store run in simulated time against an API of which is known
when each run finishes; transfers take no time. Beside it stands what asking for every unfinished
run each 5 seconds would have cost. By itself: `python -m benchmarks.poll_schedule [RUNS]`.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, cast
from unittest.mock import patch

from structlog.testing import capture_logs

from benchmarks.poll_scenarios import FINISHED, NEVER, in_order, scenarios
from benchmarks.simulated_time import (
    STARTED_AT,
    SimulatedPool,
    SimulatedSignal,
    SimulatedTime,
)
from benchmarks.tables import Compared, Row, Unit, markdown
from downloader import poller
from downloader.camb.client import ApiClient, Reply
from downloader.camb.run_types import DEFAULT_RUN_TYPE
from downloader.clock import utc_now
from downloader.recorder import Recorder, Wanted
from downloader.rules.answers import Answered, Finished, NotYet
from downloader.rules.batching import MAX_BATCH, Batch
from downloader.rules.steps import PollLater, Published, UrlReceived
from downloader.session import Mode, Session
from downloader.settings import Settings
from downloader.store import intake, polling, transfers
from downloader.store.leases import Owner
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from benchmarks.bench import Bench
    from benchmarks.poll_scenarios import Run, Scenario
    from downloader.recorder import Judged
    from downloader.recorder import Outcome as RecordedOutcome
    from downloader.rules.states import RunKey
    from downloader.rules.steps import PollStep
    from downloader.store.database import Database
    from downloader.store.turn import Done

FIXED_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 0.15
FULL_RUNS: Final = 10_000
SMALL_RUNS: Final = 250

MOST_REQUESTS: Final = 1 / 5
"""Of those that fixed polling makes: the goal for runs that finish roughly in order."""

MOST_DELAY_SECONDS: Final = 10.0
"""The goal for the median delay of the same runs."""

MOST_REQUESTS_AFINISHED_RUN: Final = 0.205


@dataclass(slots=True)
class Outcome:
    """What one scenario took: requests, and from finishing to having the URL, in seconds."""

    scenario: Scenario
    requests: int = 0
    fixed_requests: int = 0
    delays: list[float] = field(default_factory=list)
    fixed_delays: list[float] = field(default_factory=list)
    longest_unasked: float = 0.0
    """The longest that an unfinished run was not asked for, in seconds."""
    first_polls: list[float] = field(default_factory=list)
    """At what age each run was first asked for, in seconds."""


def simulate(scenario: Scenario) -> Outcome:
    """Run one scenario on a database of its own."""
    with (
        capture_logs(),  # in real time nobody waits for them
        tempfile.TemporaryDirectory() as folder,
        closing(open_database(Path(folder, "runs.sqlite3"))) as database,
    ):
        return _Simulation(scenario, database, Path(folder)).run()


def measure(bench: Bench) -> list[Row]:
    """Return the rows of all scenarios."""
    return [row for one in scenarios(bench.size(FULL_RUNS, SMALL_RUNS)) for row in rows(one)]


def rows(scenario: Scenario) -> list[Row]:
    """Simulate one scenario; return its requests and its delays, beside those of fixed polling."""
    found = simulate(scenario)
    name = f"{len(scenario.runs)} runs: {scenario.name}"
    wanted = scenario.name == in_order(1, 10).name
    if scenario.name == FINISHED:
        return [
            Row(
                f"requests a run, {name}",
                (found.requests / len(scenario.runs),),
                Unit.REQUESTS,
                compared=Compared.ALONE,
                goal=MOST_REQUESTS_AFINISHED_RUN,
            )
        ]
    return [
        Row(
            f"requests, {name}",
            (float(found.requests),),
            Unit.REQUESTS,
            f"a poll each {FIXED_SECONDS:g} s",
            (float(found.fixed_requests),),
            goal=MOST_REQUESTS if wanted else None,
        ),
        Row(
            f"median delay, {name}",
            (median(found.delays),),
            Unit.SECONDS,
            f"a poll each {FIXED_SECONDS:g} s",
            (median(found.fixed_delays),),
            compared=Compared.ALONE,
            goal=MOST_DELAY_SECONDS if wanted else None,
        ),
    ]


class _Api:
    """Answers for runs whose fate is known; stands in for `ApiClient`."""

    def __init__(self, runs: Sequence[Run], time: SimulatedTime) -> None:
        self._runs = runs
        self._time = time
        self._asked_at = [run.submitted for run in runs]
        self.requests = 0
        self.longest_unasked = 0.0
        self.first_polls: dict[int, float] = {}

    def ask(self, batch: Batch, _go_on: Callable[[], None]) -> Reply:
        """Answer as the API does."""
        self.requests += 1
        now = self._time.seconds
        for run_id in batch.run_ids:
            unasked = now - self._asked_at[run_id - 1]
            self.longest_unasked = max(self.longest_unasked, unasked)
            self._asked_at[run_id - 1] = now
            self.first_polls.setdefault(run_id, unasked)
        return Reply(
            Answered(
                {
                    run_id: Finished(f"https://storage.example/{run_id}.wav", "SUCCESS")
                    if self._runs[run_id - 1].finished <= now
                    else NotYet("PENDING")
                    for run_id in batch.run_ids
                }
            )
        )


class _Simulation:
    """One scenario under way."""

    def __init__(self, scenario: Scenario, database: Database, folder: Path) -> None:
        self._scenario = scenario
        self._database = database
        self._settings = Settings(folder / "audio", "key", concurrency=1000)
        self._time = SimulatedTime()
        self._api = _Api(scenario.runs, self._time)
        self._urls: dict[int, float] = {}
        self._awaited = sum(run.finished < NEVER for run in scenario.runs)

    def run(self) -> Outcome:
        """Run it to its end."""
        if self._scenario.past:
            _live_through(self._scenario.past, len(self._scenario.runs) + 1, self._database)
        with self._time.in_force():
            self._serve()
        outcome = Outcome(
            self._scenario,
            self._api.requests,
            longest_unasked=self._api.longest_unasked,
            first_polls=list(self._api.first_polls.values()),
        )
        for run_id, run in enumerate(self._scenario.runs, 1):
            if run_id in self._urls:
                outcome.delays.append(self._urls[run_id] - max(run.finished, run.submitted))
        _poll_at_fixed_times(outcome)
        return outcome

    def _serve(self) -> None:
        session = Session(self._settings, self._database, Mode.FOREVER)
        session.room = SimulatedSignal(self._time)
        recorder = Recorder(session)
        recorder.taker = _Saver(partial(self._save, session))
        pool = partial(SimulatedPool, self._time, ANSWER_SECONDS)
        with patch.object(poller, "ThreadPoolExecutor", lambda threads, _name: pool(threads)):
            polling = poller.Poller(session, cast("ApiClient", self._api), recorder)
        self._submit(session)
        self._time.at(self._scenario.ends, session.stop)
        polling.run()

    def _submit(self, session: Session) -> None:
        """Have each run submitted when its time has come, those of one moment together."""
        together: dict[float, list[int]] = {}
        for run_id, run in enumerate(self._scenario.runs, 1):
            together.setdefault(run.submitted, []).append(run_id)

        def submit(run_ids: list[int]) -> None:
            intake.submit(self._database, DEFAULT_RUN_TYPE, run_ids, utc_now())
            session.room.set()

        for moment, of_now in together.items():
            self._time.at(moment, partial(submit, of_now))

    def _save(self, session: Session) -> None:
        for run_id in _save_all(self._database, session.owner, utc_now()):
            self._urls[run_id] = self._time.seconds
        session.note_waiting(0)
        session.room.set()
        if len(self._urls) == self._awaited and not session.stopping.is_set():
            session.stop()


class _Saver:
    """Has what is ready saved at once, behind every turn."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save

    def wanted(self, _judged: Sequence[Judged]) -> Wanted:
        """Claim nothing in a turn."""
        return Wanted()

    def taken(self, _wanted: Wanted, done: Done) -> None:
        """Save, where there may be something."""
        if done.judged:
            self._save()

    def settle(self, _outcome: RecordedOutcome) -> None:
        """Do nothing: there is none."""


def _poll_at_fixed_times(outcome: Outcome) -> None:
    """Work out what asking for everything unfinished each 5 s would have cost."""
    left, moment = list(outcome.scenario.runs), 0.0
    while left and moment <= outcome.scenario.ends:
        asked = [run for run in left if run.submitted <= moment]
        outcome.fixed_requests += -(-len(asked) // MAX_BATCH)
        outcome.fixed_delays += [
            moment - max(run.finished, run.submitted) for run in asked if run.finished <= moment
        ]
        left = [run for run in left if run.submitted > moment or run.finished > moment]
        moment += FIXED_SECONDS


def _save_all(database: Database, owner: Owner, now: datetime) -> list[int]:
    """Save every run that is ready, in no time; return which these were."""
    until = now + timedelta(minutes=1)
    claim = transfers.Claim(owner, sys.maxsize, now, None, until, lambda _run: None)
    ready = transfers.claim_ready(database, claim)
    transfers.record_transfers(
        database,
        [
            (
                one.run.key,
                one.lease,
                Published(f"/{one.run.key.run_id}.wav", 1, "0" * 64, "wav", None),
            )
            for one in ready.claimed
        ],
        now,
    )
    return [one.run.key.run_id for one in ready.claimed]


def _live_through(past: Sequence[float], first: int, database: Database) -> None:
    """Leave what the program would have left of runs that it saved a day before, which took so."""
    owner, began = Owner(), STARTED_AT - timedelta(days=1)
    taken = dict(enumerate(past, first))
    intake.submit(database, DEFAULT_RUN_TYPE, taken, began)
    found = {run_id: began + timedelta(seconds=seconds) for run_id, seconds in taken.items()}
    for now in (began, *sorted(found.values())):
        for batch in polling.claim_due(
            database,
            owner,
            [DEFAULT_RUN_TYPE],
            wanted=polling.Wanted(len(past)),
            now=now,
            cutoff=now,
            soon_seconds=0,
            lease_until=now + timedelta(minutes=1),
        ):
            judged: list[tuple[RunKey, str, PollStep]] = [
                (
                    run.key,
                    batch.lease,
                    UrlReceived("https://storage.example/past.wav", None, "SUCCESS")
                    if run.polls
                    else PollLater(found[run.key.run_id], "PENDING"),
                )
                for run in batch.runs
            ]
            polling.record_polls(database, judged, now)
        _save_all(database, owner, now)


def main(arguments: Sequence[str]) -> None:
    """Print the table, of so many runs."""
    count = int(arguments[0]) if arguments else FULL_RUNS
    sys.stdout.write(markdown([row for one in scenarios(count) for row in rows(one)]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
