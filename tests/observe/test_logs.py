"""What is logged: the events that docs/logs.md lists, as text or JSON, with what they are of."""

from __future__ import annotations

import ast
import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import wait_until

from downloader.observe.words import _SENTENCES, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Program, StartSimulator

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error"}
NAMED_ELSEWHERE = {
    "library.warning",
    *(f"hook.{how}" for how in ("done", "failed", "timeout", "interrupted")),
}
"""Events whose name or level is no constant where they are told."""

COMMON = {"run_id", "run_ids", "run_type", "attempt", "seconds", "batch"}


def told() -> Iterator[tuple[str, str, set[str]]]:
    """Yield the events of the source: name, level, and the fields that are named there."""
    for path in (ROOT / "downloader").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in {"_log", "log"}
            ):
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{path}: an event without a name of its own"
                fields = {one.arg for one in node.keywords if one.arg is not None}
                yield str(name.value), node.func.attr, fields


def listed() -> dict[str, tuple[set[str], set[str]]]:
    """Return the events of the page: levels, and fields."""
    page = (ROOT / "docs/logs.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| ([\w, ]+) \| .+ \|([^|]*)\|$", page, re.MULTILINE)
    return {
        name: (set(levels.split(", ")), set(re.findall(r"`(\w+)`", fields)))
        for name, levels, fields in rows
    }


def test_the_page_lists_every_event() -> None:
    """Each event of the source is on the page with its level and fields, and no other is."""
    page, found = listed(), list(told())
    assert len(found) > 25
    assert {name for name, _, _ in found} | NAMED_ELSEWHERE == set(page)
    for name, level, fields in found:
        levels, documented = page[name]
        assert level in levels, name
        assert fields - COMMON <= documented, name


def lines(text: str) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines(program: Program, start_simulator: StartSimulator) -> None:
    """With --log-format json each line is an object that says what it is of; the last sums up."""
    fault = {"kind": "status", "status": 500}
    simulator = start_simulator(
        rules=[{"runs": [2], "where": "storage", "times": 1, "fault": fault}]
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 6))
    done = program("run", "--drain", "-vv", "--log-format", "json")
    assert (done.returncode, done.stdout[:9]) == (0, "5 saved (")
    found = lines(done.stderr)
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in found)
    assert all(line["timestamp"].endswith("Z") for line in found)
    assert {line["event"] for line in found} <= set(listed())
    # Whether others were served meanwhile tells whose fault it is: only the run's own is charged.
    ends = {"run.attempt_failed", "run.held_up"}
    [failed] = [line for line in found if line["event"] in ends]
    charged = int(failed["event"] == "run.attempt_failed")
    assert (failed["run_id"], failed["attempt"], failed["error_code"]) == (2, 1, "storage_error")
    attempts = {line["run_id"]: line["attempt"] for line in found if line["event"] == "run.done"}
    assert attempts == {1: 1, 2: 1 + charged, 3: 1, 4: 1, 5: 1}
    asked = next(line for line in found if line["event"] == "api.answered")
    assert sorted(asked["run_ids"]) == [1, 2, 3, 4, 5]
    assert (asked["outcome"], asked["run_type"]) == ("answered", "text-to-sound")
    assert re.fullmatch(r"\S+:\d+:\w+:\d+", asked["batch"])
    assert all(line["seconds"] >= 0 for line in found if "seconds" in line)
    assert (found[0]["event"], found[-1]["event"]) == ("service.started", "service.ended")
    assert (found[-1]["done"], found[-1]["retried"], found[-1]["work_left"]) == (5, charged, False)


def test_a_daemon_without_a_terminal(program: Program, start_simulator: StartSimulator) -> None:
    """A daemon's log is JSON lines, from its start to its end."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([1])
    with program.start("run") as process:
        wait_until(lambda: program.status()["runs"]["done"] == 1, process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    events = [line["event"] for line in lines(err)]
    assert events[0] == "service.started"
    assert {"run.done", "service.stopping"} < set(events)
    assert events[-1] == "service.ended"


@pytest.mark.parametrize("arguments", [["-v"], ["--log-format", "text", "-v"]])
def test_text(program: Program, start_simulator: StartSimulator, arguments: list[str]) -> None:
    """What a person reads is one line an event, and what --once says in a pipe is for a person."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([1])
    done = program("run", "--once", *arguments)
    assert re.search(r"^\S+Z \[info +\] run\.done +run_id=1 ", done.stderr, re.MULTILINE)
    assert "service.ended" in done.stderr.splitlines()[-1]


def test_words_for_eyes() -> None:
    """What a person reads in place of fields is of events that are documented."""
    assert set(_SENTENCES) <= set(listed())
    said = in_words({"event": "run.failed", "run_id": 7, "batch": "a:1", "message": "No such run."})
    assert said == "7 failed: No such run."
    assert in_words({"event": "storage.away", "message": "It waits.", "host": "a"}) == "It waits."
    assert in_words({"event": "unheard.of", "host": "a"}) is None


def test_silence(program: Program, start_simulator: StartSimulator) -> None:
    """Nothing is said by a call that goes well, nor by a quiet daemon."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([1, 2])
    done = program("run", "--once", "--log-format", "json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    program.submit([3])
    with program.start("run", "--quiet") as process:
        wait_until(lambda: program.status()["runs"]["done"] == 3, process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert [line["event"] for line in lines(err)] == ["service.stopping"]
