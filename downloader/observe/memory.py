"""How much memory is left on this machine, or in the container that this process runs in: Linux.

Nothing is known elsewhere; there only the number of transfers bounds what is used.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from downloader.rules.memory import Memory

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_FIELD: Final = re.compile(r"^(\w+):?\s+(\d+)", re.MULTILINE)
_STALLED: Final = re.compile(r"^some avg10=(\d+(?:\.\d+)?)", re.MULTILINE)


def read_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Memory | None:
    """Return where memory stands; None where this system does not say."""
    try:
        machine = _fields(proc / "meminfo")
        total, available = machine["MemTotal"] * 1024, machine["MemAvailable"] * 1024
        resident = int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, KeyError):
        return None
    group = _group(proc, cgroups)
    while group is not None and group.is_relative_to(cgroups):
        left = _left_in(group)
        if left is not None:
            limit, free = left
            total, available = min(total, limit), min(available, free)
        group = group.parent
    return Memory(total, available, resident, _stalled_share(proc / "pressure/memory"))


def _group(proc: Path, cgroups: Path) -> Path | None:
    """Return the folder of our control group (version 2)."""
    try:
        for line in (proc / "self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return cgroups / line.removeprefix("0::/")
    except (OSError, ValueError):
        pass
    return None


def _left_in(group: Path) -> tuple[int, int] | None:
    """Return how much a control group may use, and how much of it is left; None: no limit."""
    try:
        limit = int((group / "memory.max").read_text())  # or the word max
        used = int((group / "memory.current").read_text())
        # What was read from or written to files goes as soon as somebody needs the room.
        used -= _fields(group / "memory.stat").get("inactive_file", 0)
    except (OSError, ValueError):
        return None
    return limit, max(0, limit - used)


def _stalled_share(path: Path) -> float:
    try:
        found = _STALLED.search(path.read_text())
    except (OSError, ValueError):  # older kernels, and those told not to count
        return 0.0
    return 0.0 if found is None else float(found[1]) / 100


def _fields(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in _FIELD.findall(path.read_text())}
