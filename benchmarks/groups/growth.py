"""Cost against size: from a thousand runs to a million."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks import children
from benchmarks.databases import finish, tracked
from benchmarks.groups.store import ROOT, measure_steps
from benchmarks.program import DATABASE, Program, write_ids
from benchmarks.rounds import tell
from benchmarks.sides import CommandSide, python
from benchmarks.tables import digits, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.tables import Row

PICTURE: Final = "growth.svg"

_RUNS_A_ROUND: Final = 50

Costs = dict[str, dict[str, list[float]]]
"""By what is counted (with its unit), by whose it is, the cost at each size."""


def measure(bench: Bench) -> list[Row]:
    """Measure each cost at each size; the table and the picture are no rows of goals."""
    program = Program()
    sizes = [10**power for power in range(3, bench.size(6, 4) + 1)]
    costs: Costs = {
        "`submit`, µs a run": {"whole process": _submit(bench, program, sizes)},
        "the store's steps, µs a run": {},
        "`status`, s": {},
        "database, bytes a run": {},
    }
    databases: dict[int, Path] = {}
    for size in sizes:
        tell(f"growth: making a database of {size:,} runs")
        databases[size] = tracked(bench.folder / f"growth-{size}", size)
    space = costs["database, bytes a run"]
    space["submitted"] = _bytes_a_run(databases)
    each = min(_RUNS_A_ROUND, sizes[0] // (bench.rounds + 1) // 5 * 5)
    steps = measure_steps(bench, "growth, steps", list(databases.values()), each)
    costs["the store's steps, µs a run"] = {
        name: [median(one[name] for one in steps[path]) * 1e6 for path in databases.values()]
        for name in ("claim", "record")
    }
    for path in databases.values():
        finish(path)
    space["saved"] = _bytes_a_run(databases)
    costs["`status`, s"]["whole process"] = _status(bench, program, databases)
    bench.raw["growth"] = {"sizes": sizes, "costs": costs}
    bench.pictures[PICTURE] = _draw(bench, sizes, costs)
    bench.notes.append(_as_table(sizes, costs))
    return []


def _submit(bench: Bench, program: Program, sizes: Sequence[int]) -> list[float]:
    """Return what submitting takes, in microseconds a run."""
    files = {size: bench.folder / f"ids-{size}.txt" for size in sizes}
    for size, path in files.items():
        write_ids(path, range(1, size + 1))
    found = bench.alternate(
        "growth, submit",
        [
            CommandSide(
                f"{size:,}",
                program.command("submit", "--file", str(path), "--database", DATABASE),
                before=program.create,
            )
            for size, path in files.items()
        ],
    )
    for path in files.values():
        path.unlink()
    return [median(one.wall_seconds for one in found[f"{size:,}"]) / size * 1e6 for size in sizes]


def _status(bench: Bench, program: Program, databases: Mapping[int, Path]) -> list[float]:
    """Return what looking into each database takes, in seconds."""
    found = bench.alternate(
        "growth, status",
        [
            CommandSide(f"{size:,}", program.command("status", "--database", str(path)))
            for size, path in databases.items()
        ],
        synced=False,
    )
    return [median(one.wall_seconds for one in found[f"{size:,}"]) for size in databases]


def _bytes_a_run(databases: Mapping[int, Path]) -> list[float]:
    return [path.stat().st_size / size for size, path in databases.items()]


def _draw(bench: Bench, sizes: Sequence[int], costs: Costs) -> str:
    """Draw the picture, in a process of its own: this one stays small."""
    figures, picture = bench.folder / "growth.json", bench.folder / PICTURE
    figures.write_text(json.dumps({"sizes": sizes, "costs": costs}), "utf-8")
    children.run(
        python("-m", "benchmarks.plot", str(figures), str(picture)),
        folder=ROOT,
        environment=children.plain_environment(bench.folder),
    )
    return picture.read_text("utf-8")


def _as_table(sizes: Sequence[int], costs: Costs) -> str:
    """Return the costs as a table, a line for each size."""
    columns = [
        (f"{what}: {whose}" if len(lines) > 1 else what, values)
        for what, lines in costs.items()
        for whose, values in lines.items()
    ]
    return table(
        ["runs", *(name for name, _ in columns)],
        [
            [f"{size:,}", *(digits(values[number]) for _, values in columns)]
            for number, size in enumerate(sizes)
        ],
    )
