"""What every group of measurements is given: where, how much, how often, and against whom."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks import services
from benchmarks.audio import make_set
from benchmarks.program import Program
from benchmarks.rounds import Measured, Side, alternate, empty, tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.audio import AudioSet
    from benchmarks.services import Api, Storage

SMALL: Final = "small"
FULL: Final = "full"


@dataclass
class Bench:
    """One call of the benchmarks; `folder` is removed at its end."""

    folder: Path
    scale: str
    rounds: int
    programs: tuple[Program, ...] = (Program(),)
    without: frozenset[str] = frozenset()
    """Commands that are not compared with, by name."""
    raw: dict[str, object] = field(default_factory=dict)
    """Everything measured, by what it was; as JSON has it."""
    pictures: dict[str, str] = field(default_factory=dict)
    """SVGs, by their name in docs/."""
    notes: list[str] = field(default_factory=list)
    """Sentences that belong below the table of the group that is being measured."""

    def size(self, full: int, small: int) -> int:
        """Return how many of something there are at this scale."""
        return full if self.scale == FULL else small

    def alternate(
        self, what: str, sides: Sequence[Side], *, times: int = 1, synced: bool = True
    ) -> Measured:
        """Measure sides by turns, in `rounds` rounds or some times as many."""
        found = alternate(sides, self.rounds * times, self.folder, what, synced=synced)
        self.raw[what] = {
            name: [asdict(used) for used in all_used] for name, all_used in found.items()
        }
        return found

    @contextlib.contextmanager
    def served(
        self, name: str, count: int, size: int, *, paced: bool = False, delay_seconds: float = 0.0
    ) -> Iterator[tuple[AudioSet, Storage, Api]]:
        """Serve a set of files and the API that knows their URLs."""
        tell(f"{name}: making {count} files of {size} bytes")
        here = self.folder / name
        here.mkdir()
        audio = make_set(here / "files", name, count, size)
        with services.storage(here / "nginx", here / "files", paced=paced) as storage:
            origin = storage.origin + (services.PACED if paced else "")
            with services.api(here / "api", origin, delay_seconds=delay_seconds) as api:
                yield audio, storage, api
        empty(here)
