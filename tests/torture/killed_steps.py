"""Kill a process at every place there is, and again, and see that nothing was lost.

The long form kills at each of the first passes of every place, one process after the other on
one database::

    .venv/bin/python tests/torture/killed_steps.py --passes 8 --runs 250
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torture import killed_database
from torture.long_form import LongForm
from torture.rig import QUICK
from torture.truth import Expected, Snapshot, assert_nothing

from downloader.failpoints import At

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torture.rig import Rig

MB: Final = 1_000_000
SHORT: Final = ("--lease", "1s", "--concurrency", "2", *QUICK)
"""For those that are to die: others wait for their leases to run out."""

AFTER: Final = ("--lease", "2s", *QUICK)
"""For those that come after them, and look for leases that ran out every 0.5 s."""


@dataclass(frozen=True)
class Passes:
    """At which passes of a place processes are killed there, and on how many runs they work."""

    kills: tuple[int, ...] = (1, 3)
    runs: int = 18

    @classmethod
    def many(cls, passes: int, runs: int) -> Passes:
        """Return the first so many passes, for the long form."""
        return cls(tuple(range(1, passes + 1)), runs)


@dataclass(frozen=True)
class Working:
    """A place that `run` reaches: with which files and faults, and what has to come of it."""

    min_size: int = 2_000
    max_size: int = 30_000
    bandwidth: float | None = None
    """Bytes a second on each connection, so that a transfer lasts longer than its first second."""
    refuses: bool = False
    """Every sixth run is refused by the API, and its whole batch with it."""
    adopts: bool = False
    """A file is published there whose commit is lost: it must not be fetched again."""
    resumes: bool = False
    """Bytes are there that need not be fetched again."""


LARGE: Final = Working(min_size=2 * MB, max_size=3 * MB, bandwidth=1.2 * MB)

WORKING: Final[Mapping[At, Working]] = {
    At.POLL_CLAIMED: Working(),
    At.POLL_ANSWERED: Working(),
    At.POLL_SPLIT: Working(refuses=True),
    At.POLL_RECORDED: Working(),
    At.TRANSFER_CLAIMED: Working(),
    At.TRANSFER_NOTED: LARGE,
    At.TRANSFER_WRITING: replace(LARGE, bandwidth=0.7 * MB, resumes=True),
    At.TRANSFER_WRITTEN: Working(),
    At.TRANSFER_SYNCED: Working(),
    At.TRANSFER_PUBLISHED: Working(adopts=True),
    At.TRANSFER_DELIVERED: Working(adopts=True),
    At.LEASES_EXTENDED: LARGE,
    At.RECORD_WRITTEN: Working(adopts=True),
    At.RECORD_COMMITTED: Working(),
}


def options_of(at: At) -> dict[str, Any]:
    """Return the simulator's options for a place."""
    working = WORKING.get(at, Working())
    return {
        "min_size": working.min_size,
        "max_size": working.max_size,
        "bandwidth": working.bandwidth,
    }


def killed_at_work(rig: Rig, at: At, passes: Passes) -> None:
    """Kill two that share the work, each at a pass of its own; then one drains the rest."""
    working = WORKING[at]
    ids = range(1, passes.runs + 1)
    failed = dict.fromkeys(ids[1::6] if working.refuses else (), "bad_run")
    if failed:
        fault = {"kind": "status", "status": 422}
        rig.simulator.set_rules([{"runs": [*failed], "where": "api", "fault": fault}])
    rig.submit(ids)
    # Chunks are many, ten a second at least: there the processes shall die in the middle of a file,
    # and after its first second, from which on it can be gone on with.
    each = 30 if at is At.TRANSFER_WRITING else 1
    for first in range(0, len(passes.kills), 2):
        places = [f"{at}@{number * each}" for number in passes.kills[first : first + 2]]
        dying = [rig.start_dying("run", "--drain", *SHORT, at=place) for place in places]
        for running, place in zip(dying, places, strict=True):
            rig.died(running, place)
        assert_nothing(rig.wrong_now())
    drained = rig.run("run", "--drain", *AFTER)
    assert drained.process.returncode in ((0, 1) if failed else (0,)), drained.said()
    assert_nothing(rig.wrong(Expected(ids, failed=failed), patient=True))
    end = Snapshot.of(rig.database)
    assert end.count("adopted") >= working.adopts * len(passes.kills)
    by_run = rig.simulator.stats()["storage"]["by_run"].values()
    assert sum(one["ranged"] for one in by_run) >= working.resumes


def killed_while_submitting(rig: Rig, at: At, _passes: Passes) -> None:
    """Kill `submit` on a new database and on one in use: all ids are tracked, or none is."""
    tracked: set[int] = set()
    for ids in (range(1, 13), range(7, 25)):
        file = rig.folder / "ids.txt"
        file.write_text("\n".join(map(str, ids)))
        rig.die("submit", "--file", str(file), at=at)
        if at is At.SUBMIT_COMMITTED:
            tracked |= set(ids)
        assert {run_id for (run_id,) in rig.query("SELECT run_id FROM runs")} == tracked
        assert_nothing(rig.wrong_now())
        told = json.loads(rig.succeed("submit", "--file", str(file), "--json"))
        assert told == {"submitted": len(set(ids) - tracked), "known": len(set(ids) & tracked)}
        tracked |= set(ids)
    rig.succeed("run", "--drain", *AFTER)
    assert_nothing(rig.wrong(Expected(tracked), patient=True))


def killed_while_verifying(rig: Rig, at: At, _passes: Passes) -> None:
    """Kill `verify --repair` at one repair after the other: the next one finds what is left."""
    damaged, missing, unrecorded = 1, 2, 9
    rig.submit(range(1, 9))
    rig.succeed("run", "--drain", *QUICK)
    rig.submit([unrecorded])
    rig.die("run", "--drain", *SHORT, at=At.TRANSFER_DELIVERED)
    rig.until(rig.leases_ran_out, "a lease that runs out")
    file = rig.program.output / f"{damaged}.wav"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    (rig.program.output / f"{missing}.wav").unlink()
    for number in range(1, 4):
        rig.die("verify", "--repair", at=f"{at}@{number}")
    assert rig.run("verify", "--repair").wait() == 1
    assert rig.query("SELECT run_id FROM runs WHERE state <> 'done'") == [(damaged,), (missing,)]
    rig.succeed("run", "--drain", *AFTER)
    rig.succeed("verify")
    expected = Expected(range(1, 10), repaired=(damaged, missing), aside=["1.wav.damaged-1"])
    assert_nothing(rig.wrong(expected, patient=True))


SCENARIOS: Final[Mapping[At, Callable[[Rig, At, Passes], None]]] = {
    **dict.fromkeys(WORKING, killed_at_work),
    At.SUBMIT_COLLECTED: killed_while_submitting,
    At.SUBMIT_WRITTEN: killed_while_submitting,
    At.SUBMIT_COMMITTED: killed_while_submitting,
    At.MIGRATE_BACKED_UP: killed_database.killed_while_migrating,
    At.MIGRATE_APPLIED: killed_database.killed_while_migrating,
    At.BACKUP_COPYING: killed_database.killed_while_backing_up,
    At.BACKUP_COPIED: killed_database.killed_while_backing_up,
    At.VERIFY_REPAIRING: killed_while_verifying,
}


def main() -> int:
    """Run the long form."""
    long_form = LongForm(__doc__, passes=8, runs=250)
    passes = Passes.many(long_form.asked["passes"], long_form.asked["runs"])
    for at in At:
        with long_form.rig(str(at), **options_of(at)) as rig:
            SCENARIOS[at](rig, at, passes)
    return long_form.conclude()


if __name__ == "__main__":
    sys.exit(main())
