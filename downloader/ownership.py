"""Whether an output folder is the one that files were saved in.

The mount point of a disk that is away has the same path: whoever goes by that alone saves on the
wrong disk, where the right one, once it is back, hides what was saved.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from downloader.durable import is_folder
from downloader.errors import BusyDatabaseError
from downloader.store import inspection
from downloader.transfer.layout import PARTIAL

if TYPE_CHECKING:
    from pathlib import Path

    from downloader.store.database import Database

_LOOKED_FOR: Final = 10_000
"""How many of the files saved last may all be gone before the folder counts as another."""


class NotOurs(NamedTuple):
    """Why nothing may be saved in a folder, and what a person can do."""

    finding: str
    advice: str

    @property
    def message(self) -> str:
        """Both, in sentences."""
        return " ".join(f"{one[0].upper()}{one[1:].rstrip('.')}." for one in self)


def why_not_ours(database: Database, folder: Path) -> NotOurs | None:
    """Say why nothing may be saved in an output folder that has no folder of parts.

    None: no file is recorded in it, or one of the `_LOOKED_FOR` saved last is there.

    Raises:
        StoreError: the database cannot be used.

    """
    try:
        locations = inspection.locations_in(database, str(folder), _LOOKED_FOR)
    except BusyDatabaseError as error:
        return NotOurs(f"it is not known whether files are recorded in {folder}", str(error))
    if not locations or any(map(_is_there, locations)):
        return None
    at_least = "at least " if len(locations) == _LOOKED_FOR else ""
    files = f"{len(locations):,} {'file is' if len(locations) == 1 else 'files are'}"
    here = "is there without them" if is_folder(folder) else "is not there"
    return NotOurs(
        f"{at_least}{files} recorded in the output folder {folder}, which {here}",
        "mount its disk, if it is not mounted; where they are moved away or gone for good, "
        f"saving goes on once there is a folder {folder / PARTIAL}",
    )


def _is_there(location: str) -> bool:
    try:
        return os.path.lexists(location)
    except ValueError:  # a character that this locale's file names cannot have
        return False
