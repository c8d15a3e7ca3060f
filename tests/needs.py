"""What only some machines have, and which tests need it: told before anything is started.

A test that needs more than Python, a shell and the tools in `ORDINARY` is marked with it,
`@pytest.mark.needs("zsh", "mount")`. Where it is missing the test is skipped, but fails in CI,
which installs it. A test without the mark sees nothing on its PATH but what is ordinary, on every
machine: so one that lacks the mark fails where it is written, not where a tool is missing.
`pytest -m needs` selects the marked ones; `python -m needs FOLDER` fills a folder that serves as
the PATH of a machine that has none of it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

ORDINARY: Final = (
    *("bash", "sh", "env", "nohup", "cat", "chmod", "cp", "cut", "date", "dd", "dirname", "echo"),
    *("false", "grep", "head", "id", "ln", "ls", "mkdir", "mktemp", "mv", "printf", "pwd", "rm"),
    *("rmdir", "sed", "seq", "sha256sum", "sleep", "sort", "stat", "stty", "tail", "tee", "test"),
    *("touch", "tr", "true", "tty", "uname", "wc", "yes"),
)
"""Bash, and what POSIX or GNU's coreutils have: on the smallest machine with Python."""

_EVERYTHING: Final = os.environ.get("PATH", os.defpath)
# What can be there and yet be forbidden, as in a container: tried, once.
_TRIALS: Final = {
    "strace": ["strace", "-o", os.devnull, "true"],
    "unshare": ["unshare", "--mount", "true"],
}


@functools.cache
def missing(name: str) -> str:
    """Return why something that a test needs cannot be had here; empty where it can."""
    if name == "root":
        return "" if os.geteuid() == 0 else "this is not root"
    if name == "unprivileged":  # root becomes another
        return missing("setpriv") if os.geteuid() == 0 else ""
    if name == "linux":
        return "" if sys.platform == "linux" else "this is not Linux"
    if shutil.which(name, path=_EVERYTHING) is None:
        return f"{name} is not installed"
    if name == "mount":
        return _not_mounted()
    return _tried(_TRIALS[name]) if name in _TRIALS else ""


def _tried(command: list[str]) -> str:
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": _EVERYTHING},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else f"{command[0]} cannot be used: {done.stderr.strip()}"


def _not_mounted() -> str:
    with tempfile.TemporaryDirectory() as folder:
        if why := _tried(["mount", "-t", "tmpfs", "tmpfs", folder]):
            return why
        return _tried(["umount", folder])


@functools.cache
def bare(folder: Path) -> str:
    """Fill a folder with links to what every machine has; return a PATH of that alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ORDINARY:
        if found := shutil.which(name, path=_EVERYTHING):
            (folder / name).symlink_to(found)
    for name in ("python3", Path(sys.executable).resolve().name):
        if not (folder / name).exists():
            (folder / name).symlink_to(Path(sys.executable).resolve())
    return str(folder)


def prepare(item: pytest.Item, folder: Path) -> None:
    """Decide whether a test can be run here, and set the PATH that it may count on."""
    wanted = [str(name) for mark in item.iter_markers("needs") for name in mark.args]
    os.environ["PATH"] = _EVERYTHING if wanted else bare(folder)
    why = next(filter(None, map(missing, wanted)), "")
    if why and os.environ.get("CI") and sys.platform == "linux":
        pytest.fail(f"{why}: see .ci/run", pytrace=False)
    if why:
        pytest.skip(why)


def needed(name: str) -> str:
    """Return the path of a program that the test which is running has said that it needs."""
    found = shutil.which(name)
    assert found, f"mark what uses it with @pytest.mark.needs({name!r})"
    return found


if __name__ == "__main__":
    bare(Path(sys.argv[1]))
