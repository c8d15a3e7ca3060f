"""One process, many small runs: its memory, files, threads and the write-ahead log stay small.

The long form, some 15 minutes::

    .venv/bin/python tests/longlife/long_life.py --runs 100000 --warm-up 10000
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
from harness import Program

from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

MB = 1_000_000
GROWTH_BYTES = 10 * MB
LOG_BYTES = 64 * 1024 * 1024
FILES_OF_A_TRANSFER = 3  # its part, the folder of parts, the folder of saved files


@dataclass
class Life:
    """What one life of a process was like; sizes in bytes."""

    runs: int
    warm_up: int
    concurrency: int
    seconds: float = 0.0
    requests: int = 0
    transfers: int = 0
    resident: list[int] = field(default_factory=list)
    """After the warm-up, one sample every now and then."""
    files: list[int] = field(default_factory=list)
    """Descriptors, but for those of transfers under way."""
    parts: list[int] = field(default_factory=list)
    """Descriptors of parts and of the folders they are in."""
    threads: list[int] = field(default_factory=list)
    largest_log: int = 0

    @property
    def growth(self) -> int:
        """How much the memory has grown, from the mean of the first fifth to that of the last."""
        first, last = _ends(self.resident)
        return sum(last) // len(last) - sum(first) // len(first)

    def check(self) -> None:
        """Assert that nothing has grown."""
        assert self.growth < GROWTH_BYTES, self
        # How many are in use varies with what is under way: the fewest are compared.
        for samples in (self.files, self.threads):
            first, last = _ends(samples)
            assert min(last) <= min(first) + 2, samples
        assert max(self.parts) <= self.concurrency * FILES_OF_A_TRANSFER, self.parts
        assert self.largest_log < LOG_BYTES, self
        assert self.transfers == self.runs
        assert self.requests <= self.runs * 0.205, self

    def __str__(self) -> str:
        """Return the figures, for a person."""
        return (
            f"{self.runs} runs in {self.seconds:.0f} s ({self.runs / self.seconds:.0f} a second), "
            f"{self.requests / self.runs:.3f} API requests a run; after {self.warm_up}: memory "
            f"{self.growth / MB:+.1f} MB of {self.resident[0] / MB:.0f} MB, open files "
            f"{min(self.files)} to {max(self.files)}, threads {min(self.threads)} to "
            f"{max(self.threads)}; largest log {self.largest_log / MB:.1f} MB"
        )


@contextlib.contextmanager
def readers(database: Path, number: int) -> Iterator[None]:
    """Read from the database without a moment's pause: one reader always overlaps the next."""
    over = threading.Event()

    def read(offset: float) -> None:
        over.wait(offset)
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as raw:
            raw.isolation_level = None
            while not over.is_set():
                raw.execute("BEGIN")
                raw.execute("SELECT count(*) FROM runs").fetchall()
                over.wait(1.0)
                raw.execute("COMMIT")

    threads = [threading.Thread(target=read, args=(index / number,)) for index in range(number)]
    for one in threads:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in threads:
            one.join()


def live(folder: Path, *, runs: int, warm_up: int, concurrency: int = 16) -> Life:
    """Drain `runs` runs of a kilobyte by one process, with readers attached; return its life."""
    (folder / "home").mkdir(exist_ok=True)
    program = Program(folder)
    life = Life(runs, warm_up, concurrency)
    with Simulator(SimulatorOptions(min_size=1_000, max_size=1_100)) as simulator:
        program.env["DOWNLOADER_API_URL"] = simulator.api_url
        program.submit(range(1, runs + 1))
        started = time.monotonic()
        arguments = ("run", "--drain", "--concurrency", str(concurrency), "--min-free", "0")
        with readers(program.database, 2), program.start(*arguments) as process:
            _watch(program, process, life)
            _, err = process.communicate()
        life.seconds = time.monotonic() - started
        assert (process.returncode, err) == (0, "")
        life.requests = simulator.stats()["api"]["requests"]
        life.transfers = simulator.stats()["storage"]["requests"]
    [(done,)] = program.query("SELECT count(*) FROM runs WHERE state = 'done'")
    assert done == runs
    return life


def _ends(samples: list[int]) -> tuple[list[int], list[int]]:
    """Return the first and the last fifth of the samples."""
    some = max(1, len(samples) // 5)
    return samples[:some], samples[-some:]


def _watch(program: Program, process: subprocess.Popen[str], life: Life) -> None:
    """Take samples while the process works."""
    log = program.database.with_name(program.database.name + "-wal")
    measured = psutil.Process(process.pid)
    pause = threading.Event()
    done = 0
    while process.poll() is None and done < life.runs * 0.98:
        with contextlib.suppress(FileNotFoundError):
            life.largest_log = max(life.largest_log, log.stat().st_size)
        [(done,)] = program.query("SELECT count(*) FROM runs WHERE state = 'done'")
        if done >= life.warm_up:
            with contextlib.suppress(psutil.NoSuchProcess):
                life.resident.append(measured.memory_info().rss)
                files, parts = _open_files(measured, program.output)
                life.files.append(files)
                life.parts.append(parts)
                life.threads.append(measured.num_threads())
        pause.wait(0.1)


def _open_files(measured: psutil.Process, folder: Path) -> tuple[int, int]:
    """Return how many descriptors a process has, and how many of a folder, by one look at both.

    By two, what was opened in between would be missing from the first. Where /proc is not, all
    are of the first.
    """
    listed = [*Path(f"/proc/{measured.pid}/fd").glob("*")]
    if not listed:
        return measured.num_fds(), 0
    found = [0, 0]
    for descriptor in listed:
        with contextlib.suppress(OSError):  # closed meanwhile
            found[descriptor.readlink().is_relative_to(folder)] += 1
    return found[0], found[1]


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--warm-up", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=16)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        life = live(
            Path(folder), runs=asked.runs, warm_up=asked.warm_up, concurrency=asked.concurrency
        )
    print(life)  # noqa: T201 - a command
    life.check()


if __name__ == "__main__":
    main()
