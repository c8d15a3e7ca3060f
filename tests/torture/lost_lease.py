"""Freeze a worker past its lease at exact places, let another save its runs, and thaw it.

The long form does so with several numbers of passes at each place, and keeps the database
locked by a frozen process for longer than the others' patience::

    .venv/bin/python tests/torture/lost_lease.py --passes 4
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torture.long_form import LongForm
from torture.rig import QUICK
from torture.truth import Expected, Snapshot, Variant

from downloader.failpoints import At

if TYPE_CHECKING:
    from torture.rig import Rig, Running

OPTIONS: Final[dict[str, Any]] = {"min_size": 1_100_000, "max_size": 1_400_000}
RUNS: Final = 4
LATE: Final = 1_000
"""A run that is submitted when the frozen process is thawed: to see that it goes on."""

SLOWLY: Final = 500_000
"""Bytes a second, where a transfer has to last longer than its first second."""

PLACES: Final = (
    At.POLL_CLAIMED,
    At.POLL_ANSWERED,
    At.POLL_RECORDED,
    At.TRANSFER_CLAIMED,
    At.TRANSFER_NOTED,
    At.TRANSFER_WRITING,
    At.TRANSFER_WRITTEN,
    At.TRANSFER_SYNCED,
    At.TRANSFER_PUBLISHED,
    At.TRANSFER_DELIVERED,
)
HOLDS_TRANSFERS: Final = frozenset(PLACES[3:])
"""Where the frozen process holds the leases of transfers, and tells that it lost them."""
EACH_RUN: Final = frozenset(PLACES[4:])
HAS_PUBLISHED: Final = frozenset(PLACES[-2:])
CHANGING: Final = {
    "runs": "*",
    "where": "storage",
    "fault": {"kind": "changed", "version": 2},
    "skip": 1,
}
"""The others get another file than the frozen process has: the one cannot pass for the other."""

FROZEN: Final = ("run", "--lease", "1s", *QUICK)
OTHERS: Final = ("run", "--drain", "--lease", "3s", *QUICK)


def options_of(at: At) -> dict[str, Any]:
    """Return the simulator's options for a place."""
    return OPTIONS | ({"bandwidth": SLOWLY} if at is At.TRANSFER_NOTED else {})


def _freeze(rig: Rig, at: At, passes: int = 1, at_once: int = 1) -> tuple[Running, range]:
    """Freeze a daemon at a place; return it, and all the runs that were submitted for that.

    A process that has not come to stand just there is killed, its runs are saved, and the next
    one is tried.
    """
    last = 0
    while True:
        rig.submit(range(last + 1, last + RUNS + 1))
        last += RUNS
        frozen = rig.start(*FROZEN, "--concurrency", str(at_once), failpoints=f"{at}=stop@{passes}")
        rig.until(frozen.is_frozen, f"a process frozen at {at}", frozen)
        rig.killed.add(frozen.process.pid)
        if _stands_there(rig, at):
            return frozen, range(1, last + 1)
        rig.kill(frozen)
        rig.succeed(*OTHERS)


def _stands_there(rig: Rig, at: At) -> bool:
    """Return whether a frozen process is where it should be, and does not hold more than that.

    SIGSTOP stops every thread of a process, wherever it has got to by then. One in the middle of
    a commit keeps the database locked for everybody, which is the scenario of `record.written`
    alone; one that has just published a file has it in the way of a changed one.
    """
    if at is At.RECORD_WRITTEN:
        return not _may_be_written_to(rig)
    return _may_be_written_to(rig) and (at in HAS_PUBLISHED or not _published(rig))


def _may_be_written_to(rig: Rig) -> bool:
    """Return whether nobody holds the database's lock to write, nor keeps it."""
    with contextlib.closing(sqlite3.connect(rig.database, timeout=0.2)) as raw:
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


def _published(rig: Rig) -> bool:
    """Return whether there is a file of a run that is being transferred."""
    return any(
        [*rig.program.output.glob(f"{run_id}.*")]
        for (run_id,) in rig.query("SELECT run_id FROM runs WHERE state = 'downloading'")
    )


def _files(rig: Rig) -> dict[str, tuple[int, int, bytes]]:
    """Return the saved files: inode, time of change and bytes."""
    found = {}
    for path in rig.program.output.glob("*.*"):
        if path.is_file():
            status = path.stat()
            found[path.name] = (status.st_ino, status.st_mtime_ns, path.read_bytes())
    return found


def lost_lease(rig: Rig, at: At, passes: int = 1, at_once: int = 1) -> list[str]:
    """Freeze a worker with so many transfers past its lease; return everything that is wrong."""
    if at not in HAS_PUBLISHED:
        rig.simulator.set_rules([CHANGING])
    frozen, runs = _freeze(rig, at, passes, at_once)
    saved = rig.run(*OTHERS)
    assert saved.process.returncode == 0, saved.said()
    assert frozen.is_frozen()
    before, files = Snapshot.of(rig.database), _files(rig)
    assert {row["state"] for row in before.rows.values()} == {"done"}
    rig.submit([LATE])
    frozen.process.send_signal(signal.SIGCONT)
    rig.until(lambda: rig.done() == len(runs) + 1, "the thawed process's next file", frozen)
    frozen.process.terminate()
    wrong = []
    if frozen.wait() != 0:
        wrong.append(f"the thawed process ended with {frozen.wait()}: {frozen.said()}")
    after = Snapshot.of(rig.database)
    for run_id in runs:
        if after.rows[run_id] != before.rows[run_id]:
            wrong.append(f"the row of run {run_id} was written to: {after.rows[run_id]}")
        if after.histories[run_id] != before.histories[run_id]:
            wrong.append(f"the history of run {run_id} goes on: {after.histories[run_id]}")
    now = _files(rig)
    wrong += [f"{name} was touched" for name, file in files.items() if now.get(name) != file]
    if at in HOLDS_TRANSFERS and "run.lease_lost" not in frozen.said():
        wrong.append(f"the thawed process does not say what it lost: {frozen.said()}")
    rig.succeed(*OTHERS)
    expected = Expected([*runs, LATE], variants=lambda _run_id: (Variant(1), Variant(2)))
    return wrong + rig.wrong(expected, patient=True)


def frozen_with_the_database(rig: Rig, *, for_long: bool) -> list[str]:
    """Freeze a worker while it holds the lock to write: the others wait, or say what is wrong.

    `for_long`: for longer than the 30 s that a transaction waits for its turn.
    """
    frozen, runs = _freeze(rig, At.RECORD_WRITTEN)
    draining, submitting = rig.start(*OTHERS), rig.start("submit", str(LATE))
    rig.succeed("status")  # who only reads is not held up
    rig.until(rig.leases_ran_out, "leases that run out", draining, submitting)
    wrong = []
    if for_long:
        once = rig.run("run", "--once", *QUICK)
        if once.wait() != 3 or "database is locked. Another program has held" not in once.said():
            wrong.append(f"`--once` ended with {once.wait()}: {once.said()}")
        rig.until(lambda: "database.busy" in draining.said(), "the drain's complaint", draining)
        if submitting.wait() != 3 or "find it" not in submitting.said():
            wrong.append(f"`submit` ended with {submitting.wait()}: {submitting.said()}")
    before = Snapshot.of(rig.database)
    assert {before.rows[run_id]["state"] for run_id in runs[-RUNS:]} <= {"ready", "downloading"}
    frozen.process.send_signal(signal.SIGCONT)
    if for_long:
        rig.succeed("submit", str(LATE))
    elif submitting.wait() != 0:
        wrong.append(f"`submit` ended with {submitting.wait()}: {submitting.said()}")
    rig.until(lambda: rig.done() == len(runs) + 1, "every file", frozen)
    if draining.wait() != 0:
        wrong.append(f"the drain ended with {draining.wait()}: {draining.said()}")
    frozen.process.terminate()
    if frozen.wait() != 0:
        wrong.append(f"the thawed process ended with {frozen.wait()}: {frozen.said()}")
    rig.succeed(*OTHERS)
    expected = Expected([*runs, LATE])
    wrong += rig.wrong(expected, patient=True, allowed="Another program has held")
    return wrong


def main() -> int:
    """Run the long form."""
    long_form = LongForm(__doc__, passes=4)
    for at in PLACES:
        # What is not passed by each run is passed by all four of them at once.
        for passes in range(1, long_form.asked["passes"] + 1 if at in EACH_RUN else 2):
            with long_form.rig(f"{at}@{passes}", **options_of(at)) as rig:
                long_form.found(lost_lease(rig, at, passes, at_once=RUNS))
    with long_form.rig("with the database", **OPTIONS) as rig:
        long_form.found(frozen_with_the_database(rig, for_long=True))
    return long_form.conclude()


if __name__ == "__main__":
    sys.exit(main())
