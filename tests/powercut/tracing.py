"""The program's system calls, as strace(1) tells them: what was forced to the disk, and when."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from needs import needed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Program

_CALLS: Final = (
    "write,pwrite64,fsync,fdatasync,ftruncate,"
    "link,linkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,openat"
)
_LINE: Final = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)", re.DOTALL)
_WHOLE: Final = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+).*", re.DOTALL)
_BEGUN: Final = re.compile(r"(?P<call>\w+)\((?P<arguments>.*) <unfinished \.\.\.>", re.DOTALL)
_ENDED: Final = re.compile(
    r"<\.\.\. (?P<call>\w+) resumed>(?P<arguments>.*)\) += (?P<result>-?\d+).*", re.DOTALL
)
_FILE: Final = re.compile(r"\d+<(?P<path>[^>]*)>")
_TEXT: Final = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded, from the line at which it began to the one it ended at."""

    name: str
    arguments: str
    began: int
    ended: int

    @property
    def files(self) -> list[str]:
        """The paths of the open files among the arguments."""
        return [match["path"] for match in _FILE.finditer(self.arguments)]

    @property
    def texts(self) -> list[str]:
        """The texts among the arguments: names, and what is written."""
        return [match["text"] for match in _TEXT.finditer(self.arguments)]

    @property
    def is_write(self) -> bool:
        """Whether it writes to a file."""
        return self.name in ("write", "pwrite64")

    @property
    def is_sync(self) -> bool:
        """Whether it forces a file, or the entries of a folder, to the disk."""
        return self.name in ("fsync", "fdatasync")

    def is_of(self, path: Path) -> bool:
        """Return whether it is of this open file."""
        return self.files[:1] == [str(path)]


def traced(program: Program, *arguments: str) -> list[Call]:
    """Run the program to its end under strace; return its calls in the order of their ends."""
    log = program.folder / "trace"
    how = ["-f", "-y", "-s", "20000", "-e", f"trace={_CALLS}"]
    done = subprocess.run(
        [needed("strace"), *how, "-o", str(log), *program.command(*arguments)],
        env=program.environment(),
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = sorted(_parse(log.read_text(encoding="latin-1")), key=lambda call: call.ended)
    assert calls
    return calls


def _parse(text: str) -> Iterator[Call]:
    begun: dict[str, tuple[str, str, int]] = {}
    for number, line in enumerate(text.split("\n")):
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        pid, rest = found["pid"], found["rest"]
        if match := _BEGUN.fullmatch(rest):
            begun[pid] = (match["call"], match["arguments"], number)
        elif match := _ENDED.fullmatch(rest):
            name, arguments, began = begun.pop(pid)
            assert name == match["call"]
            if int(match["result"]) >= 0:
                yield Call(name, arguments + match["arguments"], began, number)
        elif (match := _WHOLE.fullmatch(rest)) and int(match["result"]) >= 0:
            yield Call(match["call"], match["arguments"], number, number)
