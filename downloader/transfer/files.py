"""Files by descriptor: how many, folders that are no links, locks, hashes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import resource
import secrets
import stat
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from downloader.durable import force, lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILES_OF_A_TRANSFER: Final = 8  # part, folders, connection, and what libcurl wakes itself by
_OTHER_FILES: Final = 128

UNLOCKED: Final = ".u"
"""In the name of a part: it was begun where there are no locks."""

_QUIET_SECONDS: Final = 3600.0
"""After how long without a byte nobody is at a part that cannot be locked; stalls end before."""

READ_BYTES: Final = 1024 * 1024
"""How much of a file is read at a time, to hash it."""


class Hashed(NamedTuple):
    """What a whole file is."""

    bytes: int
    sha256: str


def files_needed(connections: int) -> int:
    """Return how many open files so many transfers at a time may need, with all the rest."""
    return connections * _FILES_OF_A_TRANSFER + _OTHER_FILES


def allow_files(wanted: int) -> None:
    """Have this process be allowed so many open files, or as many as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def open_folder(path: Path, *, may_be_link: bool = False) -> int:
    """Open a folder, not a link to one, so that what follows happens in it and nowhere else."""
    follow = 0 if may_be_link else os.O_NOFOLLOW
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | follow | os.O_CLOEXEC)


@contextlib.contextmanager
def opened_folder(path: Path, *, may_be_link: bool = False) -> Iterator[int]:
    """Open a folder as `open_folder` does, for a while."""
    descriptor = open_folder(path, may_be_link=may_be_link)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@functools.cache
def boot_id() -> str:
    """Return what this boot of the machine is called; where that cannot be told, this process."""
    try:
        # random(4): a number made anew at each boot.
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
            return file.read().strip()
    except (OSError, ValueError):
        return secrets.token_hex(16)


class Held(NamedTuple):
    """A part that is open, and locked, unless there are no locks here.

    Without a lock another process may be writing to it. Of one that was there: how many names the
    file has, and when it was written to (seconds since 1970).
    """

    descriptor: int
    locked: bool
    names: int = 1
    written_at: float = 0.0

    @property
    def may_go(self) -> bool:
        """Whether it can be removed: nobody has it, as far as can be told."""
        return self.locked or time.time() - self.written_at > _QUIET_SECONDS


def create_locked(name: str, unlocked: str, partial: int) -> Held:
    """Create and lock a part; where there are no locks, have it named `unlocked`.

    It has that name before there is a byte in it: a process that can lock it, on this machine or
    another, must not take that for a proof that nobody writes to it.
    """
    while True:
        descriptor = os.open(
            name,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o666,  # the umask decides
            dir_fd=partial,
        )
        try:
            if lock(descriptor, wait=True) is not None:
                os.rename(name, unlocked, src_dir_fd=partial, dst_dir_fd=partial)
                return Held(descriptor, locked=False)
            if os.fstat(descriptor).st_nlink:
                return Held(descriptor, locked=True)
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # somebody tidied it away before the lock was there


def lock_existing(name: str, partial: int) -> Held | None:
    """Open a part, and lock it; None where another process holds it, or it is gone or no file.

    Of one that was begun without a lock, as its name tells, a lock would say nothing.
    """
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=partial)
    except OSError:
        return None
    try:
        locked = UNLOCKED not in name and lock(descriptor, wait=False) is None
        mine = os.fstat(descriptor)
        named = os.stat(name, dir_fd=partial, follow_symlinks=False)
        if mine.st_ino == named.st_ino and stat.S_ISREG(mine.st_mode):
            return Held(descriptor, locked, mine.st_nlink, mine.st_mtime)
    except OSError:
        pass
    os.close(descriptor)
    return None


def hash_file(name: str, folder: int) -> Hashed | None:
    """Hash a regular file in chunks, and force it to the disk; None for anything else."""
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder
        )
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        digest, size = hashlib.sha256(), 0
        while chunk := os.read(descriptor, READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
        force(descriptor)
    finally:
        os.close(descriptor)
    return Hashed(size, digest.hexdigest())
