"""Downloading over TLS: wall time, client CPU and API requests, beside what else does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.peers.scripts import ASYNCIO, SDK, ScriptSide
from benchmarks.peers.tools import ARIA2, CURL, CURL_AND_HASH, CURL_AND_KEEP, TOOLS, WGET2, ToolSide
from benchmarks.program import ProgramSide
from benchmarks.tables import Compared, Row, Unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.bench import Bench
    from benchmarks.rounds import Measured, Side

Goals = dict[str, tuple[float | None, float | None]]
"""By whom it is compared with: the goal and the floor of the ratio."""

USUAL_BYTES: Final = 1_760_000
LARGE_BYTES: Final = 100_000_000
SMALL_BYTES: Final = 65_536

_SHOWN: Final = {USUAL_BYTES: "1.76 MB", LARGE_BYTES: "100 MB", SMALL_BYTES: "64 KB"}


def measure_usual(bench: Bench) -> list[Row]:
    """Files of the usual size, against everybody; wall, CPU and requests from the same rounds."""
    goals: Goals = {
        CURL: (1.3, 1.6),
        CURL_AND_KEEP: (0.8, None),
        WGET2: (1.6, 2.0),
        ARIA2: (0.7, 0.85),
        ASYNCIO: (0.33, 0.5),
        SDK: (None, None),
    }
    count = bench.size(400, 40)
    with bench.served("usual", count, USUAL_BYTES) as (audio, storage, api):
        ours = [ProgramSide(program, audio, storage, api) for program in bench.programs]
        sides: list[Side] = [*ours]
        sides += [
            ToolSide(TOOLS[name], audio, storage, hashed=name == CURL, kept=name == CURL)
            for name in _tools(bench, goals)
        ]
        sides += [ScriptSide(name, audio, storage, api) for name in (ASYNCIO, SDK)]
        found = bench.alternate("usual", sides)
    what = f"{count} × {_SHOWN[USUAL_BYTES]}"
    rows = _wall(bench, f"{what}, wall time", found, goals)
    gigabytes = audio.total_bytes / 1e9
    cpu: Goals = {CURL: (1.6, 1.9), CURL_AND_HASH: (1.2, 1.6)}
    cpu |= dict.fromkeys((WGET2, ARIA2, ASYNCIO), (None, None))
    for program in bench.programs:
        for name, (goal, floor) in cpu.items():
            if name in found:
                rows.append(
                    Row(
                        f"{what}, CPU of the client per GB",
                        tuple(used.cpu_seconds / gigabytes for used in found[program.name]),
                        Unit.SECONDS_PER_GB,
                        name,
                        tuple(used.cpu_seconds / gigabytes for used in found[name]),
                        goal=goal,
                        floor=floor,
                        who=program.name,
                    )
                )
    rows += [
        Row(
            "API requests per run, all finished",
            tuple(number / count for number in side.requests),
            Unit.REQUESTS,
            "at best 0.2: five a request",
            compared=Compared.ALONE,
            goal=0.205,
            who=side.name,
        )
        for side in ours
    ]
    return rows


def measure_large(bench: Bench) -> list[Row]:
    """Few large files: bytes alone."""
    goals: Goals = {CURL: (1.2, 1.35), CURL_AND_KEEP: (0.8, None)}
    return _measure_wall(bench, "large", bench.size(8, 2), LARGE_BYTES, goals)


def measure_small(bench: Bench) -> list[Row]:
    """Many small files: what each costs beside its bytes."""
    goals: Goals = {CURL: (4.0, 5.0), CURL_AND_KEEP: (0.8, None), ARIA2: (0.7, 0.9)}
    return _measure_wall(bench, "small", bench.size(2000, 100), SMALL_BYTES, goals)


def _measure_wall(bench: Bench, name: str, count: int, size: int, goals: Goals) -> list[Row]:
    with bench.served(name, count, size) as (audio, storage, api):
        sides: list[Side] = [ProgramSide(one, audio, storage, api) for one in bench.programs]
        sides += [
            ToolSide(TOOLS[tool], audio, storage, kept=tool == CURL)
            for tool in _tools(bench, goals)
        ]
        found = bench.alternate(name, sides)
    return _wall(bench, f"{count:,} × {_SHOWN[size]}, wall time", found, goals)


def _tools(bench: Bench, goals: Goals) -> list[str]:
    """Return the command-line tools to compare with; who was left out is told of."""
    tools = [name for name in goals if name in TOOLS]
    left_out = {name for name in tools if TOOLS[name].command in bench.without}
    bench.notes += [f"{name} was left out (--without)." for name in sorted(left_out)]
    return [name for name in tools if name not in left_out]


def _wall(
    bench: Bench, what: str, found: Measured, goals: Mapping[str, tuple[float | None, float | None]]
) -> list[Row]:
    return [
        Row(
            what,
            tuple(used.wall_seconds for used in found[program.name]),
            Unit.SECONDS,
            name,
            tuple(used.wall_seconds for used in found[name]),
            goal=goal,
            floor=floor,
            who=program.name,
        )
        for program in bench.programs
        for name, (goal, floor) in goals.items()
        if name in found
    ]
