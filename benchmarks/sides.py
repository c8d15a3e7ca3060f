"""Sides that are one command each."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks import children

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.children import Used


def _nothing(_folder: Path) -> None:
    """Prepare or check nothing."""


@dataclass
class CommandSide:
    """One command, in a folder of its own unless its environment says otherwise."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[Path], None] = _nothing
    after: Callable[[Path], None] = _nothing

    def prepare(self, folder: Path) -> None:
        """Make ready what the command needs."""
        self.before(folder)

    def run(self, folder: Path) -> Mapping[str, Used]:
        """Run it."""
        environment = children.plain_environment(folder, **self.environment)
        return {self.name: children.run(self.command, folder=folder, environment=environment)}

    def check(self, folder: Path) -> None:
        """See what it has done."""
        self.after(folder)


def python(*arguments: str) -> list[str]:
    """Return a command line of the program's own interpreter."""
    return [sys.executable, *arguments]
