"""The tests themselves, on a machine that has less: nothing fails, hangs or is left running."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import needs
import psutil
import pytest
from children import Child, children, end
from pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAITING: Final = [sys.executable, "-c", "import sys; print('there', flush=True); sys.stdin.read()"]
LEAVING: Final = f"""
import subprocess
def test_leaving():
    subprocess.Popen({[sys.executable, "-c", "import time; time.sleep(600)"]})
"""
ORPHANING: Final = """
import subprocess
def test_orphaning():
    subprocess.run(["sh", "-c", "sleep 600 >&- 2>&- & echo $! > PID"], check=True)
"""
SKIPPING: Final = """
import pytest
@pytest.fixture
def started():
    raise AssertionError("something was started")
@pytest.mark.needs("no-such-tool")
def test_skipping(started): ...
"""


def fail() -> None:
    """Leave a test as a failed assertion does."""
    raise AssertionError


@pytest.mark.parametrize("leave", [fail, pytest.skip, pytest.fail])
def test_a_block_that_is_left_early(leave: Callable[[], None]) -> None:
    """However its block is left, a child that would wait for ever is ended and waited for."""
    others = children()  # what tests of a whole session share
    with (  # noqa: PT012 - how it is left is what is tested
        pytest.raises((AssertionError, pytest.skip.Exception, pytest.fail.Exception)),
        Child(WAITING, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
        leave()
    assert child.returncode == -9
    assert children() == others


def test_what_is_left_is_ended() -> None:
    """A child that nobody has ended is, with the test that it is from."""
    others = children()
    child = Child(WAITING, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    [told] = end(children() - others)
    assert str(child.pid) in told
    assert "test_what_is_left_is_ended" in told
    assert (child.returncode, children()) == (-9, others)


def inner(folder: Path, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a test of this text, by the rules of this suite, with what a bare machine has."""
    (folder / "test_inner.py").write_text(text, encoding="utf-8")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "conftest", "--numprocesses=0"),
            *("--rootdir", str(folder), "-c", str(ROOT / "pyproject.toml"), "test_inner.py"),
        ],
        env={name: value for name, value in os.environ.items() if name != "CI"}
        | {"PYTHONPATH": str(ROOT / "tests"), "PATH": needs.bare(folder / "bare")}
        | env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_tool_that_is_missing(tmp_path: Path) -> None:
    """Where a tool is missing a test is skipped before anything is set up; in CI it fails."""
    done = inner(tmp_path, SKIPPING)
    assert (done.returncode, "1 skipped" in done.stdout) == (0, True), done.stdout
    assert "no-such-tool is not installed" in done.stdout


@pytest.mark.needs("linux")
def test_a_tool_that_is_missing_in_ci(tmp_path: Path) -> None:
    """CI installs what the tests need: there a missing tool is a failure."""
    done = inner(tmp_path, SKIPPING, CI="true")
    assert (done.returncode, "no-such-tool is not installed" in done.stdout) == (1, True)
    assert "something was started" not in done.stdout


def test_a_child_that_is_left(tmp_path: Path) -> None:
    """A test that leaves a child fails, by its own name, and the child is ended."""
    done = inner(tmp_path, LEAVING)
    assert done.returncode == 1
    assert "has left a process" in done.stdout
    assert "test_inner.py::test_leaving" in done.stdout


def test_a_process_without_parent_that_is_left(tmp_path: Path) -> None:
    """A process whose parent has ended is found at the end: it is ended, and the run fails."""
    done = inner(tmp_path, ORPHANING)
    assert (done.returncode, "1 passed" in done.stdout) == (1, True), done.stdout
    assert "left over from the tests" in done.stdout
    assert "test_inner.py::test_orphaning" in done.stdout
    assert not psutil.pid_exists(int((tmp_path / "PID").read_text(encoding="utf-8")))
