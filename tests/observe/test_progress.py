"""The bars, on a real terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from terminal import CTRL_C, Terminal

if TYPE_CHECKING:
    from harness import Program, StartSimulator


def test_bars(program: Program, start_simulator: StartSimulator) -> None:
    """Runs and bytes have a bar each, a long transfer a line, gone when it ends; all fit."""
    simulator = start_simulator(min_size=2_000_000, max_size=2_000_000, bandwidth=250_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([7, 8])
    with Terminal(program, "run", "--drain") as terminal:
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
        assert terminal.lines[-3].startswith("runs : 100%")
        assert terminal.lines[-2].startswith("bytes: 4")
        assert terminal.lines[-1] == "2 saved (4.0 MB), 0 failed"
        assert not any("run 7:" in line for line in terminal.lines[-3:])
    program.assert_saved(simulator, [7, 8])


def test_ctrl_c(program: Program, start_simulator: StartSimulator) -> None:
    """Ctrl-C ends in peace, a second one at once, and what is on the screen stays legible."""
    simulator = start_simulator(min_size=3_000_000, max_size=3_000_000, bandwidth=100_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([7])
    with Terminal(program, "run", "--drain", columns=100) as terminal:
        terminal.wait_for(lambda lines: any("run 7:" in line for line in lines))
        terminal.press(CTRL_C)
        terminal.wait_for(lambda lines: any("service.stopping" in line for line in lines))
        terminal.press(CTRL_C)
        assert terminal.end() == 4
    assert terminal.lines[-2:] == [
        "0 saved (0.0 MB), 0 failed; unfinished runs are left",
        "downloader: stopped early (SIGINT); runs are left.",
    ]
    assert not any("run 7:" in line for line in terminal.lines)
    assert sum(line.startswith("bytes:") for line in terminal.lines) == 1
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
        terminal.wait_for(lambda lines: "hooks=2" in "".join(lines))
        (program.folder / "go").touch()
        assert terminal.end() == 0
    assert "runs=1" in "".join(terminal.lines)
    assert terminal.lines[-1].startswith("3 saved")


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
