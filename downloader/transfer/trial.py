"""What saving a file does to a folder, done with a little one: so nothing is fetched in vain."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from typing import Final, NamedTuple

from downloader.durable import force, give_name, lock

LEFT_BEHIND: Final = re.compile(r"\.probe-[0-9a-f]{8}(\.named)?", re.ASCII)
"""The names of what a trial leaves that is killed."""

_CONTENT: Final = b"Made by `downloader` to see whether files can be saved here.\n"


class Lacking(NamedTuple):
    """What saving a file has to do without in a folder: what the file system said, each."""

    locks: OSError | None
    links: OSError | None
    forcing: OSError | None  # of files, or of folders


def try_out(partial: int, folder: int) -> Lacking:
    """Make a file in a folder of parts, lock, write, force, and name it in another; remove it.

    Both are descriptors, and may be of the same folder.

    Raises:
        OSError: files cannot be saved there, as the operating system says it.

    """
    name = f".probe-{secrets.token_hex(4)}"
    named = f"{name}.named"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(name, flags, 0o600, dir_fd=partial)
    try:
        try:
            locks = lock(descriptor, wait=False)
            os.write(descriptor, _CONTENT)
            forcing = force(descriptor)
        finally:
            os.close(descriptor)  # some cannot rename a file that is open
        try:
            links = give_name(name, named, source_folder=partial, target_folder=folder)
        except OSError as error:
            if error.errno != errno.EXDEV:  # then a copy is named
                raise
            links = error
            os.close(os.open(named, flags, 0o600, dir_fd=folder))
        return Lacking(locks, links, force(folder) or forcing)
    finally:
        for one, where in ((name, partial), (named, folder)):
            with contextlib.suppress(OSError):
                os.unlink(one, dir_fd=where)


def is_of_a_trial(name: str, folder: int) -> bool:
    """Return whether a file, whatever it is called, is what a trial has made, or begun.

    Raises:
        OSError: it cannot be read, as the operating system says it.

    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_file and _CONTENT.startswith(os.read(descriptor, len(_CONTENT) + 1))
    finally:
        os.close(descriptor)
