"""`--prune-events-after`, with the real program."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from typing import TYPE_CHECKING

from harness import wait_until

if TYPE_CHECKING:
    from harness import Program, StartSimulator


def _reasons(program: Program) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for run_id, reason in program.query("SELECT run_id, reason FROM run_events ORDER BY event_id"):
        found.setdefault(run_id, []).append(reason)
    return found


def _saved_long_ago(program: Program, simulator_url: str) -> None:
    """Save runs 1 to 20, leave 21 pending, and have it all been two days ago."""
    program.env["DOWNLOADER_API_URL"] = simulator_url
    program.submit(range(1, 22))
    assert program("run", "--once").returncode == 0
    with contextlib.closing(sqlite3.connect(program.database)) as raw:
        raw.execute(
            "UPDATE run_events SET at = strftime('%Y-%m-%d %H:%M:%f000', julianday(at) - 2)"
        )
        raw.commit()


SLOW = {"runs": [21], "where": "api", "fault": {"kind": "word", "word": "PENDING"}}


def test_once_prunes_at_its_end(program: Program, start_simulator: StartSimulator) -> None:
    """`--once` deletes old history of what is finished, and nothing where it is not told to."""
    simulator = start_simulator(rules=[SLOW])
    _saved_long_ago(program, simulator.api_url)
    before = _reasons(program)
    runs = program.query("SELECT * FROM runs WHERE state = 'done'")
    assert before[1][:2] == ["submitted", "url_received"]
    old = sum(len(before[run_id]) - 1 for run_id in range(1, 21))
    assert program("run", "--once").returncode == 0
    assert program("run", "--once", "--prune-events-after", "3d").returncode == 0
    assert _reasons(program) == before
    done = program("run", "--once", "--prune-events-after", "1d", "-v")
    assert done.returncode == 0
    assert "events.pruned" in done.stderr
    assert f"events={old}" in done.stderr
    assert _reasons(program) == {run_id: ["published"] for run_id in range(1, 21)} | {
        21: ["submitted"]
    }
    assert program.query("SELECT * FROM runs WHERE state = 'done'") == runs
    quiet = program("run", "--once", "--prune-events-after", "1d")
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_a_daemon_prunes_while_it_saves(program: Program, start_simulator: StartSimulator) -> None:
    """A daemon deletes old history beside its work, and keeps what it has just written."""
    simulator = start_simulator(rules=[SLOW])
    _saved_long_ago(program, simulator.api_url)
    program.submit(range(100, 120))
    with program.start("run", "--prune-events-after", "1d", "--min-poll", "0.05") as process:
        wait_until(
            lambda: (
                program.query("SELECT count(*) FROM runs WHERE state = 'done'") == [(40,)]
                and len(_reasons(program)[20]) == 1
            ),
            process,
        )
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    found = _reasons(program)
    assert [found[run_id] for run_id in range(1, 21)] == [["published"]] * 20
    assert all(found[run_id][:2] == ["submitted", "url_received"] for run_id in range(100, 120))
    assert found[21] == ["submitted"]
