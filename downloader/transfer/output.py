"""The output folder: made, probed, and cleared of parts that nobody needs."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from downloader.durable import make_folders
from downloader.transfer.files import lock_existing, opened_folder
from downloader.transfer.layout import PARTIAL, Layout
from downloader.transfer.part import Part, object_name, parts_in
from downloader.transfer.room import Room
from downloader.transfer.trial import try_out
from downloader.transfer.unusable import DiskError, disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from downloader.rules.states import RunKey


class Output(Layout):
    """The output folder, made and kept in order; parts are opened here.

    `room` says how much may be written into it. Where it has no folder of parts `why_not` is asked
    whether it is to be used at all, and why not: it may be the mount point of a disk that is away.
    """

    def __init__(
        self,
        folder: Path,
        default_run_type: str,
        room: Room | None = None,
        why_not: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__(folder, default_run_type)
        self.room = room if room is not None else Room(0, [self.folder])
        self._why_not = why_not
        self._known: tuple[int, int] | None = None  # the folder of parts that was written to
        self._left_behind: set[RunKey] | None = None  # by whoever was here before

    def prepare(self) -> None:
        """Create the folders, and see that files can be saved in them, by saving a little one.

        Raises:
            DiskError: they cannot, there is no room, or the folder is not to be used.

        """
        with disk_errors(self.folder):
            self._must_be_ours()
            make_folders(self.folder)
            self._make_partial()
            self._try_out(self.folder)
            self._known = self._partial_now()
            self.room.check()
            self._left_behind = self.runs_with_parts()

    def _try_out(self, folder: Path) -> None:
        with opened_folder(self.folder / PARTIAL) as partial, self.opened(folder) as target:
            try_out(partial, target)

    def open_part(
        self, key: RunKey, validator: str | None, total_bytes: int | None, *, untried: bool = False
    ) -> Part:
        """Take over the part of the object that validator and length name, or begin one.

        For a run that is `untried` none is looked for, which takes a walk through the folder,
        unless it had one when `prepare` was called: a power cut takes the last commits, and so
        the memory of what was begun, but with it every process.

        Raises:
            DiskError: the folder cannot be written to, it is another than before and not to be
                used, or there is no room.

        """
        with disk_errors(self.folder):
            if self._known is None or self._partial_now() != self._known:
                self._look_anew()
            self.room.check()
            wanted = None if validator is None else object_name(validator, total_bytes)
            return Part(self, key, wanted, new=untried and self.has_no_part(key))

    def has_no_part(self, key: RunKey) -> bool:
        """Tell whether no part of a run that is untried need be looked for."""
        return self._left_behind is not None and key not in self._left_behind

    def _look_anew(self) -> None:
        """Go on in a folder of parts that is new, where the output folder is still ours.

        The output folder itself is not made: that is for `prepare`.
        """
        self._must_be_ours()
        self._make_partial()
        self._try_out(self.folder)
        self._known, self._left_behind = self._partial_now(), None

    def _must_be_ours(self) -> None:
        if self._partial_now() is None and (why := self._why_not()) is not None:
            raise DiskError("output_unusable", why)

    def _partial_now(self) -> tuple[int, int] | None:
        """Return what tells the folder of parts from any other; None where there is none."""
        try:
            found = os.lstat(self.folder / PARTIAL)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def _make_partial(self) -> None:
        with contextlib.suppress(FileExistsError):
            (self.folder / PARTIAL).mkdir(mode=0o700)

    def discard_parts(self, keys: set[RunKey], *, proofs: bool = True) -> int:
        """Remove the parts of these runs that no process holds; return how many.

        Without `proofs` a part that is a second name of a published file stays: by it the file
        can be adopted.

        What cannot be removed now is looked at again another time.
        """
        removed = 0
        with (
            contextlib.suppress(OSError),
            opened_folder(self.folder / PARTIAL) as partial,
        ):
            for name, key in list(parts_in(partial)):
                if key not in keys:
                    continue
                held = lock_existing(name, partial)
                if held is None:
                    continue
                try:
                    if held.may_go and (proofs or held.names == 1):
                        os.unlink(name, dir_fd=partial)
                        removed += 1
                finally:
                    os.close(held.descriptor)
        return removed

    def runs_with_parts(self) -> set[RunKey]:
        """Return the runs that have a part on the disk, as far as can be told."""
        with (
            contextlib.suppress(OSError),
            opened_folder(self.folder / PARTIAL) as partial,
        ):
            return {key for _, key in parts_in(partial)}
        return set()
