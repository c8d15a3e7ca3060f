"""Disks: what is forced to them, and how much they can still take."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
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


@contextlib.contextmanager
def replaced(path: Path, *, mode: int | None = None) -> Iterator[TextIO]:
    """Lend a new file of text that takes the place of `path` at the end, whole and on the disk.

    Whoever reads `path` meanwhile has the old one; where an error comes out it stays. The file is
    readable to those that `mode` says, else the umask.

    Raises:
        OSError: as the operating system says it.

    """
    new = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        with new.open("x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    with contextlib.suppress(PermissionError):  # as above
        sync(path.parent)


def free_bytes(folder: Path) -> int:
    """Return how many bytes this user may still write to the disk of a folder, as df(1) has it."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
