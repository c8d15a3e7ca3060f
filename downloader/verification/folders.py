"""The folders of saved files: an unmounted disk is not damage, and nothing is put back for it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from downloader.errors import ConfigurationError
from downloader.store import verification as store
from downloader.verification.looking import GONE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from downloader.store.database import Database
    from downloader.store.verification import SavedFolder

_SHOWN: Final = 3


class Folders:
    """The folders that saved files are recorded in, as they were when the verification began."""

    def __init__(self, database: Database, output: Path, *, all_missing: bool) -> None:
        self._database = database
        self._output = output
        self._all_missing = all_missing
        self._folders = store.saved_folders(database)
        self._seen = {folder.path: _which(folder.path) for folder in self._folders}

    @property
    def files(self) -> int:
        """How many files are recorded."""
        return sum(folder.files for folder in self._folders)

    @property
    def bytes(self) -> int:
        """How many bytes they have."""
        return sum(folder.bytes for folder in self._folders)

    def must_be_there(self) -> None:
        """Refuse to begin where a folder of saved files is gone, or the output folder is wrong.

        Raises:
            ConfigurationError: it is so; the message says what a person can do.

        """
        if self._all_missing:
            return
        gone = [folder for folder in self._folders if self._seen[folder.path] is None]
        if gone:
            raise ConfigurationError(
                f"{_named(gone)} not there. If {'it is' if len(gone) == 1 else 'they are'} on a "
                "disk that is not mounted, mount it; what has moved, move back, or put a symbolic "
                "link in its place. Nothing was changed. If these files are gone for good, say so "
                "with --all-missing."
            )
        if self._folders and _which(str(self._output)) is None:
            raise ConfigurationError(
                f"The output folder {self._output} is not there. {_named(self._folders)} where "
                "saved files are recorded: name that folder with --output. Nothing was changed."
            )

    def must_not_be_empty(self) -> None:
        """Refuse to repair where a folder has none of its files left: a mount point looks so.

        Raises:
            ConfigurationError: it is so.

        """
        if self._all_missing:
            return
        empty = [folder for folder in self._folders if not self._has_any(folder)]
        if empty:
            raise ConfigurationError(
                f"{_named(empty)} there, but without a single one of these files. If a disk is not "
                "mounted there, mount it. Nothing was changed. If these files are gone for good, "
                "`downloader verify --repair --all-missing` has them fetched again."
            )

    def _has_any(self, folder: SavedFolder) -> bool:
        for run in store.saved_runs(self._database, folder):
            try:
                os.lstat(run.location)
            except GONE:
                continue
            except (OSError, ValueError):
                return True  # something is there that cannot be looked at
            return True
        return False

    def must_be_the_same(self, locations: Iterable[str]) -> None:
        """Stop where the folder of a missing file is another than at the beginning.

        Raises:
            ConfigurationError: it is so: a disk has been unmounted, or mounted.

        """
        for path in {os.path.dirname(location) for location in locations}:  # noqa: PTH120 - a text
            now = _which(path)
            known = self._seen.setdefault(path, now) == now
            if not known or (now is None and not self._all_missing):
                raise ConfigurationError(
                    f"The folder {path} is another than when the verification began: was its disk "
                    "unmounted? The files that went with it are not counted as missing. "
                    "Verify again when it is back."
                )


def _which(path: str) -> tuple[int, int] | None:
    """Return what tells one folder from another, None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - may be called a million times
    except GONE:
        return None
    except (OSError, ValueError):
        return (0, 0)  # there, but not to be looked at: its files will say so
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _named(folders: list[SavedFolder]) -> str:
    """Begin a sentence on folders with how many files are recorded in each."""
    names = [
        f"{folder.path} ({folder.files} saved {'file' if folder.files == 1 else 'files'})"
        for folder in folders[:_SHOWN]
    ]
    if len(folders) > _SHOWN:
        names.append(f"{len(folders) - _SHOWN} more")
    if len(folders) == 1:
        return f"The folder {names[0]} is"
    return f"The folders {', '.join(names[:-1])} and {names[-1]} are"
