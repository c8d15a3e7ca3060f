from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness import Program, StartSimulator


def assert_refused(program: Program, *arguments: str) -> str:
    """Assert that a run is refused in one line before anything is done; return the line."""
    done = program("run", "--once", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert not program.database.exists()
    assert not program.output.exists()
    return done.stderr


def test_a_port_that_is_taken(program: Program) -> None:
    """A port that somebody else has ends the call at the start, and is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = assert_refused(program, "--metrics-port", str(port))
    assert f"port {port} of 127.0.0.1: Address already in use" in said
    assert "--metrics-port" in said


@pytest.mark.parametrize("host", ["nobody.invalid", "a b", "192.0.2.1", "x" * 300, "..", "[::1"])
def test_a_host_that_is_not_of_this_machine(program: Program, host: str) -> None:
    """A host that cannot be bound to is refused in words."""
    said = assert_refused(program, "--metrics-port", "0", "--metrics-host", host)
    assert "--metrics-host" in said


@pytest.mark.parametrize("kind", ["device", "link", "pipe"])
def test_something_else_than_a_file(program: Program, kind: str) -> None:
    """A device, a link or a pipe is not replaced by a file of metrics."""
    path = program.folder / "metrics.prom"
    if kind == "device":
        path = Path("/dev/null")
    elif kind == "link":
        path.symlink_to(program.folder / "elsewhere")
    else:
        os.mkfifo(path)
    said = assert_refused(program, "--metrics-textfile", str(path))
    assert str(path) in said
    assert "something else than a file" in said
    assert not path.is_file()


def test_a_folder_in_its_place(program: Program) -> None:
    """A folder is a usage error."""
    done = program("run", "--once", "--metrics-textfile", str(program.folder))
    assert done.returncode == 2
    assert "is a directory" in done.stderr


# What `main` would do, and then what it has imported; or with a library that is not there.
CALL = """
import sys
{before}
from downloader.cli.main import main
try:
    main()
finally:
    print(*sorted(name for name in sys.modules if name.startswith("prometheus_client")))
"""


def call(program: Program, before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the program in an interpreter that has been prepared."""
    return subprocess.run(
        [sys.executable, "-c", CALL.format(before=before), *arguments],
        env=program.environment(),
        cwd=program.folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("asked", [("--metrics-port", "0"), ("--metrics-textfile", "m.prom")])
def test_without_prometheus_client(program: Program, asked: tuple[str, str]) -> None:
    """Metrics that are asked for where the library is missing name the package to install."""
    done = call(program, "sys.modules['prometheus_client'] = None", "run", "--once", *asked)
    assert done.returncode == 2
    assert done.stderr == (
        f"downloader: {asked[0]} needs prometheus-client, and it is not installed: "
        "pip install prometheus-client.\n"
    )


def test_who_asks_for_no_metrics_loads_none(
    program: Program, start_simulator: StartSimulator
) -> None:
    """Without the options the library is not imported, and need not be there."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    program.submit([1, 2])
    done = call(program, "", "run", "--drain", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    done = call(program, "sys.modules['prometheus_client'] = None", "run", "--once")
    assert (done.returncode, done.stderr) == (0, "")
