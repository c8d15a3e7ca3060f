"""A disk in memory on which a trace of system calls is played, to be cut off at any moment.

A file has two contents, an entry of a folder two existences: the one that programs see, and the one
that is on the disk. `fsync` of a file makes its bytes the same, of a folder its entries. What is
left after a cut is one of these `Left`:

- `SYNCED`: what was synced, and nothing else.
- `RECORDS_KEPT`: of the database, its log and its journal everything, synced or not; of all other
  files what was synced. The worst for a row that says more than there is.
- `ZEROS`: as `RECORDS_KEPT`, but files have their unsynced bytes as zeros, and entries are kept.
  What file systems do that write the length of a file before its bytes.
- `TORN`: of the records, each write since the last sync is there or not, by chance; of all other
  files what was synced.

Whatever else was there when the trace began counts as synced.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from powercut.recording import Op

_RECORDS: Final = (".sqlite3", ".sqlite3-wal", ".sqlite3-journal")


class Left(Enum):
    """What there is after a cut."""

    SYNCED = auto()
    RECORDS_KEPT = auto()
    ZEROS = auto()
    TORN = auto()


@dataclass
class Write:
    """Bytes at a place in a file; None instead of bytes: the file ends at this place."""

    at: int
    data: bytes | None


@dataclass
class File:
    """What a program sees, what is on the disk, and how the one came from the other."""

    seen: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    since: list[Write] = field(default_factory=list)
    done: int = 0

    def do(self, write: Write) -> None:
        """Write, or cut to a length."""
        _apply(self.seen, write)
        self.since.append(write)
        self.done += 1

    def syncing(self) -> Callable[[], None]:
        """Begin to force the bytes to the disk; return what ends that."""
        seen, done = bytes(self.seen), self.done

        def end() -> None:
            later = self.done - done
            if later <= len(self.since):  # else a sync that began later has ended already
                self.synced = seen
                self.since = self.since[len(self.since) - later :]

        return end

    def torn(self, dice: random.Random) -> bytes:
        """Return the bytes with some of the writes since the last sync."""
        content = bytearray(self.synced)
        for write in self.since:
            if dice.random() < 0.5:
                _apply(content, write)
        return bytes(content)

    def zeroed(self) -> bytes:
        """Return the bytes with zeros wherever they were not synced."""
        content = bytearray(self.synced)
        for write in self.since:
            blank = None if write.data is None else bytes(len(write.data))
            _apply(content, Write(write.at, blank))
        return bytes(content)


def _apply(content: bytearray, write: Write) -> None:
    if write.data is None:
        del content[write.at :]
    content.extend(bytes(max(0, write.at - len(content))))
    if write.data is not None:
        content[write.at : write.at + len(write.data)] = write.data


@dataclass
class Folder:
    """The entries a program sees, and those that are on the disk."""

    seen: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    begun: int = 0
    ended: int = 0

    def syncing(self) -> Callable[[], None]:
        """Begin to force the entries to the disk; return what ends that."""
        self.begun += 1
        seen, number = dict(self.seen), self.begun

        def end() -> None:
            if number > self.ended:  # else one that began later has ended already
                self.synced, self.ended = seen, number

        return end


class Disk:
    """Everything under one folder."""

    def __init__(self, root: Path, *, unsynced: Callable[[Path], bool] = lambda _: False) -> None:
        self._root = root
        self._numbers = itertools.count(1)
        self._nodes: dict[int, File | Folder] = {0: Folder()}
        self._paths = {str(root): 0}  # of folders, which are not renamed
        self._open: dict[int, tuple[int, int]] = {}  # descriptor to file and offset
        inodes: dict[int, int] = {}
        for path in sorted(root.rglob("*")):
            inode = path.lstat().st_ino
            number = inodes.setdefault(inode, next(self._numbers))
            parent = self._folder(str(path.parent))
            parent.seen[path.name] = number
            if not unsynced(path):
                parent.synced[path.name] = number
            if path.is_dir():
                self._nodes[number] = Folder()
                self._paths[str(path)] = number
            elif path.is_file() and number not in self._nodes:
                content = path.read_bytes()
                synced = b"" if unsynced(path) else content
                since = [Write(0, content)] if unsynced(path) else []
                self._nodes[number] = File(bytearray(content), synced, since)

    def play(self, ops: Sequence[Op]) -> Iterator[Op]:
        """Do system calls in their order, and yield each when it is done.

        What is forced to the disk is what was there when the call began, from when it ended.
        """
        moments = [(op.ended, 1, op) for op in ops]
        moments += [(op.began, 0, op) for op in ops if op.is_sync]
        syncs: dict[int, Callable[[], None]] = {}
        for _, ends, op in sorted(moments, key=lambda moment: moment[:2]):
            if not ends:
                if op.descriptor in self._open:
                    syncs[op.began] = self._nodes[self._open[op.descriptor][0]].syncing()
                continue
            if op.is_sync:
                syncs.pop(op.began, lambda: None)()
            else:
                getattr(self, f"_{op.name}", self._ignore)(op)
            yield op

    def left(self, how: Left, seed: int = 0) -> dict[str, bytes | None]:
        """Return what would be there after a cut now: content by path, None for a folder."""
        return dict(self._walk(0, "", how, random.Random(seed)))  # noqa: S311 - a game

    def _walk(
        self, number: int, path: str, how: Left, dice: random.Random
    ) -> Iterator[tuple[str, bytes | None]]:
        folder = self._nodes[number]
        assert isinstance(folder, Folder)
        for name in sorted({**folder.seen, **folder.synced}):
            kept = how is Left.ZEROS or (how is not Left.SYNCED and name.endswith(_RECORDS))
            child = (folder.seen if kept else folder.synced).get(name)
            if child is None:
                continue
            node, here = self._nodes[child], f"{path}{name}"
            if isinstance(node, Folder):
                yield here, None
                yield from self._walk(child, f"{here}/", how, dice)
            elif name.endswith(_RECORDS) and how is not Left.SYNCED:
                yield here, node.torn(dice) if how is Left.TORN else bytes(node.seen)
            else:
                yield here, node.zeroed() if how is Left.ZEROS else node.synced

    def _folder(self, path: str) -> Folder:
        found = self._nodes[self._paths[path]]
        assert isinstance(found, Folder)
        return found

    def _entry(self, path: str) -> tuple[Folder, str] | None:
        """Return the folder that a path's last name is in; None for what is not under the root."""
        parent, _, name = path.rpartition("/")
        return (self._folder(parent), name) if parent in self._paths else None

    def _ignore(self, op: Op) -> None:
        raise AssertionError(f"nobody knows what {op.name} leaves on a disk")

    def _openat(self, op: Op) -> None:
        self._open.pop(op.result, None)
        if op.paths[0] in self._paths:
            self._open[op.result] = (self._paths[op.paths[0]], 0)
            return
        entry = self._entry(op.paths[0])
        if entry is None:
            return
        folder, name = entry
        if name not in folder.seen:
            assert "O_CREAT" in op.words, op
            folder.seen[name] = next(self._numbers)
            self._nodes[folder.seen[name]] = File()
        self._open[op.result] = (folder.seen[name], 0)
        if "O_TRUNC" in op.words:
            self._file(op.result).do(Write(0, None))

    def _file(self, descriptor: int) -> File:
        found = self._nodes[self._open[descriptor][0]]
        assert isinstance(found, File)
        return found

    def _write(self, op: Op) -> None:
        if op.descriptor in self._open:
            number, offset = self._open[op.descriptor]
            self._file(op.descriptor).do(Write(offset, op.data[: op.result]))
            self._open[op.descriptor] = (number, offset + op.result)

    def _pwrite64(self, op: Op) -> None:
        if op.descriptor in self._open:
            self._file(op.descriptor).do(Write(op.numbers[-1], op.data[: op.result]))

    def _lseek(self, op: Op) -> None:
        if op.descriptor in self._open:
            self._open[op.descriptor] = (self._open[op.descriptor][0], op.result)

    def _ftruncate(self, op: Op) -> None:
        if op.descriptor in self._open:
            self._file(op.descriptor).do(Write(op.numbers[-1], None))

    def _mkdir(self, op: Op) -> None:
        if (entry := self._entry(op.paths[0])) is not None:
            folder, name = entry
            number = folder.seen[name] = next(self._numbers)
            self._nodes[number] = Folder()
            self._paths[op.paths[0]] = number

    _mkdirat = _mkdir

    def _linkat(self, op: Op) -> None:
        (source, old), (target, new) = self._two(op)
        target.seen[new] = source.seen[old]

    _link = _linkat

    def _renameat(self, op: Op) -> None:
        (source, old), (target, new) = self._two(op)
        target.seen[new] = source.seen.pop(old)

    _rename = _renameat2 = _renameat

    def _two(self, op: Op) -> tuple[tuple[Folder, str], tuple[Folder, str]]:
        source, target = self._entry(op.paths[0]), self._entry(op.paths[1])
        assert source is not None
        assert target is not None
        return source, target

    def _unlinkat(self, op: Op) -> None:
        if (entry := self._entry(op.paths[0])) is not None:
            del entry[0].seen[entry[1]]

    _unlink = _rmdir = _unlinkat
