"""What a disk says that takes no files, in words for a person: what it is, and what can be done."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shlex
from typing import TYPE_CHECKING, Final

from downloader.durable import closed_on_the_way, is_folder

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

TOO_MANY_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""What the operating system says where no more files can be opened."""

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What is said of a disk that has no room."""

_MISTAKES: Final = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
)
"""What is said of a path that can be no folder, however long it is waited for."""


_ROOMY_BYTES: Final = 1_000_000
"""A disk that has no room for a little file though it has these has none for any file."""

_FEW_FILES: Final = 64


class DiskError(Exception):
    """The output folder cannot be written to: nobody's fault but the machine's.

    `is_mistake` says that waiting is no use: another folder has to be named.
    """

    def __init__(self, reason: str, message: str, *, is_mistake: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.is_mistake = is_mistake


class disk_errors:  # noqa: N801 - used as a function, and several times a file: no generator
    """Turn what the operating system says of a folder into a `DiskError`, in this context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _kind: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Raise `DiskError` in place of OSError."""
        if isinstance(error, OSError):
            raise _disk_error(self._folder, error) from error


def _disk_error(folder: Path, error: OSError) -> DiskError:
    if error.errno in FULL:
        return DiskError("disk_full", _why_full(folder, error.errno))
    if error.errno in TOO_MANY_FILES:
        return too_many_files()
    why = f"cannot be written to: {error.strerror}."
    if isinstance(error, FileExistsError | NotADirectoryError):
        in_the_way = next((one for one in (folder, *folder.parents) if _is_other(one)), None)
        if in_the_way is not None:
            why = f"cannot be made: {in_the_way} is there, and is no folder."
    said = f"The output folder {folder} {why}{advice(folder, error.errno)}"
    return DiskError("output_unusable", said, is_mistake=error.errno in _MISTAKES)


def advice(folder: Path, number: int | None) -> str:
    """Say what can be done about an error of a folder, as a sentence more; "" where nothing is."""
    if number == errno.EROFS:
        return " Mount its disk for writing; a systemd unit has to name it in ReadWritePaths=."
    if number not in (errno.EACCES, errno.EPERM):
        return ""
    closed = closed_on_the_way(folder)
    if closed is None:
        return _whose(folder)
    here = f" {closed} may not be searched: chmod u+x {shlex.quote(str(closed))}."
    return here + _whose(closed)


def _whose(folder: Path) -> str:
    """Say whose the folder is, or the one that it would be made in, and who is asking."""
    there = next((one for one in (folder, *folder.parents) if os.path.lexists(one)), folder)
    with contextlib.suppress(OSError):
        owner, user = there.stat().st_uid, os.geteuid()
        if owner != user:
            return f" {there} belongs to {_name(owner)}, and this is {_name(user)}."
    return ""


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"the user {user}"


def _is_other(path: Path) -> bool:
    """Return whether something is there that is not a folder."""
    return os.path.lexists(path) and not is_folder(path)


def too_many_files() -> DiskError:
    """Return what ends a transfer that can open neither file nor connection."""
    return DiskError(
        "output_unusable",
        "There are too many open files: allow more (ulimit -n), or lower --concurrency.",
    )


def _why_full(folder: Path, number: int) -> str:
    """Say what there is none left of: a disk with free bytes may have no room for a file more."""
    if number == errno.EDQUOT:
        return f"The quota of the disk of {folder} is used up: make room."
    with contextlib.suppress(OSError):
        found = os.statvfs(folder)
        roomy = found.f_bavail * found.f_frsize >= _ROOMY_BYTES
        if roomy and found.f_files and found.f_favail < _FEW_FILES:  # one may be free by now
            return (
                f"The disk of {folder} has room for bytes but for no more files (inodes): "
                "remove some files."
            )
    return f"The disk of {folder} is full: make room."
