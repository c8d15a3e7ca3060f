"""When runs are submitted and when they finish: what polling is measured with."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

NEVER: Final = float("inf")
FINISHED: Final = "finished when submitted"


@dataclass(frozen=True, slots=True)
class Run:
    """When a run is submitted and when it finishes, in seconds from the start."""

    submitted: float
    finished: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """Runs in order of their ids; `ends` is when the simulation does, whatever is unfinished."""

    name: str
    runs: Sequence[Run]
    ends: float = 7200.0
    past: Sequence[float] = ()
    """How long each run took that was polled and saved before this began, in seconds."""


def scenarios(count: int) -> list[Scenario]:
    """Return the scenarios: the first, which has a goal, of so many runs, the others of fewer."""
    few = max(12, count // 5)
    draw = random.Random(2026)  # noqa: S311 - the same runs in each call
    slow = [draw.lognormvariate(4.1, 0.5) for _ in range(few)]
    minutes = 600 / few
    trickle = [Run(at * 1800 / few, at * 1800 / few + taken) for at, taken in enumerate(slow)]
    return [
        in_order(count, 10),
        in_order(few, 30),
        Scenario("10 min, in no order", [Run(0, draw.uniform(0, 600)) for _ in range(few)]),
        Scenario("10 min, the last first", [Run(0, 600 - at * minutes) for at in range(few)]),
        Scenario("all at once after 5 min", [Run(0, 300)] * few),
        Scenario(FINISHED, [Run(0, 0)] * few),
        Scenario(
            "a minute each, 3 % ten times as long, 1 % never",
            [
                Run(0, NEVER if at % 100 == 50 else taken * (10 if at % 33 == 0 else 1))
                for at, taken in enumerate(slow)
            ],
            ends=1800,
        ),
        Scenario("one by one over 30 min, a minute each", trickle),
        Scenario(
            "the same, with a past",
            trickle,
            past=[draw.lognormvariate(4.1, 0.5) for _ in range(200)],
        ),
        Scenario("12 runs, a minute each", [Run(0, 60 + draw.gauss(0, 10)) for _ in range(12)]),
    ]


def in_order(count: int, disorder_seconds: float) -> Scenario:
    """Return runs that finish over ten minutes in order of their ids, but for some disorder."""
    draw = random.Random(count)  # noqa: S311 - the same runs in each call
    return Scenario(
        f"10 min, in order within {disorder_seconds:g} s",
        [
            Run(0, max(0.0, at * 600 / count + draw.gauss(0, disorder_seconds)))
            for at in range(count)
        ],
    )
