"""One saved file, looked at: is it there, is it a file, has it the bytes that were recorded."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from downloader.transfer.files import READ_BYTES
from downloader.transfer.unusable import advice
from downloader.verification.findings import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from downloader.store.verification import SavedRun

GONE: Final = (FileNotFoundError, NotADirectoryError)
"""What the operating system says of a path at which there is nothing."""

Identity = tuple[int, int, int, int, int]

_OTHER_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a saved file; `identity` is of what was looked at, where there is any."""

    kind: Kind
    detail: str
    identity: Identity | None = None


class Stopped(Exception):  # noqa: N818 - not an error: nobody waits for the answer any more
    """The verification is over, or was ended."""


def look(
    run: SavedRun, *, quick: bool, stopped: Callable[[], bool], read: Callable[[int], None]
) -> Trouble | None:
    """Compare a saved file with its row; None where all is well.

    `quick` looks at existence and size alone. `read` is told of the bytes as they are read.

    Raises:
        Stopped: `stopped` said so.

    """
    try:
        return _look(run, quick=quick, stopped=stopped, read=read)
    except GONE:
        return Trouble(Kind.MISSING, f"{run.location} is not there")
    except OSError as error:
        what_to_do = advice(Path(run.location), error.errno)
        said = f"{run.location} cannot be read: {error.strerror}.{what_to_do}"
        return Trouble(Kind.UNREADABLE, said.removesuffix("."))
    except ValueError:  # a character that this locale's file names cannot have
        return Trouble(Kind.UNREADABLE, f"{run.location} cannot be read in this locale")


def _look(
    run: SavedRun, *, quick: bool, stopped: Callable[[], bool], read: Callable[[int], None]
) -> Trouble | None:
    found = os.lstat(run.location)
    trouble = _judge(run, found)
    if trouble is not None or quick:
        return trouble
    # Without O_NONBLOCK a pipe that has just taken the file's place would hold us up for ever.
    descriptor = os.open(run.location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        trouble = _judge(run, found)
        if trouble is not None:
            return trouble
        digest = hashlib.sha256()
        while chunk := os.read(descriptor, READ_BYTES):
            if stopped():
                raise Stopped
            digest.update(chunk)
            read(len(chunk))
    finally:
        os.close(descriptor)
    if digest.hexdigest() == run.sha256:
        return None
    return Trouble(
        Kind.DAMAGED,
        f"{run.bytes} bytes as recorded, but not the same ones "
        f"(SHA-256 {digest.hexdigest()[:12]}… instead of {run.sha256[:12]}…)",
        identity(found),
    )


def _judge(run: SavedRun, found: os.stat_result) -> Trouble | None:
    """Judge what a file is without reading it."""
    if not stat.S_ISREG(found.st_mode):
        kind = kind_of(found)
        return Trouble(Kind.DAMAGED, f"{run.location} is {kind}, not a file", identity(found))
    if found.st_size != run.bytes:
        return Trouble(
            Kind.DAMAGED, f"{found.st_size} bytes instead of {run.bytes}", identity(found)
        )
    return None


def kind_of(found: os.stat_result) -> str:
    """Say what it is that is not a file."""
    return _OTHER_KINDS.get(stat.S_IFMT(found.st_mode), "a device")


def identity(found: os.stat_result) -> Identity:
    """Return what tells a file, as it is now, from any other and from itself once changed."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
