"""Real small file systems, where this user may mount them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from typing import TYPE_CHECKING

from needs import needed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Program


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a tmpfs at a folder: for tests that are marked as in need of `mount`."""
    folder.mkdir()
    mount = [needed("mount"), "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
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
