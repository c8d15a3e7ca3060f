"""A whole folder at one moment: what is under each name, so that any change to it shows."""

from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Entry(NamedTuple):
    """What is under a name: its kind and permissions, which file it is, and what is in it."""

    mode: int
    inode: int
    names: int
    content: str


def snapshot(folder: Path) -> dict[str, Entry]:
    """Return everything under a folder, by its path in it; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        here = path.lstat()
        content = ""
        if stat.S_ISLNK(here.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(here.st_mode):
            content = _digest(path)
        names = 0 if stat.S_ISDIR(here.st_mode) else here.st_nlink  # of a folder: its subfolders
        found[str(path.relative_to(folder))] = Entry(here.st_mode, here.st_ino, names, content)
    return found


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except PermissionError:  # a test has made it so, and is not run by root
        return "unreadable"
