"""Rounds: every side once in each, the order rotated, so that what drifts drifts for all."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.children import Used


class Side(Protocol):
    """One of those that are compared."""

    @property
    def name(self) -> str:
        """What it is called in the tables."""

    def prepare(self, folder: Path) -> None:
        """Make ready what is not measured, in a fresh folder."""

    def run(self, folder: Path) -> Mapping[str, Used]:
        """Do the work; return what each figure of this side took, by its name in the tables."""

    def check(self, folder: Path) -> None:
        """Raise BenchmarkError where the work was not done, or not well."""


Measured = dict[str, list["Used"]]
"""By name, what each round took; all lists are in the order of the rounds."""


def alternate(
    sides: Sequence[Side], rounds: int, folder: Path, what: str, *, synced: bool = True
) -> Measured:
    """Measure all sides `rounds` times, by turns, each in a fresh folder below `folder`.

    What one has written is emptied and synced before the next begins, so that nobody waits for
    another's dirty pages; none of that is measured. Not `synced`: nothing to speak of is written.

    Raises:
        BenchmarkError: a side failed.

    """
    measured: Measured = {}
    for number in range(rounds):
        tell(f"{what}: round {number + 1} of {rounds}")
        for side in rotated(sides, number):
            here = Path(tempfile.mkdtemp(prefix="side-", dir=folder))
            side.prepare(here)
            if synced:
                os.sync()
            found = side.run(here)
            side.check(here)
            empty(here)
            if synced:
                os.sync()
            for name, used in found.items():
                measured.setdefault(name, []).append(used)
                tell(f"  {name}: {used.wall_seconds:.3f} s, CPU {used.cpu_seconds:.2f} s")
    return measured


def empty(folder: Path) -> None:
    """Take the content of all files below a folder, and leave the files.

    Whoever makes a file on ext4 without a journal, after many were removed, waits a millisecond
    for it: what was removed in the last minutes is passed over one by one. So nothing is removed
    before everything is measured.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)


def rotated(sides: Sequence[Side], number: int) -> list[Side]:
    """Return the order of a round: everybody is first once, and every second round runs back."""
    start = number % len(sides)
    turned = [*sides[start:], *sides[:start]]
    return turned if number % 2 == 0 else turned[::-1]


def tell(text: str) -> None:
    """Say on standard error what is going on."""
    sys.stderr.write(text + "\n")
