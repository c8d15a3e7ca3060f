"""How much memory is left: what Linux says of the machine and of our container, and its verdict."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from downloader.observe.memory import read_memory
from downloader.rules.memory import Memory, is_low

if TYPE_CHECKING:
    from pathlib import Path

GB = 10**9
MB = 10**6


class System:
    """A folder like /proc and one like /sys/fs/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        self.write(self.proc / "meminfo", "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n")
        self.write(self.proc / "self/statm", "100000 25000 5000 1 0 30000 0\n")
        self.write(self.proc / "self/cgroup", "0::/a.slice/b.scope\n")
        self.write(
            self.proc / "pressure/memory",
            "some avg10=12.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=99.00 total=1\n",
        )

    @staticmethod
    def write(path: Path, text: str) -> None:
        """Write a file, and make its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")

    def group(self, name: str, *, limit: str, used: int, files: int = 0) -> None:
        """Set what a control group may use and does."""
        self.write(self.cgroups / name / "memory.max", f"{limit}\n")
        self.write(self.cgroups / name / "memory.current", f"{used}\n")
        self.write(self.cgroups / name / "memory.stat", f"anon 5\ninactive_file {files}\nfile 7\n")

    def read(self) -> Memory:
        """Read it."""
        found = read_memory(self.proc, self.cgroups)
        assert found is not None
        return found


@pytest.fixture
def system(tmp_path: Path) -> System:
    """Give a machine of 8 GB, half of it free, without limits."""
    return System(tmp_path)


def test_the_machine(system: System) -> None:
    """Without a limit the machine's memory counts, and the share of time that was waited for it."""
    found = system.read()
    assert (found.total_bytes, found.available_bytes) == (8000000 * 1024, 4000000 * 1024)
    assert found.resident_bytes >= 25_000 * 4096
    assert found.stalled_share == 0.125


def test_the_narrowest_group_counts(system: System) -> None:
    """The group around us with the least left decides; pages of files count as left."""
    system.group("a.slice", limit=str(2 * GB), used=GB + 900 * MB, files=800 * MB)
    system.group("a.slice/b.scope", limit="max", used=GB)
    found = system.read()
    assert (found.total_bytes, found.available_bytes) == (2 * GB, 900 * MB)


@pytest.mark.parametrize("lost", ["pressure/memory", "self/cgroup"])
def test_what_a_kernel_does_not_say(system: System, lost: str) -> None:
    """A kernel that does not count waits, or has no groups, says the rest all the same."""
    (system.proc / lost).unlink()
    assert system.read().available_bytes == 4000000 * 1024


@pytest.mark.parametrize("lost", ["meminfo", "self/statm"])
def test_where_nothing_is_said(system: System, lost: str) -> None:
    """Where the system does not say how much there is, nothing is known."""
    (system.proc / lost).write_text("?\n", encoding="ascii")
    assert read_memory(system.proc, system.cgroups) is None
    (system.proc / lost).unlink()
    assert read_memory(system.proc, system.cgroups) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory is left")
def test_this_machine() -> None:
    """What is read here is what others read here."""
    found = read_memory()
    assert found is not None
    assert found.total_bytes <= psutil.virtual_memory().total
    resident = psutil.Process().memory_info().rss
    assert resident / 2 < found.resident_bytes < resident * 2
    assert 0 <= found.available_bytes <= found.total_bytes
    assert 0 <= found.stalled_share <= 1


@pytest.mark.parametrize(
    ("memory", "low"),
    [
        (Memory(8 * GB, 4 * GB, 100 * MB, 0.0), False),
        (Memory(8 * GB, 201 * MB, 100 * MB, 0.0), False),
        (Memory(8 * GB, 199 * MB, 100 * MB, 0.0), True),
        (Memory(GB, 60 * MB, 100 * MB, 0.0), False),
        (Memory(GB, 49 * MB, 100 * MB, 0.0), True),
        (Memory(128 * MB, 60 * MB, 89 * MB, 0.0), False),
        (Memory(128 * MB, 60 * MB, 90 * MB, 0.0), True),
        (Memory(8 * GB, 4 * GB, 100 * MB, 0.2), False),
        (Memory(8 * GB, 4 * GB, 100 * MB, 0.21), True),
    ],
)
def test_when_it_is_low(memory: Memory, low: bool) -> None:  # noqa: FBT001 - a table's column
    """Little is left, we ourselves have most of it, or everybody waits for it."""
    assert is_low(memory) is low
