from __future__ import annotations

import json
import re
import signal
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from store.driving import Driver, at
from terminal import CTRL_C, Terminal, heed_ctrl_c

from downloader.cli import status as status_module
from downloader.clock import utc_now
from downloader.rules.states import State
from downloader.rules.steps import PollLater
from downloader.store import blocks
from downloader.store.schema import from_text, to_text

if TYPE_CHECKING:
    from cli.calling import Caller
    from harness import Program

NOON = "2026-03-01 12:00:00.000000"


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it be ten minutes past the tests' start."""
    monkeypatch.setattr(status_module, "utc_now", lambda: at(600))


@pytest.mark.usefixtures("at_noon")
def test_status_of_nothing(call: Caller) -> None:
    """An empty database has six states at nought, nothing saved, and nothing blocked."""
    assert call("status", "--json").json == {
        "at": "2026-03-01 12:10:00.000000",
        "runs": {state.value: 0 for state in State},
        "bytes": 0,
        "recent": {"seconds": 0, "runs": 0, "bytes": 0},
        "estimated_end_at": None,
        "blocked": None,
        "unfinished_errors": [],
        "last_failures": [],
        "oldest_unfinished_at": None,
        "database": str(call.database),
    }
    answer = call("status")
    assert (answer.code, answer.err) == (0, "")
    assert [line.split() for line in answer.out.splitlines()] == [
        ["pending", "0"],
        ["ready", "0"],
        ["downloading", "0"],
        ["done", "0", "0", "bytes"],
        ["failed", "0"],
        ["cancelled", "0"],
        ["database:", str(call.database)],
    ]


@pytest.mark.usefixtures("at_noon")
def test_status(call: Caller, driver: Driver) -> None:
    """The status counts runs by state, tells of the oldest unfinished, and what is blocked."""
    driver.done(7, size=2_500_000)
    driver.one_of_each_state()
    blocks.block(
        driver.database, "api", "key_refused", "No.", now=at(0), pause_seconds=lambda _: 660
    )
    found = call("status", "--json").json
    assert found["runs"] == {state.value: 1 for state in State} | {"done": 2}
    assert (found["bytes"], found["oldest_unfinished_at"]) == (2_501_000, NOON)
    assert found["blocked"] == {
        "reason": "key_refused",
        "message": "No.",
        "since": NOON,
        "until": "2026-03-01 12:11:00.000000",
    }
    assert found["estimated_end_at"] is None
    [failure] = found["last_failures"]
    assert (failure["error_code"], failure["failed_at"]) == ("provider_failed", NOON)
    text = call("status").out
    assert "2.5 MB" in text
    assert f"the oldest unfinished was submitted {NOON} UTC, 10 min ago" in text
    assert (
        f"BLOCKED (key_refused) since {NOON}, next try in 1 min, at 2026-03-01 12:11:00.000000 "
        "UTC: No." in text
    )
    assert re.search(r"failed last:\n  \d+, 10 min ago: Out of credit \(provider_failed\)\n", text)


def test_estimate_of_the_end(call: Caller, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status says how fast runs are saved, and expects the end when the view `eta` does."""
    driver.submit(*range(100, 180))
    assert "no estimate of the end: too little was saved within the last hour" in call("status").out
    driver.done(*range(1, 42), seconds=400, size=3_000_000)
    now = utc_now()
    monkeypatch.setattr(status_module, "utc_now", lambda: now)
    with closing(sqlite3.connect(call.database)) as raw:
        raw.execute(
            "UPDATE runs SET done_at = ? WHERE state = 'done'",
            (to_text(now - timedelta(seconds=200)),),
        )
        raw.commit()
        found = call("status", "--json").json
        [(expected_at,)] = raw.execute("SELECT expected_at FROM eta")
    assert found["recent"] == {"seconds": 200, "runs": 41, "bytes": 123_000_000}
    # 80 runs at 40 in 200 seconds, and what has passed since `now`.
    ends_at = from_text(found["estimated_end_at"])
    assert 400 <= (ends_at - now).total_seconds() < 500
    assert abs((from_text(expected_at) - ends_at).total_seconds()) < 60
    text = call("status").out
    assert (
        "in the last 3 min 20 s: 41 saved, 123.0 MB; 12.0 files a minute, 600.0 kB a second\n"
        in text
    )
    assert re.search(r"\nall saved in \d+ min.* if it goes on so, at 20\S+ \d\d:\d\d UTC\n", text)


def test_what_unfinished_runs_have_met(call: Caller, driver: Driver) -> None:
    """The status says what stands in the way of unfinished runs: how many, and why the last."""
    driver.submit(*range(1, 8))
    driver.poll(*range(1, 4), step=PollLater(at(2), None, "unavailable", "It answers 503."))
    driver.poll(4, step=PollLater(at(2), None, "unavailable", "It answers 502."), seconds=1)
    driver.poll(5, step=PollLater(at(2), None, "throttled", "It answers 429."))
    driver.failed(9)
    found = call("status", "--json").json
    assert found["unfinished_errors"] == [
        {"error_code": "unavailable", "runs": 4, "error_message": "It answers 502."},
        {"error_code": "throttled", "runs": 1, "error_message": "It answers 429."},
    ]
    assert (
        "\nunfinished runs have met:\n"
        "  4 runs: It answers 502. (unavailable)\n"
        "  1 run: It answers 429. (throttled)\n" in call("status").out
    )


def test_no_estimate_while_it_is_blocked(call: Caller, driver: Driver) -> None:
    """What is blocked comes first, and then nobody says when all will be saved."""
    driver.submit(*range(100, 180))
    blocks.block(driver.database, "api", "key_refused", "No.", now=at(0), pause_seconds=lambda _: 9)
    lines = call("status").out.splitlines()
    assert lines[6].startswith("BLOCKED (key_refused)")
    assert not any("estimate" in line or "if it goes on so" in line for line in lines[:-1])


def test_no_estimate_while_nothing_answers(call: Caller, driver: Driver) -> None:
    """Where all that is left has met an API or storage that is down, no pace of before counts."""
    estimate = "no estimate of the end"
    driver.submit(*range(1, 4))
    for run_id, code in ((1, "api_unreachable"), (2, "storage_unreachable")):
        driver.poll(run_id, step=PollLater(at(2), None, code, "Nobody there."))
    assert estimate in call("status").out  # of the third nothing is known
    driver.poll(3, step=PollLater(at(2), None, "unavailable", "It answers 503."))
    assert estimate not in call("status").out


def test_watch_on_a_terminal(program: Program) -> None:
    """`--watch` shows changes in place, fits the window, and ends in peace on Ctrl-C."""
    program.submit(range(1, 4))
    with Terminal(program, "status", "--watch", "0.1") as terminal:
        terminal.wait_for(lambda lines: "pending                3" in lines)
        program.submit(range(4, 10))
        no_estimate = "no estimate of the end: too little was saved within the last hour"
        lines = terminal.wait_for(
            lambda lines: {"pending                9", no_estimate} <= set(lines)
        )
        assert sum(line.startswith("pending") for line in lines) == 1
        terminal.resize(40)
        lines = terminal.wait_for(lambda lines: "no estimate of the end: too little was" in lines)
        assert max(map(len, lines)) <= 40
        terminal.press(CTRL_C)
        assert terminal.end() == 0
    assert b"Traceback" not in terminal.written


def test_watch_in_a_pipe(program: Program) -> None:
    """Off a terminal `--watch` prints one report after another, or one JSON object a line."""
    program.submit([1])
    with program.start("status", "--watch", "0.1", preexec_fn=heed_ctrl_c) as process:
        assert process.stdout is not None
        reports: list[list[str]] = [[]]
        while len(reports) < 3:
            line = process.stdout.readline().rstrip("\n")
            if line:
                reports[-1].append(line)
            else:
                reports.append([])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert all(re.fullmatch(r"\d{4}-.{21} UTC", report[0]) for report in reports[:2])
    assert reports[0][1:6] == reports[1][1:6]
    with program.start("status", "--json", "--watch", "0.1") as process:
        assert process.stdout is not None
        found = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdout.close()  # a reader that has seen enough
        assert process.wait(60) == 0
    assert found[0]["at"] < found[1]["at"] < found[2]["at"]


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["colours", "NO_COLOR", "dumb"],
)
def test_colours(
    program: Program, driver: Driver, environment: dict[str, str], *, coloured: bool
) -> None:
    """What failed is red on a terminal that has colours, unless NO_COLOR says no."""
    driver.failed(1, message="The reason is a long one, in so many words, that no line holds it.")
    program.env |= environment
    with Terminal(program, "status") as terminal:
        assert terminal.end() == 0
    assert (b"\x1b[" in terminal.written) is coloured
    assert max(map(len, terminal.lines)) <= 80
    assert "holds it. (provider_failed)" in " ".join(line.strip() for line in terminal.lines)


@pytest.mark.parametrize("interval", ["0", "0.05", "x", "-1"])
def test_intervals(call: Caller, interval: str) -> None:
    """An interval that is none, or too short, ends in 2."""
    assert call("status", f"--watch={interval}").code == 2
