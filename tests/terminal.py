"""The program on a terminal: a real pseudo-terminal, and what a person would see on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
from typing import TYPE_CHECKING, Self

import pyte
from children import Child

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from harness import Program

CTRL_C = b"\x03"
_LOOK_SECONDS = 0.05


class Terminal:
    """The program started on a terminal of its own; `lines` is what is on the screen.

    `watcher` is called whenever something has been written to it.
    """

    def __init__(
        self,
        program: Program,
        *arguments: str,
        columns: int = 80,
        rows: int = 24,
        watcher: Callable[[pyte.Screen], None] | None = None,
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._watcher = watcher
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        self._set_size(columns, rows)
        self.written = b""
        environment = program.environment() | {"TERM": "xterm-256color"} | program.env
        for fixed_size in ("COLUMNS", "LINES"):  # of whoever runs the tests
            environment.pop(fixed_size, None)
        self.process = Child(
            program.command(*arguments),
            env=environment,
            cwd=program.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Ctrl-C goes to whom the terminal belongs.
            preexec_fn=_take_terminal,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def lines(self) -> list[str]:
        """The lines that are not empty, without blanks at their ends."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def wait_for(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen fulfils a condition; return its lines."""
        while not condition(self.lines):
            assert self._read() or condition(self.lines), self.lines
        return self.lines

    def end(self) -> int:
        """Read to the end; return the exit code."""
        while self._read():
            pass
        return self.process.wait()

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._ours, keys)

    def resize(self, columns: int, rows: int = 24) -> None:
        """Give the window another size, as a person who drags its corner."""
        self.screen.resize(rows, columns)
        self._set_size(columns, rows)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGWINCH)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> bool:
        """Take what was written, if anything was; False when nobody is left to write."""
        if not select.select([self._ours], [], [], _LOOK_SECONDS)[0]:
            return True
        try:
            written = os.read(self._ours, 65536)
        except OSError:  # EIO, on Linux, where the other end is closed
            return False
        self.written += written
        self._stream.feed(written)
        if self._watcher is not None:
            self._watcher(self.screen)
        return bool(written)


def heed_ctrl_c() -> None:
    """Heed SIGINT: pytest's own processes ignore it, and what they start would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _take_terminal() -> None:
    heed_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
