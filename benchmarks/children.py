"""Child processes, and what each of them cost: wall time, CPU time and peak memory."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TAIL_BYTES: Final = 4096
_END_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Used:
    """What a process took from its start to its end; CPU is user and system together."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int

    def then(self, after: Used) -> Used:
        """Return what this process and one after it took together."""
        return Used(
            self.wall_seconds + after.wall_seconds,
            self.cpu_seconds + after.cpu_seconds,
            max(self.peak_bytes, after.peak_bytes),
        )


def plain_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment without any settings of the caller's, nor proxies."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(home), "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"} | more


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    codes: Sequence[int] = (0,),
) -> Used:
    """Run a command to its end and return what it took, by `wait4` of that very process.

    Raises:
        BenchmarkError: it cannot be started, or ended with none of `codes`; with what it printed.

    """
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise BenchmarkError(f"{command[0]} cannot be started: {error.strerror}.") from error
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            end(process)
            raise
        wall_seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in codes:
            size = said.seek(0, os.SEEK_END)
            said.seek(max(0, size - _TAIL_BYTES))
            tail = said.read().decode("utf-8", "replace").strip()
            raise BenchmarkError(
                f"{Path(command[0]).name} ended with {process.returncode}:\n{tail}"
            )
    return Used(wall_seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def own_peak_bytes() -> int:
    """Return the most memory that this process has had.

    A child's figure is never below it: until it executes its program it is this process, to
    the kernel. So this process is kept small, and small figures are compared with this one.
    """
    found = re.search(
        r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"), re.MULTILINE
    )
    return int(found[1]) * 1024 if found else 0


@contextlib.contextmanager
def serving(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server beside the block, and end it however the block ends."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a child: it is asked first."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
