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
import hashlib
import os
import re
import secrets
from typing import TYPE_CHECKING, Final

from downloader.durable import sync
from downloader.failpoints import At, reach
from downloader.rules.audio import AudioFormat
from downloader.rules.states import RunKey
from downloader.transfer.files import (
    READ_BYTES,
    Hashed,
    create_locked,
    hash_file,
    lock_existing,
    opened_folder,
)
from downloader.transfer.layout import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from downloader.transfer.layout import Layout

HEAD_BYTES: Final = 64 * 1024
"""How much of a file's start is kept in memory, for the judgement of its audio header."""

_NO_OBJECT: Final = "0"
_NAME: Final = re.compile(
    r"(?P<run_type>.+)-(?P<run_id>[0-9]{1,19})\.(?P<token>[0-9a-f]+)\.(?P<object>[0-9a-f]+)\.part"
)


class NameTakenError(Exception):
    """Something that is not this run's file has its final name."""


class Part:
    """One part file, held by this process until `close`.

    `size` is what it holds, `head` its first bytes. Every method raises OSError as the
    operating system does; callers wrap them in `disk_errors`.
    """

    def __init__(self, layout: Layout, key: RunKey, object_digest: str) -> None:
        self._layout = layout
        self._key = key
        self._token = secrets.token_hex(6)
        self._object = _NO_OBJECT
        self._hash = hashlib.sha256()
        self.size = 0
        self.head = b""
        with opened_folder(layout.folder / PARTIAL) as partial:
            self._descriptor, found = self._take_over(partial, object_digest)
            if found is None:
                self._descriptor = create_locked(self.name, partial)
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
        return self._layout.folder / PARTIAL / self.name

    def _take_over(self, partial: int, wanted: str) -> tuple[int, str | None]:
        """Take a part that nobody holds: one already published, else one of the wanted object."""
        taken: tuple[int, str | None] = (-1, None)
        names = [name for name, key in parts_in(partial) if key == self._key]
        locks = [(lock_existing(name, partial), name) for name in names]
        # Without a lock: somebody may still be writing to it.
        free = [(descriptor, name) for descriptor, name in locks if descriptor is not None]
        free.sort(key=lambda one: os.fstat(one[0]).st_nlink, reverse=True)
        for descriptor, name in free:
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
        while chunk := os.read(self._descriptor, READ_BYTES):
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
        self._rename(object_digest(etag, total_bytes))

    def _rename(self, object_digest: str) -> None:
        if object_digest == self._object:
            return
        with opened_folder(self._layout.folder / PARTIAL) as partial:
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
        with (
            opened_folder(self._layout.folder / PARTIAL) as partial,
            self._folder_for(final) as folder,
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
                fresh = False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                fresh = self._publish_without_links(final, partial, folder)
            if not fresh and hash_file(final.name, folder) != self.hashed():
                raise NameTakenError(str(final))
            reach(At.TRANSFER_PUBLISHED)
            os.fsync(folder)
        self.linked = True
        return fresh

    @contextlib.contextmanager
    def _folder_for(self, final: Path) -> Iterator[int]:
        """Open the folder of the final name, made where it is a run type's own.

        Something else in the place of a run type's folder is that type's trouble alone.
        """
        if final.parent == self._layout.folder:
            with self._layout.opened(final.parent) as folder:
                yield folder
            return
        try:
            if not final.parent.is_dir():
                final.parent.mkdir()
                sync(final.parent.parent)
            with self._layout.opened(final.parent):
                pass
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
                raise NameTakenError(str(final.parent)) from None
            raise
        with self._layout.opened(final.parent) as folder:
            yield folder

    def _publish_without_links(self, final: Path, partial: int, folder: int) -> bool:
        """Rename, on the file systems that have no hard links; False where the name is taken."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(final.name, dir_fd=folder, follow_symlinks=False)
            return False
        os.rename(self.name, final.name, src_dir_fd=partial, dst_dir_fd=folder)
        return True

    def published(self) -> tuple[Path, AudioFormat, Hashed] | None:
        """Return the final file that an earlier process made of this part, whole, or None."""
        here = os.fstat(self._descriptor)
        for audio_format in AudioFormat:
            final = self._layout.final(self._key, audio_format)
            with contextlib.suppress(OSError), self._layout.opened(final.parent) as folder:
                there = os.stat(final.name, dir_fd=folder, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    found = hash_file(final.name, folder)
                    if found is not None:
                        os.fsync(folder)
                        return final, audio_format, found
        return None

    def abandon(self) -> None:
        """Leave a file that has a second name elsewhere to whoever made that, and begin anew."""
        self.discard()
        with opened_folder(self._layout.folder / PARTIAL) as partial:
            self._object = _NO_OBJECT
            self._descriptor = create_locked(self.name, partial)
        self.linked = False

    def discard(self) -> None:
        """Remove this name of the file; a published file keeps its other one.

        A name that cannot be removed now goes with a later sweep.
        """
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    def let_go(self) -> None:
        """End the work on the file: bytes that can be continued stay, others go."""
        if not self.linked and self._object == _NO_OBJECT:
            self.discard()
        self.close()

    def close(self) -> None:
        """Let go of the file; what it holds stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def object_digest(etag: str | None, total_bytes: int | None) -> str:
    """Return what names an object: nothing can be resumed without a strong ETag."""
    if etag is None:
        return _NO_OBJECT
    return hashlib.sha256(f"{etag}\n{total_bytes}".encode()).hexdigest()[:16]


def parts_in(partial: int) -> Iterator[tuple[str, RunKey]]:
    """Yield the parts in the folder with the run each belongs to."""
    for name in os.listdir(partial):
        match = _NAME.fullmatch(name)
        if match:
            yield name, RunKey(match["run_type"], int(match["run_id"]))
