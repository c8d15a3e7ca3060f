"""Disks: what is forced to them, and how much they can still take."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(path: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, with `mode` less the umask; force the new names to disk.

    Raises:
        OSError: as the operating system says it; there may be another kind of file in the way.

    """
    if path.is_dir():
        return
    make_folders(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    with contextlib.suppress(PermissionError):  # one that may be written to but not read
        sync(path.parent)


def free_bytes(folder: Path) -> int:
    """Return how many bytes this user may still write to the disk of a folder, as df(1) has it."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
