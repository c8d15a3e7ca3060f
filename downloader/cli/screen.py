"""What standard output is: a terminal of some width, with or without colours, or no terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import Final

import click

_NARROWEST: Final = 20


@dataclass(frozen=True, slots=True)
class Screen:
    """How to print: `width` is None where lines are not to be cut or wrapped, as in a pipe."""

    width: int | None
    colours: bool = False
    redraws: bool = False
    characters: str = "utf-8"

    def can_show(self, text: str) -> bool:
        """Return whether the encoding of the output has all of these characters."""
        try:
            text.encode(self.characters)
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    @property
    def arrow(self) -> str:
        """What stands between two states."""
        return "→" if self.can_show("→") else "->"

    @property
    def more(self) -> str:
        """What stands for what was cut off."""
        return "…" if self.can_show("…") else "..."

    def styled(self, text: str, colour: str) -> str:
        """Return a text in a colour, where there are any."""
        return click.style(text, fg=colour) if self.colours else text

    def cut(self, line: str) -> str:
        """Return a line that is no wider than the screen."""
        if self.width is None or len(line) <= self.width:
            return line
        return line[: self.width - len(self.more)] + self.more

    def cut_front(self, text: str, used: int) -> str:
        """Return a text that fits beside what is used of a line: of a path the end tells more."""
        if self.width is None or used + len(text) <= self.width:
            return text
        left = self.width - used - len(self.more)
        return self.more + text[-left:] if left > 0 else self.more

    def wrapped(self, line: str, indent: str = "  ") -> list[str]:
        """Return a line in as many as it takes, all but the first one indented."""
        if self.width is None or len(line) <= self.width:
            return [line]
        return textwrap.wrap(
            line,
            self.width,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )


def screen() -> Screen:
    """Return what standard output is now; a window may have another size a moment later.

    Colours by the convention of https://no-color.org.
    """
    characters = getattr(sys.stdout, "encoding", None) or "ascii"
    if not sys.stdout.isatty():
        return Screen(None, characters=characters)
    knows_codes = os.environ.get("TERM", "dumb") != "dumb"
    return Screen(
        max(_NARROWEST, shutil.get_terminal_size((80, 24)).columns),
        colours=knows_codes and not os.environ.get("NO_COLOR"),
        redraws=knows_codes,
        characters=characters,
    )
