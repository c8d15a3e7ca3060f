"""What the long forms share: what was asked for, a folder, the figures, and how it all ends."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torture.rig import Rig

from downloader.observe import logs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_SHOWN: Final = 30


class LongForm:
    """One command line; `numbers` are its options and their defaults.

    Where there are names, `--only` chooses among them; `only` is what was chosen, in their order.

    Its folder is kept where anything was wrong, to be looked into.
    """

    def __init__(self, title: str | None, only: Collection[str] = (), **numbers: int) -> None:
        parser = argparse.ArgumentParser(description=(title or "").partition("\n")[0])
        for name, number in numbers.items():
            parser.add_argument(f"--{name}", type=int, default=number)
        if only:
            parser.add_argument("--only", nargs="+", choices=only, metavar="NAME", default=())
        asked = vars(parser.parse_args())
        chosen = asked.pop("only", ())
        self.only = [name for name in only if name in chosen]
        self.asked: dict[str, int] = asked
        self._folder = Path(tempfile.mkdtemp(prefix="torture-"))
        self._rigs = itertools.count(1)
        self._wrong: list[str] = []
        logs.configure(0)
        logging.getLogger("uvicorn.error").disabled = True  # its clients are killed on purpose
        say(f"{Path(sys.argv[0]).name} {self.asked}")

    @contextlib.contextmanager
    def rig(self, name: str = "", **options: Any) -> Iterator[Rig]:  # noqa: ANN401 - SimulatorOptions' fields
        """Make a rig, and say in the end what was done with it."""
        since, wrong = time.monotonic(), len(self._wrong)
        with Rig(self._folder / str(next(self._rigs)), **options) as rig:
            try:
                yield rig
            except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                where = traceback.extract_tb(error.__traceback__)[-1].line
                self.found([f"{name}: {where}: {type(error).__name__}: {error}"])
            say(
                f"{name or 'figures'}: {rig.figures(since)}"
                f"{'' if len(self._wrong) == wrong else ', NOT WELL'}"
            )

    def found(self, wrong: list[str]) -> None:
        """Note what is wrong."""
        self._wrong += wrong

    def conclude(self) -> int:
        """Say what was wrong; return the exit code, 1 where anything was."""
        for one in self._wrong[:_SHOWN]:
            say(f"wrong: {one}")
        if not self._wrong:
            shutil.rmtree(self._folder, ignore_errors=True)
            say("all is well")
            return 0
        say(f"{len(self._wrong)} things are wrong; see {self._folder}")
        return 1


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
