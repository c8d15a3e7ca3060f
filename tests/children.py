"""Processes that tests start: each is ended and waited for on every way out of its test."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import weakref
from typing import TYPE_CHECKING, Any, AnyStr, Final

import psutil

if TYPE_CHECKING:
    from types import TracebackType

_PATIENCE_SECONDS: Final = 10
# Everything that a run of the tests starts has this in its environment, from child to child.
_MARK: Final = "RUN_OF_THE_TESTS"
_STARTED: Final[weakref.WeakSet[Child[Any]]] = weakref.WeakSet()


class Child(subprocess.Popen[AnyStr]):
    """A process that is killed where its block is left by a failure, a skip or a time-out.

    `subprocess.Popen` would wait for its end: for that of a daemon until somebody ends the tests.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - Popen's own
        super().__init__(*arguments, **options)
        _STARTED.add(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


def children() -> set[psutil.Process]:
    """Return the processes that this one has started and not yet waited for."""
    if hasattr(os, "waitid"):
        try:  # one call says that there are none, as there are after nearly every test
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return set()
    return set(psutil.Process().children())


def end(left: set[psutil.Process]) -> list[str]:
    """Kill processes with all that they have started, and wait for them; return what they were."""
    told = [_told(one) for one in left]
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            below = one.children(recursive=True)
            for process in (one, *below):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    known = {child.pid: child for child in _STARTED}
    for one in left:
        if child := known.get(one.pid):
            child.wait(_PATIENCE_SECONDS)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what nobody reads any more
                        stream.close()
        else:
            one.wait(_PATIENCE_SECONDS)
    return told


def mark_this_run() -> None:
    """Have all that is started from here on be known as this run's."""
    os.environ[_MARK] = secrets.token_hex(8)


def outliving() -> set[psutil.Process]:
    """Return the processes that this run of the tests has started, however far down, but for it."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(_MARK) == os.environ[_MARK]:
                found.add(process)
    return found


def _told(process: psutil.Process) -> str:
    """Return what a process is, and which test has started it."""
    with contextlib.suppress(psutil.Error):
        test = process.environ().get("PYTEST_CURRENT_TEST", "a test")
        return f"{process.pid} ({' '.join(process.cmdline())[:200]}), started by {test}"
    return f"{process.pid}, which has ended and was not waited for"
