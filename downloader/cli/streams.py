"""Standard output and error of a command: what cannot be written there ends no work.

A command that only shows something fails where that cannot be written, as `ls` does; one that does
something has done it, whoever may be told. Standard error is for who looks: nothing depends on it.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final, TextIO

from downloader import descriptors

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Outlet(io.RawIOBase):
    """A descriptor that takes everything, and keeps the error with which it really refused.

    While it is `strict` that is raised. `is_all` says that to write there is all that is done, so
    that a refusal is a failure.
    """

    def __init__(self, descriptor: int, *, is_open: bool) -> None:
        self.error: OSError | None = None
        self.strict = False
        self.is_all = True
        self._descriptor: Final = descriptor
        self._is_open: Final = is_open

    @property
    def is_unread(self) -> bool:
        """Whether whoever read it has left."""
        return self.error is not None and self.error.errno == errno.EPIPE

    @property
    def is_closed(self) -> bool:
        """Whether it was closed from the beginning: nobody is to be told anything."""
        return not self._is_open

    def writable(self) -> bool:
        """Return True: it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the number of the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether somebody looks on."""
        return self._is_open and os.isatty(self._descriptor)

    def write(self, content: ReadableBuffer, /) -> int:
        """Write; return how much was written or, where nothing can be, thrown away."""
        if self.error is None or self.strict:
            try:
                return self._write(content)
            except OSError as error:
                self.error = error
                if self.strict:
                    raise
        return memoryview(content).nbytes

    def _write(self, content: ReadableBuffer) -> int:
        if not self._is_open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        while True:
            try:
                return os.write(self._descriptor, content)
            except BlockingIOError:  # somebody else has made it so, who shares it
                select.select([], [self._descriptor], [])


_output: Outlet | None = None


def take() -> None:
    """Have the streams of this process write through outlets, whatever became of them."""
    global _output  # noqa: PLW0603 - there is one standard output
    closed = descriptors.fill()
    if sys.stdout is sys.__stdout__:
        _output = Outlet(1, is_open=1 not in closed)
        sys.stdout = _text(_output, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(Outlet(2, is_open=2 not in closed), sys.stderr)


def _text(outlet: Outlet, before: TextIO | None) -> TextIO:
    """Return a text stream like the one before; what its encoding has not is written as a code."""
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=getattr(before, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=bool(getattr(before, "line_buffering", False)),
    )


def output() -> Outlet | None:
    """Return standard output; None where this is not the process's own."""
    return _output


def show_only() -> None:
    """Say that the command only shows something: it ends with an error where that is refused."""
    if _output is not None:
        _output.is_all = _output.strict = True


def work() -> None:
    """Say that the command does something, which is done whatever becomes of what it says."""
    if _output is not None:
        _output.is_all = _output.strict = False


def finish() -> OSError | None:
    """Write out what is left; return why not everything could be written, if so."""
    try:
        sys.stdout.flush()
    except OSError:
        if _output is None or _output.error is None:
            raise
    if _output is None:
        return None
    _output.strict = False  # Python flushes once more
    return _output.error
