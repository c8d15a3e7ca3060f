"""Moving what is damaged out of the way: it may be somebody's edit, so it is kept."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from downloader.durable import force
from downloader.transfer.files import opened_folder
from downloader.verification.looking import identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.transfer.layout import Layout
    from downloader.verification.looking import Identity


def set_aside(location: str, expected: Identity | None, layout: Layout) -> Path | None:
    """Rename a file to `<its name>.damaged-<n>`, and force that to the disk; return its new path.

    Nothing is overwritten, no link is followed. None where the file is not the `expected` one.

    Raises:
        OSError: as the operating system says it.

    """
    path = Path(location)
    with _folder_of(path, layout) as folder:
        try:
            found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if identity(found) != expected:
            return None
        is_folder = stat.S_ISDIR(found.st_mode)
        name = _reserve(path.name, folder, is_folder=is_folder)
        try:
            os.rename(path.name, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            with contextlib.suppress(OSError):
                (os.rmdir if is_folder else os.unlink)(name, dir_fd=folder)
            raise
        # Before the commit: a run that is fetched anew must not find the old file there again.
        force(folder)
    return path.with_name(name)


@contextlib.contextmanager
def _folder_of(path: Path, layout: Layout) -> Iterator[int]:
    """Open a file's folder; where that is the output folder itself, it may be a link to one."""
    if path.parent.resolve() == layout.folder.resolve():
        with layout.opened(layout.folder) as folder:
            yield folder
    elif os.path.islink(path.parent):  # noqa: PTH114 - as a text
        raise OSError(errno.ELOOP, "its folder is a symbolic link, name it with --output")
    else:
        with opened_folder(path.parent) as folder:
            yield folder


def _reserve(name: str, folder: int, *, is_folder: bool) -> str:
    """Make an empty file, or folder, under a free name: a rename takes the place of that alone."""
    for number in itertools.count(1):
        free = f"{name}.damaged-{number}"
        with contextlib.suppress(FileExistsError):
            if is_folder:
                os.mkdir(free, dir_fd=folder)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(free, flags, 0o600, dir_fd=folder))
            return free
    raise AssertionError  # there is no end of numbers
