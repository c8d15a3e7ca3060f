"""The database: recording very many runs, taking them up one by one, and looking into it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import children, machine, peers
from benchmarks.databases import finish, tracked
from benchmarks.errors import BenchmarkError
from benchmarks.program import DATABASE, Program, query, write_ids
from benchmarks.rounds import tell
from benchmarks.sides import CommandSide, python
from benchmarks.tables import Compared, Row, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench

RAW: Final = "raw sqlite3 executemany of the same rows"
SQLITE3: Final = "sqlite3 counting by state"
FEW: Final = 1_000

ROOT: Final = Path(__file__).resolve().parents[2]
_COUNT: Final = "SELECT state, count(*) FROM runs GROUP BY state"

Steps = dict[Path, list[dict[str, float]]]
"""By database, for each round: seconds a run, `claim` and `record`."""


def measure_submit(bench: Bench) -> list[Row]:
    """`submit --file` beside the same rows inserted by hand; both processes whole."""
    program, runs = Program(), bench.size(1_000_000, 10_000)
    ids = bench.folder / "ids.txt"
    write_ids(ids, range(1, runs + 1))

    def count(folder: Path) -> None:
        counted = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM run_events)"
        if query(folder / DATABASE, counted) != [(runs, runs)]:
            raise BenchmarkError(f"not all of the {runs} runs were recorded")

    raw = str(Path(peers.__path__[0], "raw_sqlite.py"))
    found = bench.alternate(
        "submit",
        [
            CommandSide(
                program.name,
                program.command("submit", "--file", str(ids), "--database", DATABASE),
                before=program.create,
                after=count,
            ),
            CommandSide(RAW, python(raw, DATABASE, str(ids)), before=program.create, after=count),
        ],
    )
    ids.unlink()
    return [
        Row(
            f"submit {runs:,} ids, whole process",
            tuple(used.wall_seconds for used in found[program.name]),
            Unit.SECONDS,
            RAW,
            tuple(used.wall_seconds for used in found[RAW]),
            goal=2.0,
        )
    ]


def measure_store(bench: Bench) -> list[Row]:
    """Claim and record at two sizes, and `status` at the larger; half of the runs are saved."""
    many = bench.size(1_000_000, 10_000)
    tell(f"store: making databases of {FEW:,} and {many:,} runs")
    small, large = tracked(bench.folder / "few", FEW), tracked(bench.folder / "many", many)
    for path in (small, large):
        finish(path, every=2)
    each = min(100, FEW // 2 // (bench.rounds + 1) // 5 * 5)
    steps = measure_steps(bench, "steps", [small, large], each)
    rows = [
        Row(
            f"{name}, per run, at {many:,} rows",
            tuple(sum(one[key] for key in keys) for one in steps[large]),
            Unit.MICROSECONDS,
            f"the same at {FEW:,} rows",
            tuple(sum(one[key] for key in keys) for one in steps[small]),
            goal=goal,
        )
        for name, keys, goal in (
            ("claim + record", ("claim", "record"), 1.3),
            ("claim", ("claim",), None),
            ("record", ("record",), None),
        )
    ]
    if "sqlite3" in bench.without:
        bench.notes.append("The sqlite3 shell was left out (--without), and `status` with it.")
        return rows
    program = Program()
    found = bench.alternate(
        "status",
        [
            CommandSide(program.name, program.command("status", "--database", str(large))),
            CommandSide(SQLITE3, [machine.find("sqlite3") or "sqlite3", str(large), _COUNT]),
        ],
    )
    rows.append(
        Row(
            f"`status` at {many:,} runs, whole process",
            tuple(used.wall_seconds for used in found[program.name]),
            Unit.SECONDS,
            SQLITE3,
            tuple(used.wall_seconds for used in found[SQLITE3]),
            compared=Compared.MORE,
            goal=0.5,
        )
    )
    return rows


def measure_steps(bench: Bench, what: str, databases: Sequence[Path], runs: int) -> Steps:
    """Measure claims and records on databases by turns, `runs` of each a round.

    It is done in a process of its own: this one stays small.

    Raises:
        BenchmarkError: it failed.

    """
    tell(f"{what}: {bench.rounds} rounds of {runs} runs")
    return _measure_apart(bench, what, "benchmarks.store_steps", databases, runs)


def measure_queue(bench: Bench) -> list[Row]:
    """Measure what a queue of runs that never finish, of expired URLs and of ids costs."""
    many = bench.size(1_000_000, 10_000)
    tell(f"queue: making databases of {FEW:,} and {many:,} runs")
    small, large = tracked(bench.folder / "short", FEW), tracked(bench.folder / "long", many)
    steps = _measure_apart(bench, "queue", "benchmarks.queue_steps", [small, large])
    return [
        Row(
            f"{name}, at {many:,} rows",
            tuple(one[key] for one in steps[large]),
            Unit.MICROSECONDS,
            f"the same at {FEW:,} rows",
            tuple(one[key] for one in steps[small]),
            goal=goal,
        )
        for name, key, goal in (
            ("claim 20 new runs behind those that never finish", "claim", 2.0),
            ("see whether any run is unfinished", "look", 2.0),
            ("put back a run whose URL has expired", "renew", 2.0),
            ("`cancel` of a tenth of them, a run", "cancel", 2.0),
            ("`retry` of these, a run", "retry", 2.0),
        )
    ]


def _measure_apart(
    bench: Bench, what: str, module: str, databases: Sequence[Path], *arguments: int
) -> Steps:
    command = python("-m", module, str(bench.rounds), *map(str, arguments))
    done = subprocess.run(
        [*command, *map(str, databases)],
        cwd=ROOT,
        env=children.plain_environment(bench.folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"{what} failed:\n{done.stderr[-2000:]}")
    found: dict[str, list[dict[str, float]]] = json.loads(done.stdout)
    bench.raw[what] = found
    return {Path(path): rounds for path, rounds in found.items()}
