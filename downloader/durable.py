"""Disks: what is forced to them, what their file systems lack, and how much they can still take.

Not every file system has all that saving a file uses: a share (NFS, CIFS), a pool or a bucket
behind FUSE, the shared storage of Android, exFAT on a stick. What one lacks it says by one of the
error numbers in `NOT_HERE`, each by another; and the same number may come of a right that is
missing. So for forcing, locks and hard links there is a way without that is safe in either case:
where a right is missing, that way fails in its turn, and it is told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import secrets
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_ENOTSUPP: Final = 524
"""Linux's own number within the kernel for "not supported", which some file systems let out."""

NOT_HERE: Final = frozenset(
    {
        *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, _ENOTSUPP, errno.ENOTTY),
        *(errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR),
        *(errno.ENOLCK, errno.EXDEV, errno.EMLINK),
    }
)
"""What is answered where a file system has no locks or no hard links, or cannot force a file or a
folder to the disk. A disk that fails (EIO), is full, read-only or gone says none of them."""

IN_USE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY})
"""What is answered where a file that is open can be neither removed nor renamed."""

UNTOLD_BYTES: Final = sys.maxsize
"""What stands for the free bytes of a disk that does not tell them."""

_AT_FDCWD: Final = -2 if sys.platform == "darwin" else -100
_NOT_OVER: Final = 4 if sys.platform == "darwin" else 1  # RENAME_EXCL, RENAME_NOREPLACE


def force(descriptor: int) -> OSError | None:
    """Force what is open, a file's bytes or a folder's entries, to the disk; fsync(2).

    Returns the error where the file system has no such thing, for files or for folders: then
    there is nothing to wait for.

    Raises:
        OSError: the disk has failed, or is full.

    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
        return error
    return None


def sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk, where it can be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        force(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool) -> OSError | None:
    """Lock an open file against every other process, until it is closed; flock(2).

    Returns the error where the file system has no locks.

    Raises:
        BlockingIOError: another process has it, and is not to be waited for.
        OSError: as the operating system says it otherwise.

    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
        return error
    return None


def give_name(
    source: str, target: str, *, source_folder: int | None = None, target_folder: int | None = None
) -> OSError | None:
    """Give a file another name, by which nothing is overwritten.

    It keeps the one it has, where a file can have two. Where not, it is renamed, and what `link`
    said is returned: by renameat2(2) or its like; where the file system does not have that either,
    after a look for what is there, and what another program puts there in between is lost.
    The folders are descriptors; without one a name is a path.

    Raises:
        FileExistsError: there is something of that name.
        OSError: as the operating system says it otherwise.

    """
    try:
        os.link(
            source,
            target,
            src_dir_fd=source_folder,
            dst_dir_fd=target_folder,
            follow_symlinks=False,
        )
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
        _rename(source, target, source_folder, target_folder)
        return error
    return None


def _rename(source: str, target: str, source_folder: int | None, target_folder: int | None) -> None:
    """Rename a file, but not over another."""
    call = _exclusive_rename()
    if call is not None:
        folders = [_AT_FDCWD if one is None else one for one in (source_folder, target_folder)]
        number = call(folders[0], os.fsencode(source), folders[1], os.fsencode(target))
        if number == 0:
            return
        if number not in NOT_HERE:
            raise OSError(number, os.strerror(number), target)
    with contextlib.suppress(FileNotFoundError):
        os.stat(target, dir_fd=target_folder, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder)


@functools.cache
def _exclusive_rename() -> Callable[[int, bytes, int, bytes], int] | None:
    """Return the system's rename that overwrites nothing, None where it has none.

    What is returned takes folders and names as renameat2(2) does, and returns an error number.
    """
    import ctypes  # noqa: PLC0415 - few file systems need it

    library = ctypes.CDLL(None, use_errno=True)
    name = "renameatx_np" if sys.platform == "darwin" else "renameat2"
    function = getattr(library, name, None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p] * 2 + [ctypes.c_uint]

    def call(source_folder: int, source: bytes, target_folder: int, target: bytes) -> int:
        done = function(source_folder, source, target_folder, target, _NOT_OVER)
        return ctypes.get_errno() if done else 0

    return call


def is_folder(path: Path) -> bool:
    """Return whether a path leads to a folder; not where it cannot be looked at."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises PermissionError


def closed_on_the_way(path: Path) -> Path | None:
    """Return the first folder on the way to a path, itself included, that may not be searched."""
    way = (*reversed(path.absolute().parents), path)
    return next((one for one in way if is_folder(one) and not os.access(one, os.X_OK)), None)


def make_folders(path: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, with `mode` less the umask; force the new names to disk.

    Raises:
        OSError: as the operating system says it; there may be another kind of file in the way.

    """
    if is_folder(path):
        return
    make_folders(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not is_folder(path):
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
                with contextlib.suppress(PermissionError):  # a file system without modes
                    os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            force(file.fileno())
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    with contextlib.suppress(PermissionError):  # as above
        sync(path.parent)


def free_bytes(folder: Path) -> int:
    """Return how many bytes this user may still write to the disk of a folder, as df(1) has it.

    `UNTOLD_BYTES` where its file system does not tell: some answer with zeros, for the size too.
    """
    try:
        found = os.statvfs(folder)
    except OSError as error:
        if error.errno not in NOT_HERE - {errno.EACCES}:
            raise
        return UNTOLD_BYTES
    return found.f_bavail * (found.f_frsize or found.f_bsize) if found.f_blocks else UNTOLD_BYTES
