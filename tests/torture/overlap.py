"""Four processes drain one database at the same time: nothing is asked for twice.

The long form::

    .venv/bin/python tests/torture/overlap.py --runs 5000
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torture.long_form import LongForm
from torture.truth import Expected

if TYPE_CHECKING:
    from torture.rig import Rig

OPTIONS: Final[dict[str, Any]] = {"min_size": 1_000, "max_size": 4_000}
PROCESSES: Final = 4

REQUESTS_A_RUN: Final = 0.2
"""What one process needs: a request for five runs, since all are finished at once."""

REQUESTS_MORE: Final = 0.05
"""How many more API requests several processes may need than one does, as a share."""

SHORT_BATCHES: Final = 2 * PROCESSES
"""So many requests more are no waste at any size: the last runs are shared by the processes, and
what each of them claims then may be less than a batch."""


def overlap(rig: Rig, runs: int, *, processes: int = PROCESSES) -> list[str]:
    """Let so many processes share the work; return everything that is wrong."""
    rig.submit(range(1, runs + 1))
    running = [rig.start("run", "--drain") for _ in range(processes)]
    wrong = [
        f"a process ended with {one.wait()}: {one.said()}"
        for one in running
        if (one.wait(), one.said()) != (0, "")
    ]
    wrong += rig.wrong(Expected(range(1, runs + 1)))
    storage = rig.simulator.stats()["storage"]
    wrong += [
        f"run {run_id} was asked for {times}"
        for run_id, times in storage["by_run"].items()
        if times != {"full": 1, "ranged": 0}
    ]
    if storage["requests"] != runs:
        wrong.append(f"{storage['requests']} storage requests for {runs} runs")
    return wrong


def too_many_requests(asked: int, *, baseline: float) -> list[str]:
    """Return whether several processes have asked too often for what one needs `baseline` for."""
    bearable = baseline * (1 + REQUESTS_MORE) + SHORT_BATCHES
    if asked <= bearable:
        return []
    return [f"{asked} API requests; one process needs {baseline:g}, {bearable:g} are bearable"]


def main() -> int:
    """Run the long form."""
    long_form = LongForm(__doc__, runs=5000)
    runs = long_form.asked["runs"]
    with long_form.rig(**OPTIONS) as rig:
        long_form.found(overlap(rig, runs))
        asked = rig.simulator.stats()["api"]["requests"]
        long_form.found(too_many_requests(asked, baseline=runs * REQUESTS_A_RUN))
    return long_form.conclude()


if __name__ == "__main__":
    sys.exit(main())
