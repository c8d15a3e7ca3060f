"""A verification: every saved file, then every file that should not be there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from downloader.camb.run_types import DEFAULT_RUN_TYPE
from downloader.transfer.layout import Layout
from downloader.verification.findings import Tally
from downloader.verification.folders import Folders
from downloader.verification.orphans import Orphans
from downloader.verification.parts import StaleParts
from downloader.verification.saved import SavedFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from downloader.store.database import Database
    from downloader.verification.findings import Finding


@dataclass(frozen=True, slots=True)
class Options:
    """How to verify.

    `quick` looks at existence and size and reads no file. `all_missing` goes on where a whole
    folder of saved files is gone. `threads` files are looked at at a time.
    """

    quick: bool = False
    repair: bool = False
    all_missing: bool = False
    threads: int = 4


class Verification:
    """Compares a database with its files; `tally` tells how far it is.

    It goes on safely beside processes that save files, and beside another of its kind. `tick`
    is called often while it works.
    """

    def __init__(
        self, database: Database, output: Path, options: Options, tick: Callable[[], None]
    ) -> None:
        self._database = database
        self._layout = Layout(output, DEFAULT_RUN_TYPE)
        self._options = options
        self._tick = tick
        self._folders = Folders(database, self._layout.folder, all_missing=options.all_missing)
        self.tally = Tally()

    @property
    def files(self) -> int:
        """How many files there are to look at."""
        return self._folders.files

    @property
    def bytes(self) -> int:
        """How many bytes they should have."""
        return self._folders.bytes

    def findings(self) -> Generator[Finding]:
        """Yield what is wrong, each put right first where that was asked for and can be.

        Raises:
            ConfigurationError: a folder of saved files is gone, which is not damage; or, where
                repairs were asked for, has none of its files left.

        """
        self._folders.must_be_there()
        if self._options.repair:
            self._folders.must_not_be_empty()
        yield from SavedFiles(
            self._database,
            self._layout,
            self._folders,
            self.tally,
            quick=self._options.quick,
            repair=self._options.repair,
            threads=self._options.threads,
            tick=self._tick,
        ).findings()
        yield from Orphans(
            self._database, self._layout, self.tally, repair=self._options.repair
        ).findings()
        yield from StaleParts(
            self._database, self._layout, self.tally, repair=self._options.repair
        ).findings()
