"""Kill daemons and cron jobs at random while they share the work, under faults.

Two daemons and a `run --once` started every second work on one database. The kills are spread
over the work by a seed, not over the time, so that a slow machine sees as many as a fast one.
The long form::

    .venv/bin/python tests/torture/random_kills.py --runs 2000 --kills 200 --seed 1
"""

from __future__ import annotations

import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torture.long_form import LongForm
from torture.rig import QUICK
from torture.truth import Expected, assert_nothing, unfinished

if TYPE_CHECKING:
    from torture.rig import Rig, Running

OPTIONS: Final[dict[str, Any]] = {
    "min_size": 10_000,
    "max_size": 1_500_000,  # from 1 MiB on parts are resumed
    "bandwidth": 4_000_000.0,
    "url_lifetime": 4.0,
    "finish_spread": 2.0,
    "fault_rate": 0.08,
}
RULES: Final[tuple[dict[str, Any], ...]] = (
    {"runs": {"modulo": 7}, "where": "storage", "fault": "truncate", "times": 1},
    {"runs": {"modulo": 7, "remainder": 3}, "where": "storage", "fault": "reset", "times": 1},
    {
        "runs": {"modulo": 31},
        "where": "api",
        "fault": {"kind": "status", "status": 500},
        "times": 1,
    },
)
SETTINGS: Final = (
    *QUICK, "--lease", "2s", "--stall", "20s", "--attempts", "50", "--refreshes", "500",
)  # fmt: skip
"""No run may fail for want of tries, and a busy machine is not to be taken for a stall."""

DAEMONS: Final = 2
MOST_CRON_JOBS: Final = 3
"""As cron does it, one starts whether the last one has ended or not; but not without bound."""


@dataclass(frozen=True)
class Plan:
    """How much work, and how many kills."""

    runs: int
    kills: int
    seed: int


@dataclass
class Crowd:
    """The processes that share the work: daemons that are restarted, and cron's jobs."""

    rig: Rig
    daemons: list[Running] = field(default_factory=list)
    jobs: list[Running] = field(default_factory=list)
    _next_job_at: float = 0.0

    def attend(self) -> None:
        """Start what is to be running, and look at what has ended."""
        while len(self.daemons) < DAEMONS:
            self.daemons.append(self.rig.start("run", *SETTINGS))
        for daemon in self.daemons:
            assert daemon.alive, f"a daemon has ended by itself: {daemon.said()}"
        for job in [job for job in self.jobs if not job.alive]:
            self.jobs.remove(job)
            # 3: a fault of the API was all the answer it got.
            assert job.wait() in (0, 3), f"a cron job ended with {job.wait()}: {job.said()}"
        if time.monotonic() >= self._next_job_at and len(self.jobs) < MOST_CRON_JOBS:
            self._next_job_at = time.monotonic() + 1.0
            self.jobs.append(self.rig.start("run", "--once", *SETTINGS))

    def kill_one(self, chance: random.Random) -> None:
        """Kill one that lives, whichever; a job that has just ended by itself does not count."""
        while True:
            self.attend()
            victim = chance.choice([one for one in (*self.daemons, *self.jobs) if one.alive])
            if self.rig.kill(victim):
                break
        for group in (self.daemons, self.jobs):
            if victim in group:
                group.remove(victim)

    def end(self) -> None:
        """Ask the daemons to end, and wait for all."""
        for daemon in self.daemons:
            daemon.process.terminate()
        for daemon in self.daemons:
            # -15: it was only just starting, and Python had not yet come to listen to signals.
            assert daemon.wait() in (0, -signal.SIGTERM), (daemon.wait(), daemon.said())
        for job in self.jobs:
            assert job.wait() in (0, 3), (job.wait(), job.said())


def random_kills(rig: Rig, plan: Plan) -> list[str]:
    """Let the crowd do the work while it is being killed; return everything that is wrong."""
    chance = random.Random(plan.seed)  # noqa: S311 - to be repeated, not to be secret
    rig.simulator.set_rules(list(RULES))
    rig.submit(range(1, plan.runs + 1))
    crowd = Crowd(rig)
    with_work_left = 0
    looks = {round(plan.kills * part / 4) for part in range(1, 4)}
    for number, done in enumerate(sorted(chance.choices(range(plan.runs), k=plan.kills)), 1):

        def reached(done: int = done) -> bool:
            crowd.attend()
            return rig.done() >= done

        rig.until(reached, f"{done} files")
        rig.idle(chance.uniform(0.0, 0.3))
        crowd.kill_one(chance)
        with_work_left += unfinished(rig.database) > 0
        if number in looks:
            assert_nothing(rig.wrong_now())
    crowd.end()
    rig.succeed("run", "--drain", *SETTINGS)
    wrong = rig.wrong(Expected(range(1, plan.runs + 1)), patient=True)
    if with_work_left < plan.kills * 3 // 4:
        wrong.append(f"only {with_work_left} of {plan.kills} kills came while there was work")
    return wrong + _wrongly_spent(rig)


def _wrongly_spent(rig: Rig) -> list[str]:
    """Return what is wrong with the attempts: a kill costs none, a fault at most one."""
    faults = rig.simulator.stats()["faults"]
    at_storage = sum(number for name, number in faults.items() if name.startswith("storage:"))
    [(spent,)] = rig.query("SELECT sum(attempts) - count(*) FROM runs")
    return [f"{spent} attempts were spent on {at_storage} faults"] if spent > at_storage else []


def main() -> int:
    """Run the long form."""
    long_form = LongForm(__doc__, runs=2000, kills=200, seed=1)
    with long_form.rig(**OPTIONS) as rig:
        long_form.found(random_kills(rig, Plan(**long_form.asked)))
    return long_form.conclude()


if __name__ == "__main__":
    sys.exit(main())
