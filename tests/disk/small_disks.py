"""Real small file systems, where this user may mount them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Program


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a tmpfs at a folder; elsewhere than on Linux, or without the right to, skip.

    In CI the right is there, and its absence is a failure.
    """
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],  # noqa: S607 - the system's own
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = f"a tmpfs cannot be mounted on {sys.platform}: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607 - as above


@contextlib.contextmanager
def daemon(program: Program, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the service as a daemon for a while, and see it end in peace on SIGTERM."""
    with program.start("run", "--min-free", "0", *arguments) as process:
        yield process
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 0, err
