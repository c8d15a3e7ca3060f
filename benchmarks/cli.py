"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from benchmarks import machine, report
from benchmarks.bench import FULL, SMALL, Bench
from benchmarks.errors import BenchmarkError
from benchmarks.program import NAME, Program
from benchmarks.rounds import empty, tell
from benchmarks.tables import markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.tables import Row


class Group(NamedTuple):
    """A group of measurements: where it is, what stands above it, and whom it needs."""

    module: str
    function: str
    title: str
    peers: tuple[str, ...]
    paced: bool = False


class Table(NamedTuple):
    """What a group has measured."""

    rows: list[Row]
    text: str


_DOWNLOADS: Final = "benchmarks.groups.downloads"
_STORE: Final = "benchmarks.groups.store"

GROUPS: Final = {
    "usual": Group(
        _DOWNLOADS,
        "measure_usual",
        "Files of the usual size, over TLS",
        ("nginx", "curl", "wget2", "aria2c", "sha256sum"),
    ),
    "large": Group(_DOWNLOADS, "measure_large", "Large files, over TLS", ("nginx", "curl")),
    "small": Group(
        _DOWNLOADS, "measure_small", "Small files, over TLS", ("nginx", "curl", "aria2c")
    ),
    "latency": Group(
        "benchmarks.groups.latency",
        "measure",
        "Files from far away",
        ("nginx", "curl"),
        paced=True,
    ),
    "memory": Group("benchmarks.groups.memory", "measure", "Memory", ("nginx",)),
    "submit": Group(_STORE, "measure_submit", "Submitting", ()),
    "store": Group(_STORE, "measure_store", "The database", ("sqlite3",)),
    "queue": Group(_STORE, "measure_queue", "A long queue", ()),
    "startup": Group("benchmarks.groups.startup", "measure", "Starting", ()),
    "growth": Group("benchmarks.groups.growth", "measure", "Cost against size", ()),
    "polling": Group("benchmarks.poll_schedule", "measure", "Asking for results", ()),
}

_NEEDED: Final = frozenset({"nginx", "sha256sum"})
"""What a group cannot do without."""


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for; return the exit code: 1 where a side failed, never for speed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write and options.scale != FULL:
        parser.error("--write needs --scale full: the page is of the full figures")
    rounds = options.rounds or (5 if options.scale == FULL else 1)
    # In the order of the table: what is measured last may need memory of its own, see `memory`.
    chosen = [name for name in GROUPS if options.only is None or name in options.only]
    commands = {name for group in chosen for name in GROUPS[group].peers} - set(options.without)
    signal.signal(signal.SIGTERM, _end)
    tables: dict[str, Table] = {}
    try:
        if options.write:
            report.check(chosen)
        machine.check_peers(commands, paced=any(GROUPS[group].paced for group in chosen))
        with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.folder) as folder:
            bench = Bench(
                Path(folder).resolve(),
                options.scale,
                rounds,
                _programs(options.engine),
                frozenset(options.without),
            )
            found = machine.describe(bench.folder)
            sys.stdout.write(report.of_machine(found) + "\n")
            for name in chosen:
                table = _measure(name, bench, found["downloader"])
                if table is not None:
                    tables[name] = table
    except (BenchmarkError, OSError) as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("benchmarks: ended early; nothing is written.\n")
        return 130
    if options.json is not None:
        content = {
            "machine": found,
            "scale": options.scale,
            "rounds": rounds,
            "rows": {name: [asdict(row) for row in table.rows] for name, table in tables.items()},
            "measured": bench.raw,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    if options.write:
        report.write(found, {name: one.text for name, one in tables.items()}, bench.pictures)
    return 0 if len(tables) == len(chosen) else 1


def _measure(name: str, bench: Bench, version: str) -> Table | None:
    """Measure one group and print its table; None where a side failed, which is told."""
    tell(f"== {name}")
    group = GROUPS[name]
    bench.notes.clear()
    measure: Callable[[Bench], list[Row]] = getattr(import_module(group.module), group.function)
    try:
        rows = measure(bench)
    except BenchmarkError as error:
        sys.stderr.write(f"benchmarks: {name}: {error}\n")
        return None
    finally:
        empty(bench.folder)  # the next one needs the disk
    # Tables of one page may be of several days.
    rounds = f"{bench.rounds} round{'s' if bench.rounds > 1 else ''}"
    when = f"{rounds}, {datetime.now(UTC):%Y-%m-%d}, downloader {version}."
    text = "\n\n".join([*([markdown(rows)] if rows else []), *bench.notes, when])
    sys.stdout.write(f"\n### {group.title}\n\n{text}\n")
    sys.stdout.flush()
    return Table(rows, text)


def _programs(engines: Sequence[str]) -> tuple[Program, ...]:
    """Return the program as it is, or once for each engine that is asked for."""
    if not engines:
        return (Program(),)
    return tuple(Program(f"{NAME} --engine {name}", ("--engine", name)) for name in engines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the program beside what else there is."
    )
    option: Callable[..., Any] = parser.add_argument
    option("--only", nargs="+", choices=GROUPS, metavar="NAME", help=", ".join(GROUPS))
    option("--scale", choices=(SMALL, FULL), default=FULL, help="small: does it work at all")
    option("--rounds", type=_count, metavar="N", help="default: 5, or 1 at the small scale")
    option(
        "--without",
        nargs="+",
        choices=sorted(machine.PACKAGES.keys() - _NEEDED),
        default=[],
        metavar="PEER",
        help="leave a peer out: " + ", ".join(sorted(machine.PACKAGES.keys() - _NEEDED)),
    )
    option("--engine", nargs="+", default=[], metavar="NAME", help="`run --engine NAME`, each")
    option("--folder", type=Path, help="where to write; default: the system's temporary folder")
    option("--json", type=Path, metavar="FILE", help="write all figures of all rounds there")
    option("--write", choices=("docs",), help="put the tables into docs/performance.md")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _end(_signal: int, _frame: object) -> NoReturn:
    """End as on Ctrl-C: children are ended and folders removed on the way out."""
    raise KeyboardInterrupt
