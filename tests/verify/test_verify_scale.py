from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from verify.verify_rig import LONG_AGO, TYPE

if TYPE_CHECKING:
    from pathlib import Path

    from verify.verify_rig import Rig

MB: Final = 1_000_000
TINY: Final = b"RIFF"
MANY: Final = 30_000


def _peak_bytes(rig: Rig, *options: str) -> int:
    """Verify, its findings thrown away; return the most memory that it had."""
    process = rig.program.start("verify", *options, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    with process:
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode in (0, 1)
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _fill(rig: Rig, runs: range) -> None:
    """Record runs as done; every second one has its file, every tenth has one and no row."""
    digest = hashlib.sha256(TINY).hexdigest()
    with contextlib.closing(sqlite3.connect(rig.program.database)) as raw, raw:
        raw.executemany(
            "INSERT INTO runs (run_type, run_id, state, location, bytes, sha256, audio_format,"
            " submitted_at, done_at, updated_at) VALUES (?, ?, 'done', ?, 4, ?, 'wav', ?, ?, ?)",
            (
                (TYPE, run_id, str(rig.path(run_id)), digest, *[LONG_AGO] * 3)
                for run_id in runs
                if run_id % 10 != 2
            ),
        )
    for run_id in runs:
        if run_id % 2 == 0:
            _write(rig.path(run_id))


def _write(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, TINY)
    os.close(descriptor)


def test_memory_does_not_grow_with_the_runs(rig: Rig) -> None:
    """30,000 runs, files, losses and orphans are gone through in the memory of 1,000."""
    _fill(rig, range(1, 1_001))
    few = [_peak_bytes(rig), _peak_bytes(rig, "--quick")]
    _fill(rig, range(1_001, MANY + 1))
    many = [_peak_bytes(rig), _peak_bytes(rig, "--quick"), _peak_bytes(rig, "--repair")]
    assert max(many) - min(few) < 8 * MB, (few, many)
    counted = dict(rig.program.query("SELECT state, count(*) FROM runs GROUP BY state"))
    assert counted == {"done": MANY * 4 // 10, "pending": MANY // 2}
