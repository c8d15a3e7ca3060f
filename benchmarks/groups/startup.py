"""What starting costs: a command that does nothing is what cron and people pay for each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.program import DATABASE, OUTPUT, Program
from benchmarks.sides import CommandSide, python
from benchmarks.tables import Compared, Row, Unit

if TYPE_CHECKING:
    from benchmarks.bench import Bench

IDLE: Final = "python -c pass"
TIMES: Final = 4
"""How many rounds of these are one of the others: they are short, and small differences count."""


def measure(bench: Bench) -> list[Row]:
    """`--version`, and `run --once` with nothing due, beside an interpreter that does nothing."""
    program = Program()
    empty = bench.folder / "empty"
    empty.mkdir()
    program.create(empty)
    (empty / OUTPUT).mkdir()
    version, once = "`downloader --version`", "`downloader run --once`, nothing due"
    found = bench.alternate(
        "start-up",
        [
            CommandSide(IDLE, python("-c", "pass")),
            CommandSide(version, program.command("--version")),
            CommandSide(
                once,
                program.command(
                    *("run", "--once", "--database", str(empty / DATABASE)),
                    *("--output", str(empty / OUTPUT), "--api-url", "http://127.0.0.1:9/"),
                ),
                {"CAMB_API_KEY": "benchmark"},
            ),
        ],
        times=TIMES,
        synced=False,
    )
    bench.notes.append(f"Each of these was started {TIMES} times a round.")
    return [
        Row(
            f"{name}, whole process",
            tuple(used.wall_seconds for used in found[name]),
            Unit.SECONDS,
            IDLE,
            tuple(used.wall_seconds for used in found[IDLE]),
            compared=Compared.MORE,
            goal=goal,
        )
        for name, goal in ((version, 0.15), (once, 0.6))
    ]
