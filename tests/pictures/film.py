"""A session at a shell, filmed: what was on the terminal's screen, and when."""

from __future__ import annotations

import os
import time
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from harness import Program
from terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyte
    from pyte.screens import Char

COLUMNS: Final = 80
_PROMPT: Final = "$ "
_KEY_SECONDS: Final = 0.04
_ENTER_SECONDS: Final = 0.4
_SHORTEST_SECONDS: Final = 0.04
"""What is on the screen for less is half drawn."""


class Style(NamedTuple):
    """How characters look."""

    colour: str = "default"
    bold: bool = False
    inverse: bool = False


class Piece(NamedTuple):
    """Characters of one style, side by side."""

    column: int
    text: str
    style: Style


Picture = tuple[tuple[Piece, ...], ...]
"""What is on a screen, by line."""


class Frame(NamedTuple):
    """What is on the screen from one moment on; seconds."""

    at: float
    picture: Picture


class Shell(Program):
    """A shell in place of the program, which is on its path; its folder is its home, too."""

    def command(self, *_: str) -> list[str]:
        """Return the command line that runs the shell."""
        return ["sh", "-i"]

    def environment(self) -> dict[str, str]:
        """Return an environment in which a person need only type what the film shows."""
        found = super().environment()
        binaries = Path(super().command()[0]).parent
        return found | {
            "HOME": str(self.folder),
            "PATH": f"{binaries}{os.pathsep}{found['PATH']}",
            "PS1": _PROMPT,
            "DOWNLOADER_DATABASE": "sounds.sqlite3",
            "DOWNLOADER_OUTPUT": "audio",
        }


class _Camera:
    """Takes what is on the screen. Its clock goes only while a program works."""

    def __init__(self) -> None:
        self.frames: Final[list[Frame]] = []
        self.seconds = 0.0
        self.cursor_shown = True
        self._program_since: float | None = None

    def program_starts(self) -> None:
        self._program_since = time.monotonic()
        self.cursor_shown = False

    def program_has_ended(self) -> None:
        self.seconds = self._now()
        self._program_since = None
        self.cursor_shown = True

    def take(self, screen: pyte.Screen) -> None:
        self.frames.append(Frame(self._now(), picture_of(screen, cursor=self.cursor_shown)))

    def _now(self) -> float:
        since = self._program_since
        return self.seconds + (0.0 if since is None else time.monotonic() - since)


def film(
    program: Program, session: Sequence[tuple[str, float]], *, rows: int
) -> tuple[list[Frame], float]:
    """Film a session at a shell: commands, each with the seconds for reading what came of it.

    Programs take their true time; typing and reading take what a person would need, in the film
    alone. Returns the frames and how long the film is.
    """
    shell, camera = Shell(program.folder, program.env), _Camera()
    with Terminal(shell, columns=COLUMNS, rows=rows, watcher=camera.take) as terminal:
        _wait_until_typed(terminal, "")
        camera.seconds += _ENTER_SECONDS
        for command, reading_seconds in session:
            for end, key in enumerate(command, 1):
                terminal.press(key.encode())
                _wait_until_typed(terminal, command[:end])
                camera.seconds += _KEY_SECONDS
            camera.seconds += _ENTER_SECONDS
            camera.program_starts()
            terminal.press(b"\n")
            _wait_until_typed(terminal, "")
            camera.program_has_ended()
            camera.take(terminal.screen)
            camera.seconds += reading_seconds
    return list(_worth_showing(camera.frames)), camera.seconds


def _wait_until_typed(terminal: Terminal, text: str) -> None:
    """Wait until just this stands behind the prompt; a program that works has taken that away."""
    terminal.wait_for(lambda _: _typed(terminal.screen) == text.rstrip())


def _typed(screen: pyte.Screen) -> str | None:
    """Return what stands behind the prompt where the cursor is, None where there is no prompt."""
    line = screen.display[screen.cursor.y]
    return line.removeprefix(_PROMPT).rstrip() if line.startswith(_PROMPT) else None


def _worth_showing(frames: list[Frame]) -> Iterator[Frame]:
    """Yield the frames that last, and that show something else than the one before."""
    before = None
    for frame, after in pairwise([*frames, None]):
        if frame is None or (after is not None and after.at - frame.at < _SHORTEST_SECONDS):
            continue
        if frame.picture != before:
            yield frame
        before = frame.picture


def picture_of(screen: pyte.Screen, *, cursor: bool = False) -> Picture:
    """Return what is on a screen; the cursor is a block."""
    lines = []
    for y in range(screen.lines):
        characters = [screen.buffer[y][x] for x in range(screen.columns)]
        styles = [_style(one) for one in characters]
        if cursor and y == screen.cursor.y:
            styles[screen.cursor.x] = Style(inverse=True)
        pieces = []
        for style, columns in groupby(range(screen.columns), styles.__getitem__):
            first, *_ = places = list(columns)
            text = "".join(characters[x].data for x in places)
            if text.strip() or style.inverse:
                pieces.append(Piece(first, text, style))
        lines.append(tuple(pieces))
    return tuple(lines)


def _style(one: Char) -> Style:
    return Style(one.fg, one.bold, one.reverse)
