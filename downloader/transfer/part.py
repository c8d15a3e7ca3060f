"""Part files: bytes on their way, in `<output>/.partial/`, one file a claim.

A part belongs to the process that holds its `flock`. Its name carries a token of the claim
and a digest of the object it was begun from::

    <run type>-<run id>.<token>.<digest of ETag and length>.part

Nobody ever writes to a file that another process may still write to: one whose lock is
held, say by a frozen process, is left alone, and its holder can only ever publish that very
file. The digest keeps the start of one object from being joined to the end of another.

A published file is a second name (hard link) of its part; the part goes when `done` is
committed. So a part with two names says: this file is ours, verified and synced, and only
the commit was lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from downloader.rules.audio import AudioFormat
from downloader.rules.states import RunKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTIAL: Final = ".partial"
HEAD_BYTES: Final = 64 * 1024
"""How much of a file's start is kept in memory, for the judgement of its audio header."""

_NO_OBJECT: Final = "0"
_NAME: Final = re.compile(
    r"(?P<run_type>.+)-(?P<run_id>[0-9]{1,19})\.(?P<token>[0-9a-f]+)\.(?P<object>[0-9a-f]+)\.part"
)
_READ_BYTES: Final = 1024 * 1024


class DiskError(Exception):
    """The output folder cannot be written to: nobody's fault but the machine's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class NameTakenError(Exception):
    """Something that is not this run's file has its final name."""


class Hashed(NamedTuple):
    """What a whole file is."""

    bytes: int
    sha256: str


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says of a folder into a `DiskError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DiskError(
            "disk_full" if full else "output_unusable",
            f"The disk of {folder} is full: make room."
            if full
            else f"The output folder {folder} cannot be written to: {error.strerror}.",
        ) from error


class Output:
    """The folder that saved files go to."""

    def __init__(self, folder: Path, default_run_type: str) -> None:
        self.folder = folder.absolute()
        self._default_run_type = default_run_type

    def folder_of(self, run_type: str) -> Path:
        """Return where the files of a run type are: other types have a folder of their own."""
        return self.folder if run_type == self._default_run_type else self.folder / run_type

    def final(self, key: RunKey, audio_format: str) -> Path:
        """Return the path of a run's saved file."""
        return self.folder_of(key.run_type) / f"{key.run_id}.{audio_format}"

    def prepare(self) -> None:
        """Create the folders, and see that they can be written to.

        Raises:
            DiskError: they cannot.

        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                (self.folder / PARTIAL).mkdir(mode=0o700)
            with _directory(self.folder / PARTIAL) as partial:
                probe = f".probe-{secrets.token_hex(4)}"
                os.close(
                    os.open(probe, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=partial)
                )
                os.unlink(probe, dir_fd=partial)

    def open_part(self, key: RunKey, etag: str | None, total_bytes: int | None) -> Part:
        """Take over the part of the object that `etag` and `total_bytes` name, or begin one.

        Raises:
            DiskError: the folder cannot be written to.

        """
        with disk_errors(self.folder):
            return Part(self, key, _digest(etag, total_bytes))

    def discard_parts(self, keys: set[RunKey]) -> int:
        """Remove the parts of these runs that no process holds; return how many."""
        removed = 0
        with contextlib.suppress(FileNotFoundError), _directory(self.folder / PARTIAL) as partial:
            for name, key in list(_parts(partial)):
                if key not in keys:
                    continue
                descriptor = _lock(name, partial)
                if descriptor is not None:
                    os.unlink(name, dir_fd=partial)
                    os.close(descriptor)
                    removed += 1
        return removed

    def runs_with_parts(self) -> set[RunKey]:
        """Return the runs that have a part on the disk."""
        with contextlib.suppress(FileNotFoundError), _directory(self.folder / PARTIAL) as partial:
            return {key for _, key in _parts(partial)}
        return set()


class Part:
    """One part file, held by this process until `close`.

    `size` is what it holds, `head` its first bytes. Every method raises OSError as the
    operating system does; callers wrap them in `disk_errors`.
    """

    def __init__(self, output: Output, key: RunKey, object_digest: str) -> None:
        self._output = output
        self._key = key
        self._token = secrets.token_hex(6)
        self._object = _NO_OBJECT
        self._hash = hashlib.sha256()
        self.size = 0
        self.head = b""
        with _directory(output.folder / PARTIAL) as partial:
            self._descriptor, found = self._take_over(partial, object_digest)
            if found is None:
                self._descriptor = os.open(
                    self.name,
                    os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW,
                    0o666,  # the umask decides
                    dir_fd=partial,
                )
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.linked = os.fstat(self._descriptor).st_nlink > 1
        if found is not None and not self.linked:
            self._read_what_is_there()

    @property
    def name(self) -> str:
        """The file's name in the folder of parts."""
        return f"{self._key.run_type}-{self._key.run_id}.{self._token}.{self._object}.part"

    @property
    def path(self) -> Path:
        """The file's path."""
        return self._output.folder / PARTIAL / self.name

    def _take_over(self, partial: int, wanted: str) -> tuple[int, str | None]:
        """Take a part that nobody holds: one already published, else one of the wanted object."""
        taken: tuple[int, str | None] = (-1, None)
        for name, key in list(_parts(partial)):
            if key != self._key:
                continue
            descriptor = _lock(name, partial)
            if descriptor is None:
                continue  # somebody may still be writing to it
            digest = name.split(".")[-2]
            usable = os.fstat(descriptor).st_nlink > 1 or (digest == wanted != _NO_OBJECT)
            if taken[1] is not None or not usable:
                os.unlink(name, dir_fd=partial)
                os.close(descriptor)
                continue
            self._object = digest
            os.rename(name, self.name, src_dir_fd=partial, dst_dir_fd=partial)
            taken = (descriptor, name)
        return taken

    def _read_what_is_there(self) -> None:
        """Hash the bytes an earlier transfer has left, and stand behind them."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while chunk := os.read(self._descriptor, _READ_BYTES):
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)
        if len(self.head) < HEAD_BYTES:
            self.head += chunk[: HEAD_BYTES - len(self.head)]

    def restart(self) -> None:
        """Begin from zero, for an object not named yet."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.size = 0
        self.head = b""
        self._rename(_NO_OBJECT)

    def belongs_to(self, etag: str | None, total_bytes: int | None) -> None:
        """Name the object that the bytes are of, so that they can be resumed."""
        self._rename(_digest(etag, total_bytes))

    def _rename(self, object_digest: str) -> None:
        if object_digest == self._object:
            return
        with _directory(self._output.folder / PARTIAL) as partial:
            before, self._object = self.name, object_digest
            os.rename(before, self.name, src_dir_fd=partial, dst_dir_fd=partial)

    def write(self, chunk: bytes) -> None:
        """Append bytes; a full disk shows as a short write first, then as ENOSPC."""
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._take(chunk)

    def hashed(self) -> Hashed:
        """Return the size and SHA-256 of what was written."""
        return Hashed(self.size, self._hash.hexdigest())

    def sync(self) -> None:
        """Force the bytes to the disk."""
        os.fsync(self._descriptor)

    def publish(self, final: Path) -> bool:
        """Give the file its final name, and force that name to the disk.

        Returns False where an equal file had the name already: it is as good as ours.

        Raises:
            NameTakenError: something else has the name; it is left as it is.

        """
        final.parent.mkdir(parents=True, exist_ok=True)
        with (
            _directory(self._output.folder / PARTIAL) as partial,
            _directory(final.parent) as folder,
        ):
            fresh = True
            try:
                # A link, not a rename: it fails where a rename would overwrite.
                os.link(
                    self.name,
                    final.name,
                    src_dir_fd=partial,
                    dst_dir_fd=folder,
                    follow_symlinks=False,
                )
            except FileExistsError:
                if _hash_file(final.name, folder) != self.hashed():
                    raise NameTakenError(str(final)) from None
                fresh = False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                self._publish_without_links(final, partial, folder)
            os.fsync(folder)
        return fresh

    def _publish_without_links(self, final: Path, partial: int, folder: int) -> None:
        """Rename, on the file systems that have no hard links (FAT and some network ones)."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(final.name, dir_fd=folder, follow_symlinks=False)
            raise NameTakenError(str(final))
        os.rename(self.name, final.name, src_dir_fd=partial, dst_dir_fd=folder)

    def published(self) -> tuple[Path, AudioFormat, Hashed] | None:
        """Return the final file that an earlier process made of this part, whole, or None."""
        here = os.fstat(self._descriptor)
        for audio_format in AudioFormat:
            final = self._output.final(self._key, audio_format)
            with contextlib.suppress(OSError), _directory(final.parent) as folder:
                there = os.stat(final.name, dir_fd=folder, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    found = _hash_file(final.name, folder)
                    if found is not None:
                        os.fsync(self._descriptor)
                        os.fsync(folder)
                        return final, audio_format, found
        return None

    def abandon(self) -> None:
        """Leave a file that has a second name elsewhere to whoever made that, and begin anew."""
        self.discard()
        with _directory(self._output.folder / PARTIAL) as partial:
            self._object = _NO_OBJECT
            self._descriptor = os.open(
                self.name,
                os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o666,
                dir_fd=partial,
            )
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.linked = False

    def discard(self) -> None:
        """Remove this name of the file; a published file keeps its other one."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let go of the file; what it holds stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _digest(etag: str | None, total_bytes: int | None) -> str:
    """Return what names an object: nothing can be resumed without a strong ETag."""
    if etag is None:
        return _NO_OBJECT
    return hashlib.sha256(f"{etag}\n{total_bytes}".encode()).hexdigest()[:16]


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    """Open a folder, not a link to one, so that what follows happens in it and nowhere else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _parts(partial: int) -> Iterator[tuple[str, RunKey]]:
    """Yield the parts in the folder with the run each belongs to."""
    for name in os.listdir(partial):
        match = _NAME.fullmatch(name)
        if match:
            yield name, RunKey(match["run_type"], int(match["run_id"]))


def _lock(name: str, partial: int) -> int | None:
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


def _hash_file(name: str, folder: int) -> Hashed | None:
    """Hash a regular file in chunks; None for anything else."""
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder
        )
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        digest, size = hashlib.sha256(), 0
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return Hashed(size, digest.hexdigest())
