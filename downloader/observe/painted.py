"""Lines at the end of a terminal that are drawn again and again, and what is written above them.

Between two drawings the cursor stands before the first of them: a `^C` that the terminal echoes
there spoils no more than two characters until the next one, and a window that was made narrower,
and has wrapped them, nothing at all.
"""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

_CLEAR_BELOW: Final = "\x1b[J"
_CLEAR_RIGHT: Final = "\x1b[K"

_lock = threading.RLock()
_shown: list[Painted] = []


class Painted:
    """Some lines at the end of a terminal."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._lines: Sequence[str] = ()

    def show(self, lines: Sequence[str]) -> None:
        """Draw these in place of the last ones, cut to the width of the window."""
        columns = shutil.get_terminal_size().columns
        with _lock:
            self._lines = [line[: columns - 1] for line in lines]
            if self not in _shown:
                _shown.append(self)
            self._draw()

    def leave(self) -> None:
        """Leave the lines as they are, and go on below them."""
        with _lock:
            if self in _shown:
                _shown.remove(self)
                self._terminal.write("\n" * len(self._lines))
                self._terminal.flush()

    def clear(self) -> None:
        """Take the lines away for now."""
        self._terminal.write(f"\r{_CLEAR_BELOW}")
        self._terminal.flush()

    def draw(self) -> None:
        """Draw the lines again."""
        with _lock:
            self._draw()

    def _draw(self) -> None:
        up = f"\x1b[{len(self._lines) - 1}A" if len(self._lines) > 1 else ""
        text = "\n".join(f"\r{line}{_CLEAR_RIGHT}" for line in self._lines)
        self._terminal.write(f"{text}{_CLEAR_BELOW}{up}\r")
        self._terminal.flush()


def write_above(text: str, stream: TextIO) -> None:
    """Write a line to a stream, above the lines that are drawn if there are any."""
    with _lock:
        for one in _shown:
            one.clear()
        stream.write(f"{text}\n")
        stream.flush()
        for one in _shown:
            one.draw()
