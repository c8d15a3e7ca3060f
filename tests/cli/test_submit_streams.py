from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from children import Child

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Program

PIPE_BYTES = 1 << 17  # more than a pipe holds: when it is written, it is being read


def _begun(program: Program) -> subprocess.Popen[str]:
    """Start a submit that is now reading ids 1 to some thousands, and waits for more."""
    process = program.start("submit", "--file", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    number = written = 0
    while written < PIPE_BYTES:
        number += 1
        written += process.stdin.write(f"{number}\n")
    process.stdin.flush()
    return process


def test_a_slow_writer_holds_nobody_up(program: Program) -> None:
    """While one submit waits for a pipe, another succeeds; then the first does too."""
    assert program("db", "upgrade").returncode == 0
    with _begun(program) as slow:
        answer = program("submit", "1", "999999")
        assert (answer.returncode, answer.stderr) == (0, "")
        assert answer.stdout == "submitted 2 new, 0 already tracked\n"
        assert slow.poll() is None
        assert program.query("SELECT count(*) FROM runs") == [(2,)]
        out, err = slow.communicate(timeout=60)
    assert (slow.returncode, err) == (0, "")
    [(tracked,)] = program.query("SELECT count(*) FROM runs")
    assert out == f"submitted {tracked - 2} new, 1 already tracked\n"


def test_a_submit_that_dies_while_reading(program: Program) -> None:
    """A submit that is killed before its end has recorded nothing."""
    assert program("db", "upgrade").returncode == 0
    with _begun(program) as slow:
        slow.kill()
        slow.communicate()
    assert program.query("SELECT count(*) FROM runs") == [(0,)]
    assert program("submit", "1").returncode == 0


MEASURED = """
import resource, sys
from pathlib import Path
from downloader.cli.main import main
try:
    main()
finally:
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone; ru_maxrss is also of what it was forked from
        [peak] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        print(int(peak.split()[1]) * 1024, file=sys.stderr)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def test_a_million_ids(program: Program, tmp_path: Path) -> None:
    """A million ids are tracked without being held in memory."""
    count = 1_000_000
    with (tmp_path / "ids").open("w", encoding="utf-8") as file:
        file.writelines(f"{number}\n" for number in range(1, count + 1))
    with Child(
        [sys.executable, "-c", MEASURED, "submit", "--file", str(tmp_path / "ids")],
        env=program.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (0, f"submitted {count} new, 0 already tracked\n")
    assert int(err) < 120_000_000
    assert program.query("SELECT count(*) FROM runs") == [(count,)]
