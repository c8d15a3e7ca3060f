"""What the store's own steps cost a run, on databases of several sizes, by turns.

Run as a process of its own, which prints JSON: for each database, for each round, the seconds a
run for claiming and for recording::

    python -m benchmarks.store_steps ROUNDS RUNS_A_ROUND DATABASE...

A step is what the program does for it: five runs claimed and asked for at once, each one then
claimed and recorded alone, as where nothing else finishes at the same time.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from benchmarks.api import presigned
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.rules.batching import MAX_BATCH
from downloader.rules.steps import Published, UrlReceived
from downloader.store.leases import Owner
from downloader.store.migrate import open_database
from downloader.store.polling import Wanted, claim_due, record_polls
from downloader.store.transfers import Claim, claim_ready, record_transfers

if TYPE_CHECKING:
    from downloader.store.database import Database

_LEASE: Final = timedelta(seconds=60)


@dataclass
class Spent:
    """Seconds, for a number of runs."""

    claim: float = 0.0
    record: float = 0.0
    runs: int = 0

    def a_run(self) -> dict[str, float]:
        """Return the seconds a run."""
        return {"claim": self.claim / self.runs, "record": self.record / self.runs}


def take_five(database: Database, owner: Owner, spent: Spent) -> None:
    """Have five pending runs claimed, asked for, claimed and saved; add up what it took."""
    now = utc_now()
    started = time.perf_counter()
    batches = claim_due(
        database,
        owner,
        RUN_TYPES,
        wanted=Wanted(MAX_BATCH),
        now=now,
        cutoff=now,
        soon_seconds=0,
        lease_until=now + _LEASE,
    )
    spent.claim += time.perf_counter() - started
    for one in batches:
        judged = [
            (
                run.key,
                one.lease,
                UrlReceived(
                    presigned("https://storage.example", "audio", run.key.run_id),
                    now + timedelta(hours=1),
                    None,
                ),
            )
            for run in one.runs
        ]
        started = time.perf_counter()
        record_polls(database, judged, now)
        spent.record += time.perf_counter() - started
    for _ in range(sum(len(one.runs) for one in batches)):
        started = time.perf_counter()
        claim = Claim(owner, 1, utc_now(), None, now + _LEASE, lambda _run: None)
        ready = claim_ready(database, claim)
        spent.claim += time.perf_counter() - started
        [claimed] = ready.claimed
        key = claimed.run.key
        location = f"/home/ada/.local/share/downloader/audio/{key.run_id}.wav"
        step = Published(location, 1_760_000, f"{key.run_id:064x}", "wav", '"68a1f2c4-1adb00"')
        started = time.perf_counter()
        held = record_transfers(database, [(key, claimed.lease, step)], now)
        spent.record += time.perf_counter() - started
        if held != [True]:
            raise RuntimeError(f"run {key.run_id} was not held")
        spent.runs += 1


def main(rounds: int, runs: int, paths: list[str]) -> None:
    """Measure, after a first step that is not counted, and print."""
    owner = Owner()
    databases = [open_database(path) for path in paths]
    found: dict[str, list[dict[str, float]]] = {path: [] for path in paths}
    for database in databases:
        take_five(database, owner, Spent())
    for number in range(rounds):
        spent = {path: Spent() for path in paths}
        pairs = list(zip(databases, spent.values(), strict=True))
        for step in range(runs // MAX_BATCH):
            turn = (number + step) % len(pairs)
            for database, its in (*pairs[turn:], *pairs[:turn]):
                take_five(database, owner, its)
        for path, its in spent.items():
            found[path].append(its.a_run())
    for database in databases:
        database.close()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
