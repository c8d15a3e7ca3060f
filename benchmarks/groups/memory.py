"""Peak resident memory of `downloader run`: large files, and very many runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks import children
from benchmarks.errors import BenchmarkError
from benchmarks.groups.downloads import LARGE_BYTES, SMALL_BYTES
from benchmarks.program import DATABASE, ProgramSide, query
from benchmarks.tables import Compared, Row, Unit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.audio import AudioSet
    from benchmarks.bench import Bench
    from benchmarks.children import Used
    from benchmarks.program import Program
    from benchmarks.services import Api, Storage

GOAL_BYTES: Final = 100e6
_ENDED_EARLY: Final = 4  # the exit code of a call that leaves runs


@dataclass
class ManyRuns:
    """The program with very many runs to save, ended after a while."""

    program: Program
    runs: int
    seconds: int
    audio: AudioSet
    storage: Storage
    api: Api
    saved: int = 0

    @property
    def name(self) -> str:
        """What it is called in the tables."""
        return self.program.name

    def prepare(self, folder: Path) -> None:
        """Submit the runs."""
        self.program.submit(folder, range(1, self.runs + 1))

    def run(self, folder: Path) -> Mapping[str, Used]:
        """Save what can be saved in the time."""
        base = self.api.base(self.audio, one_file=True)
        used = self.program.run(
            folder,
            self.storage,
            base,
            *("--drain", "--max-duration", str(self.seconds)),
            codes=(_ENDED_EARLY,),
        )
        return {self.name: used}

    def check(self, folder: Path) -> None:
        """Count what was saved: none would be no measurement."""
        [(done, tracked)] = query(
            folder / DATABASE, "SELECT count(*) FILTER (WHERE state = 'done'), count(*) FROM runs"
        )
        if not done or tracked != self.runs:
            raise BenchmarkError(f"{done} of {tracked} runs were saved")
        self.saved = done


def measure(bench: Bench) -> list[Row]:
    """Both, each in rounds of its own; nobody else's memory is asked for."""
    count, runs = bench.size(8, 2), bench.size(1_000_000, 10_000)
    rows = []
    with bench.served("memory-large", count, LARGE_BYTES) as (audio, storage, api):
        large = [ProgramSide(program, audio, storage, api) for program in bench.programs]
        found = bench.alternate("memory, large files", large)
    rows += [_row(f"{count} × 100 MB", name, used) for name, used in found.items()]
    with bench.served("memory-many", 1, SMALL_BYTES) as (audio, storage, api):
        many = [
            ManyRuns(program, runs, bench.size(15, 2), audio, storage, api)
            for program in bench.programs
        ]
        found = bench.alternate("memory, many runs", many)
    rows += [_row(f"{runs:,} tracked runs", name, used) for name, used in found.items()]
    for side in many:
        bench.notes.append(
            f"All {runs:,} runs are finished at the provider; {side.name} is ended after "
            f"{side.seconds} s, and has saved {side.saved:,} files of 64 KB by then."
        )
    _compare_with_own(rows)
    return rows


def _row(what: str, name: str, found: list[Used]) -> Row:
    return Row(
        f"peak resident memory, {what}, 16 at a time",
        tuple(float(used.peak_bytes) for used in found),
        Unit.BYTES,
        compared=Compared.ALONE,
        goal=GOAL_BYTES,
        who=name,
    )


def _compare_with_own(rows: list[Row]) -> None:
    """Refuse figures that may be this process's own, as a child's cannot be below it."""
    own = children.own_peak_bytes()
    if any(figure <= own for row in rows for figure in row.ours):
        raise BenchmarkError(f"the benchmark itself has had {own} bytes: smaller is not measured")
