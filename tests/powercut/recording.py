"""The program's system calls on files, with every byte that it writes, as strace(1) tells them."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from needs import needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Program

_CALLS: Final = (
    "openat,lseek,write,pwrite64,ftruncate,fsync,fdatasync,mkdir,mkdirat,"
    "link,linkat,rename,renameat,renameat2,unlink,unlinkat,rmdir"
)
_ON_PATHS: Final = frozenset(_CALLS.split(",")) - frozenset(
    {"lseek", "write", "pwrite64", "ftruncate", "fsync", "fdatasync"}
)
_LINE: Final = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_BEGUN: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>")
_RESUMED: Final = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_WHOLE: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>\d+)(?:<.*)?")
_TOKEN: Final = re.compile(
    r'"(?P<text>(?:\\x[0-9a-f]{2})*)"(?P<cut>\.\.\.)?'
    r"|(?P<base>AT_FDCWD|\d+)<(?P<path>[^>]*)>(?:\(deleted\))?"
    r"|(?P<number>\b\d+\b)|(?P<word>[A-Z]\w+)"
)


@dataclass(frozen=True, slots=True)
class Op:
    """One system call that succeeded; `began` and `ended` are the lines it stands on."""

    name: str
    descriptor: int
    paths: tuple[str, ...]
    data: bytes
    numbers: tuple[int, ...]
    words: frozenset[str]
    result: int
    began: int
    ended: int

    @property
    def is_sync(self) -> bool:
        """Whether it forces a file, or the entries of a folder, to the disk."""
        return self.name in ("fsync", "fdatasync")


def recorded(program: Program, *arguments: str, returns: int = 0) -> list[Op]:
    """Run the program to its end under strace; return its calls in the order of their ends."""
    log = program.folder.with_name(f"{program.folder.name}.trace")
    # Hexadecimal throughout, and long enough for any one write: the bytes are played again.
    how = ["-f", "-y", "-xx", "-s", "4000000", "-e", "signal=none", "-e", f"trace={_CALLS}"]
    done = subprocess.run(
        [needed("strace"), *how, "-o", str(log), *program.command(*arguments)],
        env=program.environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == returns, done.stderr
    ops = list(_parse(log.read_text(encoding="ascii", errors="replace"), program.folder))
    log.unlink()
    assert ops
    return sorted(ops, key=lambda op: op.ended)


def _parse(text: str, cwd: Path) -> Iterator[Op]:
    begun: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.split("\n")):
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        pid, rest, began = found["pid"], found["rest"], number
        if match := _BEGUN.fullmatch(rest):
            begun[pid] = (f"{match['name']}({match['arguments']}", number)
            continue
        if match := _RESUMED.fullmatch(rest):
            start, began = begun.pop(pid)
            rest = start + match["rest"]
        if match := _WHOLE.fullmatch(rest):
            result = int(match["result"])
            yield _op(match["name"], match["arguments"], cwd, result, (began, number))


def _op(name: str, arguments: str, cwd: Path, result: int, lines: tuple[int, int]) -> Op:
    descriptor, base, data = -1, str(cwd), b""
    paths: list[str] = []
    numbers: list[int] = []
    words: set[str] = set()
    for token in _TOKEN.finditer(arguments):
        if token["base"]:
            base = os.fsdecode(_bytes(token["path"]))
            # An eventfd may have the number that a file had before: closing is not recorded.
            if token["base"] != "AT_FDCWD" and descriptor < 0 and "[event" not in base:
                descriptor = int(token["base"])
        elif token["number"]:
            numbers.append(int(token["number"]))
        elif token["word"]:
            words.add(token["word"])
        else:
            data = _bytes(token["text"])
            if name in _ON_PATHS:
                paths.append(os.path.normpath(Path(base) / os.fsdecode(data)))
            assert not token["cut"], "a write was too long to be recorded"
    return Op(
        name, descriptor, tuple(paths), data, tuple(numbers), frozenset(words), result, *lines
    )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
