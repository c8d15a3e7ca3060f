"""Which processes of this machine have a database open, where the system tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from downloader.rules.redaction import clean_text

_PROC = Path("/proc")


class Holder(NamedTuple):
    """A process that has a database open."""

    pid: int
    name: str
    is_ours: bool  # a command of this program
    runs: bool  # … which is the service


def holders_of(path: Path) -> list[Holder] | None:
    """Return who else has a database open: None where that cannot be known.

    SQLite in WAL mode keeps a shared lock on the file for as long as it has it open, and Linux
    lists the locks (proc_locks(5)); those of another PID namespace, such as another container's,
    are not told.
    """
    try:
        found = path.stat()
        file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        lines = (_PROC / "locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    pids = set()
    for words in map(str.split, lines):
        if len(words) > 5 and words[1] == "POSIX" and words[5] == file and words[4].isdecimal():
            pids.add(int(words[4]))
    return [_holder(pid) for pid in sorted(pids - {0, os.getpid()})]


def _holder(pid: int) -> Holder:
    """Name a process: by its program alone, for arguments may be secret."""
    try:
        line = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        line = b""
    words = [os.fsdecode(word) for word in line.split(b"\0") if word]
    # An interpreter comes first where a script or a module is started.
    at = next((at for at, word in enumerate(words[:3]) if _is_program(word)), None)
    if at is not None:
        return Holder(pid, "downloader", is_ours=True, runs=bool({"run", "demo"} & set(words[at:])))
    name = clean_text(Path(words[0]).name if words else "a process", 40)
    return Holder(pid, name, is_ours=False, runs=False)


def _is_program(word: str) -> bool:
    return Path(word).name == "downloader"
