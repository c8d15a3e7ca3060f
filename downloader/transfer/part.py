"""Part files: bytes on their way, in `<output>/.partial/`, one file a claim.

A part belongs to the process that holds its `flock`. Its name carries a token of the claim
and a digest of the object it was begun from::

    <run type>-<run id>.<token>.<digest of validator and length>.part

Nobody ever writes to a file that another process may still write to: one whose lock is
held, say by a frozen process, is left alone, and its holder can only ever publish that very
file. The digest keeps the start of one object from being joined to the end of another.

Where the file system has no locks the token says so, by a `u` before it, and nothing tells whether
another process is at such a part. So it is never gone on with: what is in it is copied into a new
one, which costs its bytes once more on the disk, not in the network. The old one goes, and its
process, should it still be there, has lost its lease, and finds that nothing is there to publish.

While bytes are written the digest is also of this boot of the machine: a power cut may leave
a file with the right length and zeros in it, which nothing would tell. Whoever lets go of a
part syncs it first, and then names it for any boot.

A published file is a second name (hard link) of its part; the part goes when `done` is
committed. So a part with two names says: this file is ours, verified and synced, and only
the commit was lost.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from downloader.durable import IN_USE, NOT_HERE, force, give_name, lock, make_folders
from downloader.failpoints import At, reach
from downloader.rules.audio import AudioFormat
from downloader.rules.states import MAX_RUN_ID, RunKey
from downloader.transfer.files import (
    READ_BYTES,
    UNLOCKED,
    Hashed,
    Held,
    boot_id,
    create_locked,
    hash_file,
    lock_existing,
    open_folder,
)
from downloader.transfer.layout import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from downloader.rules.digests import Hasher
    from downloader.transfer.layout import Layout

KEPT_SECONDS: Final = 7 * 24 * 3600.0
"""How long the part of a failed run is kept: `retry` goes on with it."""

HEAD_BYTES: Final = 64 * 1024
"""How much of a file's start is kept in memory, for the judgement of its audio header."""

_NO_OBJECT: Final = "0"
# Exactly as we name them: what is named otherwise, if only a little, somebody else has made.
_NAME: Final = re.compile(
    r"(?P<run_type>.+)-(?P<run_id>[1-9][0-9]{0,18})"
    r"\.(?P<token>u?[0-9a-f]{12})\.(?P<object>0|[0-9a-f]{16})\.part",
    re.ASCII,
)


class NameTakenError(Exception):
    """Something that is not this run's file has its final name."""


class Part:
    """One part file, held by this process until `close`.

    `size` is what it holds, `head` its first bytes. Every method raises OSError as the
    operating system does; callers wrap them in `disk_errors`. A `new` one is begun without a look
    for what there is.
    """

    def __init__(
        self, layout: Layout, key: RunKey, wanted: ObjectName | None, *, new: bool = False
    ) -> None:
        self._layout = layout
        self._key = key
        self._token = _new_token()
        self._locked = True
        self._object = _NO_OBJECT
        self._name: ObjectName | None = None
        self._hash = hashlib.sha256()
        self._touched = False  # whether there may be bytes in it
        self.size = 0
        self.head = b""
        self.linked = False
        self._descriptor = -1
        self._partial = open_folder(layout.folder / PARTIAL)
        try:
            if new or not self._take_over(wanted):
                self._create()
        except OSError:
            self.close()
            raise

    def _create(self) -> None:
        """Begin an empty part."""
        token = self._token = _new_token()
        unlocked = UNLOCKED[1:] + token
        held = create_locked(self.name, self._name_by(unlocked), self._partial)
        self._descriptor, self._locked = held.descriptor, held.locked
        self._token = token if held.locked else unlocked

    @property
    def name(self) -> str:
        """The file's name in the folder of parts."""
        return self._name_by(self._token)

    def _name_by(self, token: str, digest: str | None = None) -> str:
        named = self._object if digest is None else digest
        return f"{self._key.run_type}-{self._key.run_id}.{token}.{named}.part"

    @property
    def path(self) -> Path:
        """The file's path."""
        return self._layout.folder / PARTIAL / self.name

    def _take_over(self, wanted: ObjectName | None) -> bool:
        """Take a part that nobody holds: one already published, else one of the wanted object."""
        partial = self._partial
        names = [name for name, key in parts_in(partial) if key == self._key]
        # What is not among these is locked: somebody may still be writing to it.
        free = [(held, name) for name in names if (held := lock_existing(name, partial))]
        try:
            free.sort(key=lambda one: one[0].names, reverse=True)
            taken = next((one for one in free if _is_usable(*one, wanted)), None)
            if taken is None:
                self._remove_all(free)
                return False
            held, name = taken
            self._object = name.split(".")[-2]
            self._touched = True
            self.linked = held.names > 1
            if not self.linked and wanted is not None:
                self._name, self._object = wanted, wanted.this_boot
            if not (held.locked or self.linked):
                self._copy(held.descriptor, name)
                self._remove_all(free)
                return True
            self._remove_all([one for one in free if one is not taken])
            os.rename(name, self.name, src_dir_fd=partial, dst_dir_fd=partial)
            # What is appended from here on must not be found, after a power cut, under the
            # name that says it was synced.
            force(partial)
            free.remove(taken)
            self._descriptor = held.descriptor
            if not self.linked:
                self._read_what_is_there()
            return True
        finally:
            for held, _ in free:
                os.close(held.descriptor)

    def _remove_all(self, parts: list[tuple[Held, str]]) -> None:
        """Remove parts of the run that this process holds the lease of."""
        for _, name in parts:
            with contextlib.suppress(OSError):  # then it goes another time
                os.unlink(name, dir_fd=self._partial)

    def _copy(self, source: int, name: str) -> None:
        """Begin a part with the bytes of one that another process may be writing to.

        It only appends to what is of one object, and gives the part another name before it writes
        what is of another: so what was read is of the object that is wanted if the name is there
        still.
        """
        self._create()
        try:
            while chunk := os.read(source, READ_BYTES):
                self.write(chunk)
            there = os.stat(name, dir_fd=self._partial, follow_symlinks=False)
        except FileNotFoundError:
            self.restart()
            return
        except OSError:
            self._remove()
            raise
        if there.st_ino != os.fstat(source).st_ino:
            self.restart()

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
        if self._touched:
            try:
                os.ftruncate(self._descriptor, 0)
                os.lseek(self._descriptor, 0, os.SEEK_SET)
            except OSError as error:  # what can only be written from the first byte to the last
                if error.errno not in NOT_HERE:
                    raise
                self._begin_anew()
            self._hash = hashlib.sha256()
            self._touched = False
            self.size = 0
            self.head = b""
        self._name = None
        self._rename(_NO_OBJECT)

    @property
    def is_kept(self) -> bool:
        """Whether there are bytes, and the name says which object they are of."""
        return self._name is not None and self.size > 0 and self._descriptor >= 0

    def belongs_to(self, validator: str, total_bytes: int | None) -> None:
        """Name the object that the bytes are of, so that they can be resumed."""
        self._name = object_name(validator, total_bytes)
        self._rename(self._name.this_boot)

    def _rename(self, digest: str) -> None:
        if digest == self._object:
            return
        before, self._object = self._object, digest
        try:
            os.rename(
                self._name_by(self._token, before),
                self.name,
                src_dir_fd=self._partial,
                dst_dir_fd=self._partial,
            )
        except OSError as error:
            if error.errno in IN_USE:  # not while it is open: then it cannot be gone on with
                self._object = before
            elif self._locked or not isinstance(error, FileNotFoundError):
                raise
            # else who has the lease now has made a copy, and removed it

    def write(self, chunk: bytes) -> None:
        """Append bytes; a full disk shows as a short write first, then as ENOSPC."""
        self._touched = True
        written = os.write(self._descriptor, chunk)
        if written < len(chunk):
            view = memoryview(chunk)[written:]
            while view:
                view = view[os.write(self._descriptor, view) :]
        self._take(chunk)

    def hashed(self) -> Hashed:
        """Return the size and SHA-256 of what was written."""
        return Hashed(self.size, self._hash.hexdigest())

    def hash_also(self, hashers: Sequence[Hasher], go_on: Callable[[], None]) -> None:
        """Have others hash all bytes too, those of an earlier transfer among them.

        `go_on` is called now and then, and may raise.
        """
        offset = 0
        while chunk := os.pread(self._descriptor, READ_BYTES, offset):
            go_on()
            offset += len(chunk)
            for one in hashers:
                one.update(chunk)

    @contextlib.contextmanager
    def replaced(self) -> Iterator[Iterator[bytes]]:
        """Be another file, empty, that is made of the bytes of this one, which are yielded.

        Whatever is raised meanwhile leaves the part as it was.
        """
        before = {name: getattr(self, name) for name in _OF_THE_FILE}
        old_name, old = self.name, self._descriptor
        self._object, self._name = _NO_OBJECT, None
        self._hash, self.size, self.head = hashlib.sha256(), 0, b""
        self._create()
        offsets = range(0, before["size"], READ_BYTES)
        try:
            yield (os.pread(old, READ_BYTES, offset) for offset in offsets)
        except BaseException:
            self._remove()
            os.close(self._descriptor)
            for name, value in before.items():
                setattr(self, name, value)
            raise
        with contextlib.suppress(OSError):
            os.unlink(old_name, dir_fd=self._partial)
        os.close(old)

    def sync(self) -> None:
        """Force the bytes to the disk."""
        force(self._descriptor)

    def publish(self, final: Path) -> bool:
        """Give the file its final name, and force that name to the disk.

        Returns False where an equal file had the name already: it is as good as ours.

        Raises:
            NameTakenError: something else has the name; it is left as it is.

        """
        with self._folder_for(final) as folder:
            fresh = True
            try:
                self._give_name(final.name, folder)
            except FileExistsError:
                fresh = False
            if not fresh and hash_file(final.name, folder) != self.hashed():
                raise NameTakenError(str(final))
            reach(At.TRANSFER_PUBLISHED)
            force(folder)
        self.linked = True
        return fresh

    def _give_name(self, name: str, folder: int) -> None:
        """Give the file a name in a folder, where that is free."""
        partial = self._partial
        try:
            give_name(self.name, name, source_folder=partial, target_folder=folder)
        except OSError as error:
            if error.errno == errno.EXDEV:
                self._copy_across(name, folder)
                return
            if error.errno not in IN_USE:
                raise
            os.close(self._descriptor)  # it may not be renamed while it is open
            self._descriptor = -1
            give_name(self.name, name, source_folder=partial, target_folder=folder)

    def _copy_across(self, name: str, folder: int) -> None:
        """Give a copy of the file a name in a folder that is on another file system."""
        copy = f".{self.name}"
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(  # noqa: PTH123 - in a folder that is open
                os.open(copy, flags, 0o666, dir_fd=folder), "wb", buffering=0
            ) as file:
                lock(file.fileno(), wait=False)
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                while chunk := os.read(self._descriptor, READ_BYTES):
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(file.fileno(), view) :]
                force(file.fileno())
            give_name(copy, name, source_folder=folder, target_folder=folder)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(copy, dir_fd=folder)

    @contextlib.contextmanager
    def _folder_for(self, final: Path) -> Iterator[int]:
        """Open the folder of the final name, made where it is a run type's own.

        Something else in the place of a run type's folder is that type's trouble alone.
        """
        own = final.parent != self._layout.folder
        with contextlib.ExitStack() as stack:
            try:
                if own:
                    make_folders(final.parent)
                folder = stack.enter_context(self._layout.opened(final.parent))
            except OSError as error:
                if own and error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
                    raise NameTakenError(str(final.parent)) from None
                raise
            yield folder

    def published(self) -> tuple[Path, AudioFormat, Hashed] | None:
        """Return the final file that an earlier process made of this part, whole, or None."""
        return published_as(self._layout, self._key, self._descriptor)

    def abandon(self) -> None:
        """Leave a file that has a second name elsewhere to whoever made that, and begin anew."""
        self._begin_anew()
        self._name = None
        self._touched = self.linked = False

    def _begin_anew(self) -> None:
        """Go on with an empty file, of no object yet, in place of this one."""
        self._remove()
        os.close(self._descriptor)
        self._descriptor = -1
        self._object = _NO_OBJECT
        self._create()

    def discard(self) -> None:
        """Remove this name of the file; a published file keeps its other one.

        A name that cannot be removed now goes with a later sweep.
        """
        gone = self._remove()
        self.close()
        if not gone:  # it may be that it cannot be removed while it is open
            self._remove()

    def _remove(self) -> bool:
        """Remove this name of the file; return whether it is gone."""
        try:
            if self._partial >= 0:
                os.unlink(self.name, dir_fd=self._partial)
            else:  # closed
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True

    def let_go(self) -> None:
        """End the work on the file: bytes that can be continued stay, others go."""
        if not self.linked:
            if self._name is None:
                self.discard()
            elif self._descriptor >= 0:
                with contextlib.suppress(OSError):  # a full disk, say: then it is of this boot
                    self.sync()
                    self._rename(self._name.any_boot)
        self.close()

    def close(self) -> None:
        """Let go of the file; what it holds stays."""
        for descriptor in (self._descriptor, self._partial):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._partial = -1


class ObjectName(NamedTuple):
    """What names the object a part is of, in a part's name."""

    this_boot: str  # written to, and not synced: to be trusted until the machine restarts
    any_boot: str  # synced


def object_name(validator: str, total_bytes: int | None) -> ObjectName:
    """Return what names an object: its ETag, or else its Last-Modified, and its length."""
    facts = f"{validator}\n{total_bytes}"
    this_boot, any_boot = (
        hashlib.sha256(text.encode()).hexdigest()[:16] for text in (f"{facts}\n{boot_id()}", facts)
    )
    return ObjectName(this_boot, any_boot)


def published_as(
    layout: Layout, key: RunKey, descriptor: int
) -> tuple[Path, AudioFormat, Hashed] | None:
    """Return the final file that is a second name of this part, whole and synced, or None."""
    here = os.fstat(descriptor)
    for audio_format in AudioFormat:
        final = layout.final(key, audio_format)
        with contextlib.suppress(OSError), layout.opened(final.parent) as folder:
            there = os.stat(final.name, dir_fd=folder, follow_symlinks=False)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                found = hash_file(final.name, folder)
                if found is not None:
                    force(folder)
                    return final, audio_format, found
    return None


_OF_THE_FILE: Final = (
    *("_token", "_locked", "_object", "_name", "_hash", "_descriptor", "size", "head"),
)


def _is_usable(held: Held, name: str, wanted: ObjectName | None) -> bool:
    """Return whether a part is a published file's, or of the object that is wanted."""
    return held.names > 1 or (wanted is not None and name.split(".")[-2] in wanted)


_TOKEN_OF_PROCESS: Final = secrets.token_hex(4)
_NUMBERS: Final = itertools.count(secrets.randbits(16))


def _new_token() -> str:
    """Return what tells a claim's part from any other of its run: this process's, and a number."""
    return f"{_TOKEN_OF_PROCESS}{next(_NUMBERS) & 0xFFFF:04x}"


def part_of(name: str) -> RunKey | None:
    """Return the run that a part is of by its name; None where it is no name of ours."""
    match = _NAME.fullmatch(name)
    if match is None or int(match["run_id"]) > MAX_RUN_ID:
        return None
    return RunKey(match["run_type"], int(match["run_id"]))


def parts_in(partial: int) -> Iterator[tuple[str, RunKey]]:
    """Yield the parts in the folder with the run each belongs to, however many there are."""
    with os.scandir(partial) as entries:
        for entry in entries:
            key = part_of(entry.name)
            if key is not None:
                yield entry.name, key
