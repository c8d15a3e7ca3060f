"""How much may still be written: the last bytes of a disk are not for audio files."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from downloader.durable import free_bytes
from downloader.transfer.unusable import DiskError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_GRANT_BYTES: Final = 16 * 1024 * 1024
"""After how many bytes the disk is looked at again: others write to it too."""


_FRESH_SECONDS: Final = 0.05
"""How long a look at the disks is good for, when nothing is written."""


class Room:
    """The disks that have to keep `min_free_bytes` free; one for all transfers of a process.

    The database is to stay writable whatever happens to the audio, so its disk is watched too,
    be it the same or another.
    """

    def __init__(self, min_free_bytes: int, folders: Sequence[Path]) -> None:
        self._min_free_bytes = min_free_bytes
        self._folders = folders
        self._lock = threading.Lock()
        self._granted = 0
        self._looked_at = float("-inf")

    def keep_free(self, min_free_bytes: int) -> None:
        """Have so many bytes stay free from now on."""
        with self._lock:
            self._min_free_bytes, self._granted = min_free_bytes, 0

    def take(self, size: int) -> None:
        """Note that so many bytes are about to be written.

        Raises:
            DiskError: `disk_full`; they would take a disk's last free bytes.
            OSError: as the operating system says it, where it cannot tell.

        """
        with self._lock:
            if size > self._granted:
                self._granted = 0
                self._granted = min(_GRANT_BYTES + size, self._left())
            if size > self._granted:
                raise self._full()
            self._granted -= size

    def check(self) -> None:
        """Look at the disks anew, unless somebody just has.

        Raises:
            DiskError: `disk_full`; one has not the bytes that have to be left free.
            OSError: as the operating system says it, where it cannot tell.

        """
        with self._lock:
            if self._granted and time.monotonic() - self._looked_at < _FRESH_SECONDS:
                return
            self._granted = 0
            if self._left() < 0:
                raise self._full()

    def _left(self) -> int:
        self._looked_at = time.monotonic()
        return min(free_bytes(folder) for folder in self._folders) - self._min_free_bytes

    def _full(self) -> DiskError:
        folder = min(self._folders, key=free_bytes)
        kept = ""
        if self._min_free_bytes:
            kept = f", and {self._min_free_bytes // 1_000_000} MB are to stay free (--min-free)"
        return DiskError(
            "disk_full",
            f"The disk of {folder} has {free_bytes(folder) // 1_000_000} MB left{kept}: make room.",
        )
