"""Lines for systemd's journal: each has its priority there, and nowhere else."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest
from harness import wait_until

if TYPE_CHECKING:
    from harness import Program, StartSimulator

PRIORITIES = {"error": 3, "warning": 4, "info": 6, "debug": 7}


def run_into_pipe(program: Program, *arguments: str, named: bool = True) -> list[str]:
    """Run the program, its standard error a pipe that JOURNAL_STREAM names; return the lines."""
    reading, writing = os.pipe()
    found = os.fstat(writing)
    program.env["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino + (0 if named else 1)}"
    with program.start(*arguments, stderr=writing) as process, os.fdopen(reading, "rb") as end:
        os.close(writing)
        text = end.read().decode()
        process.communicate()
    return text.splitlines()


def test_each_line_has_its_priority(program: Program, start_simulator: StartSimulator) -> None:
    """Every level has its number, before JSON too; the last word of a call has that of an error."""
    fault = {"kind": "word", "word": "ERROR"}
    simulator = start_simulator(rules=[{"runs": [2], "where": "api", "fault": fault}])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([1, 2])
    *lines, remedy, last = run_into_pipe(program, "run", "--once", "-vv", "--log-format", "json")
    levels = set()
    for line in lines:
        level = json.loads(line[3:])["level"]
        assert line.startswith(f"<{PRIORITIES[level]}>{{"), line
        levels.add(level)
    assert levels >= {"info", "debug"}
    assert remedy.startswith("<3>provider_failed (1): ")
    assert last.startswith("<3>downloader: 1 run failed")


def test_each_line_of_a_usage_error(program: Program) -> None:
    """A message of several lines has the priority before each."""
    lines = run_into_pipe(program, "run", "--concurrency", "many")
    assert len(lines) > 1
    assert all(line.startswith("<3>") for line in lines)


def test_another_stream(program: Program) -> None:
    """Where the variable names another stream, as in a service's child, lines stay as they are."""
    program.submit([1])
    lines = run_into_pipe(program, "run", "--concurrency", "many", named=False)
    assert lines
    assert not any(re.match("<[0-9]>", line) for line in lines)


@pytest.mark.parametrize(("verbose", "tells"), [(0, False), (1, False), (2, True)])
def test_what_a_daemon_tells(
    program: Program, start_simulator: StartSimulator, verbose: int, *, tells: bool
) -> None:
    """A daemon tells what is done, with -v no more, and everything with -vv."""
    program.env |= {"DOWNLOADER_API_URL": start_simulator().api_url}
    program.env["DOWNLOADER_VERBOSE"] = str(verbose)
    program.submit([1])
    with (program.folder / "log").open("w+") as log:
        with program.start("run", stderr=log) as process:
            done = program.folder / "log"
            wait_until(lambda: "run.done" in done.read_text("utf-8"), process)
            process.terminate()
            process.communicate()
        text = done.read_text("utf-8")
    assert '"level": "info"' in text
    assert ('"level": "debug"' in text) == tells
