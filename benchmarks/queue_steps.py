"""What a long queue costs those who look into it, on databases of several sizes, by turns.

Run as a process of its own, which prints JSON: for each database, for each round, the seconds that
each step takes::

    python -m benchmarks.queue_steps ROUNDS DATABASE...

Each database has three queues in it, made of its submitted runs: most have been asked for long ago,
never finish and are due again; a fifth have a URL that has expired; a tenth are there to be
cancelled and retried.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from downloader.camb.run_types import DEFAULT_RUN_TYPE, RUN_TYPES
from downloader.clock import utc_now
from downloader.rules.batching import MAX_BATCH
from downloader.rules.decisions import EXPIRED
from downloader.rules.states import RunKey
from downloader.rules.steps import NewUrl, PollLater
from downloader.store import control, inspection, intake, polling, transfers
from downloader.store.leases import Owner
from downloader.store.migrate import open_database
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.store.database import Database
    from downloader.store.transfers import ReadyRun

NEW_RUNS: Final = 20
AT_ONCE: Final = 40
CLAIMS: Final = 20
"""A round: one would measure how busy the machine is at that moment."""

FIRST_NEW: Final = 10_000_000

_LEASE: Final = timedelta(seconds=60)
_NEVER_FINISH: Final = """
    UPDATE runs SET polls = 20, answers = 20, submitted_at = ?, updated_at = ?, next_attempt_at = ?
"""
_EXPIRED: Final = """
    UPDATE runs SET state = 'ready', url = 'https://storage.example/' || run_id || '.wav',
        ready_at = ?, url_expires_at = ?, next_attempt_at = ?
    WHERE run_id % 5 = 1
"""


class Steps:
    """The steps on one database, and what each has taken in this round."""

    def __init__(self, path: str) -> None:
        self._database: Final[Database] = open_database(path)
        self._owner = Owner()
        self._new = FIRST_NEW
        self.seconds: dict[str, float] = {}
        long_ago = to_text(utc_now() - timedelta(hours=2))
        asked, due = (to_text(utc_now() - timedelta(seconds=ago)) for ago in (600, 300))
        with self._database.write() as connection:
            connection.exec_driver_sql(_NEVER_FINISH, (long_ago, asked, due))
            connection.exec_driver_sql(_EXPIRED, (asked, due, asked))
            self._runs = connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one()
        self._database.empty_log()

    def take(self) -> None:
        """Take each step once."""
        self.seconds = {"claim": 0.0}
        for _ in range(CLAIMS):
            self._claim()
        with self._timed("look"):
            if not inspection.any_unfinished(self._database, RUN_TYPES):
                raise RuntimeError("none is unfinished")
        self._renew()
        self._control()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @contextmanager
    def _timed(self, step: str, units: int = 1) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = (time.perf_counter() - started) / units

    def _claim(self) -> None:
        """Claim new runs, behind all that never finish."""
        new = range(self._new, self._new + NEW_RUNS)
        self._new += NEW_RUNS
        intake.submit(self._database, DEFAULT_RUN_TYPE, new, utc_now())
        now, started = utc_now(), time.perf_counter()
        batches = polling.claim_due(
            self._database,
            self._owner,
            RUN_TYPES,
            wanted=polling.Wanted(AT_ONCE, AT_ONCE // MAX_BATCH),
            now=now,
            cutoff=now,
            soon_seconds=0,
            lease_until=now + _LEASE,
        )
        self.seconds["claim"] += (time.perf_counter() - started) / CLAIMS
        asked = {run.key.run_id for one in batches for run in one.runs}
        if not asked.issuperset(new):
            raise RuntimeError("not all new runs were claimed")
        later = PollLater(now + timedelta(hours=1), "PENDING")
        for one in batches:
            judged = [(run.key, one.lease, later) for run in one.runs]
            polling.record_polls(self._database, judged, now)

    def _renew(self) -> None:
        """Take one turn of the workers, which finds URLs that have expired."""
        now = utc_now()

        def expired(_run: ReadyRun) -> NewUrl:
            later = now + timedelta(hours=1)
            return NewUrl(later, EXPIRED, "The URL expired before it was used.", 0, 1)

        claim = transfers.Claim(self._owner, 32, now, None, now + _LEASE, expired)
        started = time.perf_counter()
        found = transfers.claim_ready(self._database, claim)
        self.seconds["renew"] = (time.perf_counter() - started) / max(1, found.expired)

    def _control(self) -> None:
        """Cancel a tenth of all runs, and put them back."""
        keys = [RunKey(DEFAULT_RUN_TYPE, run_id) for run_id in range(10, self._runs + 1, 10)]
        with self._timed("cancel", len(keys)):
            control.cancel(self._database, keys, utc_now())
        with self._timed("retry", len(keys)):
            control.retry(self._database, keys, utc_now())
        with self._database.write() as connection:  # as they were
            later = to_text(utc_now() + timedelta(hours=1))
            connection.exec_driver_sql(
                "UPDATE runs SET next_attempt_at = ?, polls = 1 WHERE run_id % 10 = 0"
                " AND state = 'pending'",
                (later,),
            )


def main(rounds: int, paths: list[str]) -> None:
    """Measure, after a first round that is not counted, and print."""
    databases = {path: Steps(path) for path in paths}
    found: dict[str, list[dict[str, float]]] = {path: [] for path in paths}
    for number in range(rounds + 1):
        for path, steps in databases.items():
            steps.take()
            if number:
                found[path].append(steps.seconds)
    for steps in databases.values():
        steps.close()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
