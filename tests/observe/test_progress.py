"""The bars, on a real terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from terminal import CTRL_C, Terminal

from downloader.observe.progress import meter

if TYPE_CHECKING:
    from harness import Program, StartSimulator


@pytest.mark.parametrize(
    ("done", "total", "percent"),
    [
        (0, 30_000, 0),
        (1, 30_000, 1),
        (200, 30_000, 1),
        (15_000, 30_000, 50),
        (29_999, 30_000, 99),
        (30_000, 30_000, 100),
        (0.999, 1.0, 99),
    ],
)
@pytest.mark.parametrize("bar_format", [None, "{l_bar}{bar}| {n_fmt}"])
def test_percentages_are_rounded_down(
    done: float, total: float, percent: int, bar_format: str | None
) -> None:
    """A bar says 100 % when all is done, and 0 % as long as nothing is, and at no other time."""
    line = meter(done, total, 1.0, prefix="runs", bar_format=bar_format)
    assert line.startswith(f"runs: {percent:3d}%|")


@pytest.mark.parametrize("total", [None, 5])
def test_a_total_that_is_not_known(total: int | None) -> None:
    """Where there is more than was expected, or nothing was, no percentage is made up."""
    assert "%" not in meter(7, total, 1.0, prefix="run 7", unit="B")


def test_bars(program: Program, start_simulator: StartSimulator) -> None:
    """Runs and bytes have a bar each, a long transfer a line, gone when it ends; all fit."""
    simulator = start_simulator(min_size=2_000_000, max_size=2_000_000, bandwidth=250_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([7, 8])
    with Terminal(program, "run", "--drain", columns=160) as terminal:
        lines = terminal.wait_for(lambda lines: any("run 7:" in line for line in lines))
        assert re.match(r"runs :   0%\|.*\| 0/2 \[.*2 of \d+ transferring\]", lines[0])
        size = r"[\d.]+[kM]?"
        assert re.match(rf"bytes: {size} of about 4\.\d+M \[00:\d\d<00:\d\d, {size}B/s\]", lines[1])
        assert re.match(rf"  run [78]: +\d\d%\|.*\| {size}/2\.\d+M \[.*, 2\d\dkB/s\]", lines[2])
        terminal.resize(60)
        narrow = terminal.wait_for(
            lambda lines: any(
                re.match(r"  run [78]:.*B/s?", line) and len(line) < 60 for line in lines[-1:]
            )
        )
        assert max(map(len, narrow)) <= 60
        assert terminal.end() == 0
        runs, received, *last = terminal.lines
        assert re.fullmatch(r"runs : 100%\|.*\| 2/2 \[\d\d:\d\d\]", runs)
        assert re.fullmatch(rf"bytes: 4\.\d+M \[\d\d:\d\d, {size}B/s\]", received)
        said = f"2 saved (4.0 MB) in {program.output}, 0 failed"
        assert "".join(last).replace(" ", "") == said.replace(" ", "")
    program.assert_saved(simulator, [7, 8])


def test_ctrl_c(program: Program, start_simulator: StartSimulator) -> None:
    """Ctrl-C ends in peace, a second one at once, and what is on the screen stays legible."""
    simulator = start_simulator(min_size=3_000_000, max_size=3_000_000, bandwidth=100_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([7])
    with Terminal(program, "run", "--drain", columns=110) as terminal:
        terminal.wait_for(lambda lines: any("run 7:" in line for line in lines))
        terminal.press(CTRL_C)
        lines = terminal.wait_for(lambda lines: any("may end" in line for line in lines))
        assert lines[0] == "1 transfer may end, at most 30 s; Ctrl-C again cuts them off"
        terminal.press(CTRL_C)
        assert terminal.end() == 4
    first, second, runs, received, *last = terminal.lines
    assert first.startswith("1 transfer may end")
    assert second == "what was running is cut off"
    assert re.fullmatch(r"runs :   0%\|.*\| 0/1 \[\d\d:\d\d\]", runs)
    assert re.fullmatch(r"bytes: \d+\.?\d*k \[\d\d:\d\d, [\d.]+kB/s\]", received)
    assert " ".join(last) == (
        "0 saved, 0 failed downloader: stopped early (SIGINT), 1 run is left; "
        "`downloader run --drain` continues with it."
    )
    assert b"Traceback" not in terminal.written


def test_hooks_that_are_waited_for(program: Program, start_simulator: StartSimulator) -> None:
    """The bar says how many hooks are left, and Ctrl-C that they may end; all of it fits."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([7, 8, 9])
    hook = "sh -c 'while [ ! -e go ]; do sleep 0.05; done'"
    with Terminal(program, "run", "--drain", "--on-done", hook) as terminal:
        lines = terminal.wait_for(lambda lines: any("3 hooks left" in line for line in lines))
        assert max(map(len, lines)) <= 80
        terminal.press(CTRL_C)
        terminal.wait_for(lambda lines: "2 hooks may end" in "".join(lines))
        (program.folder / "go").touch()
        assert terminal.end() == 0
    assert "1 hooks were not run; " in "".join(terminal.lines)
    assert any(line.startswith("3 saved") for line in terminal.lines)


def test_quiet(program: Program, start_simulator: StartSimulator) -> None:
    """With --quiet a terminal shows what goes wrong and nothing else."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([7, 8])
    with Terminal(program, "run", "--drain", "--quiet") as terminal:
        assert terminal.end() == 0
    assert terminal.written == b""
    program.assert_saved(simulator, [7, 8])
    program.env["CAMB_API_KEY"] = ""
    with Terminal(program, "run", "--drain", "-q") as terminal:
        assert terminal.end() == 2
    assert "CAMB_API_KEY" in " ".join(terminal.lines)


def test_quiet_and_verbose(program: Program) -> None:
    """--quiet and --verbose exclude each other."""
    done = program("run", "--once", "-q", "-v")
    assert done.returncode == 2
    assert "--quiet and --verbose exclude each other" in done.stderr


def test_what_is_waited_for(program: Program, start_simulator: StartSimulator) -> None:
    """Failures are told in words above whole bars, and are no progress; waits are told."""
    fault = {"kind": "word", "word": "ERROR", "reason": "The prompt was " + "rejected and " * 9}
    simulator = start_simulator(
        finish_after=3600, rules=[{"runs": [7, 8], "where": "api", "fault": fault}]
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(7, 13))
    with Terminal(program, "run", "--drain") as terminal:
        lines = terminal.wait_for(
            lambda lines: any("2 failed" in line for line in lines) and "asked again" in lines[-1]
        )
        assert re.fullmatch(
            r"4 not finished at the provider, asked again (in \d+ s|now)", lines[-1]
        )
        assert re.fullmatch(r"runs :   0%\|.*\| 0/4 \[\d\d:\d\d, 2 failed\]", lines[-2])
        above = " ".join(line.strip() for line in lines[:-2])
        words = "failed: The service says: ERROR: The prompt was " + "rejected and " * 9
        assert above.split() == f"7 {words} 8 {words}".split()
        simulator.set_rules(
            [{"runs": "1-99", "where": "api", "fault": {"kind": "status", "status": 503}}]
        )
        terminal.wait_for(lambda lines: "the API is asked again" in lines[-1])
        terminal.press(CTRL_C)
        assert terminal.end() == 4
    assert not any("asked again" in line for line in terminal.lines)
    assert "4 runs are left" in " ".join(terminal.lines)


def test_nothing_to_do(program: Program, start_simulator: StartSimulator) -> None:
    """Where nothing is to be done there are no bars, but a line of how it stands."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    program.submit([7])
    assert program("run", "--drain").returncode == 0
    with Terminal(program, "run", "--drain") as terminal:
        assert terminal.end() == 0
    assert terminal.lines == ["nothing to do: 1 saved, 0 failed"]
