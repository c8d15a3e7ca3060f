"""Files by descriptor: how many, folders that are no links, locks, hashes."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import resource
import secrets
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILES_OF_A_TRANSFER: Final = 8  # part, folders, connection, and what libcurl wakes itself by
_OTHER_FILES: Final = 128

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


def create_locked(name: str, partial: int) -> int:
    """Create and lock a part."""
    while True:
        descriptor = os.open(
            name,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o666,  # the umask decides
            dir_fd=partial,
        )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # somebody tidied it away before the lock was there


def lock_existing(name: str, partial: int) -> int | None:
    """Open and lock a part; None where another process holds it, or it is gone or no file."""
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=partial)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(descriptor)
        named = os.stat(name, dir_fd=partial, follow_symlinks=False)
        if mine.st_ino == named.st_ino and stat.S_ISREG(mine.st_mode):
            return descriptor
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
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Hashed(size, digest.hexdigest())
