"""Hooks for the tests: small scripts, what they leave behind, and which processes are left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
from harness import wait_until

if TYPE_CHECKING:
    from pathlib import Path

WAIT_FOR_GO = 'touch "begun-$RUN_ID"; while [ ! -e go ]; do sleep 0.05; done; touch "ended-$RUN_ID"'


def script(folder: Path, text: str, name: str = "hook.sh") -> str:
    """Write an executable shell script; return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nset -eu\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; nobody may have buried it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pids: list[int]) -> None:
    """Wait until these processes have ended."""
    wait_until(lambda: all(is_gone(pid) for pid in pids))
