"""Reading a JSON array item by item, from lines of text, with numbers as they are written.

The standard library reads an array whole, which for a million run ids takes gigabytes as
objects; this reader holds one item and the line, or piece of a line, that it stands in.
"""

from __future__ import annotations

import json
import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE_CHARACTERS: Final = 1024 * 1024
"""A line that is longer comes in pieces, of which only an array can make something."""

_MAX_ITEM_CHARACTERS: Final = 65_536
"""An item that spans lines and is longer than this is no run: something is not closed."""

_WHITE_SPACE: Final = re.compile(r"[ \t\r\n]*")
_PLAIN: Final = re.compile(r"-?[0-9]+(?=[ \t\r\n,\]])")
_NUMBER_ENDS: Final = re.compile(r"[-+.eE0-9]*\Z")


@dataclass(frozen=True, slots=True)
class JsonNumber:
    """A number as the text has it: 1e3 stays "1e3", and no size is refused."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Broken:
    """Text that is not JSON where JSON should be."""

    text: str
    reason: str


_DECODER: Final = json.JSONDecoder(
    parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=JsonNumber
)


def read_value(text: str) -> object:
    """Return the one JSON value that a line holds, or `Broken`; never raises."""
    try:
        value: object = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return Broken(text, "is not JSON")
    return value


def show_json(value: object) -> str:
    """Return a short text for a JSON value that is no run id."""
    if isinstance(value, dict | list):
        return "{…}" if isinstance(value, dict) else "[…]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def items_of(numbered: Iterator[tuple[int, str]]) -> Iterator[tuple[int, object]]:
    """Yield line number and value of each item of the array that the text is, or of several.

    Pieces of one line have the same number. Where the text stops being JSON, a `Broken` is
    yielded as the last item. Never raises.
    """
    reader = _Reader(numbered)
    yield from reader.items()


class _Reader:
    """The lines read and not yet consumed: `buffer` from `position` on, each line at its start."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self._buffer = ""
        self._position = 0
        self._starts = [(0, 1)]

    @property
    def _line(self) -> int:
        """The number of the line that the position is in."""
        return self._starts[bisect_right(self._starts, (self._position, sys.maxsize)) - 1][1]

    def items(self) -> Iterator[tuple[int, object]]:
        """Yield the items of every array; of what is none, the last."""
        wrong = "is not a JSON array"
        while (first := self._next_character()) or wrong == "is not a JSON array":
            if first != "[":
                yield self._line, self._broken(wrong)
                return
            wrong = "stands behind the array's end"
            self._position += 1
            # A comma may stand behind the last item, as programs in other languages print it.
            while self._next_character() != "]":
                line = self._line
                value = self._value()
                yield line, value
                if isinstance(value, Broken):
                    return
                separator = self._next_character()
                if separator not in {",", "]"}:
                    yield self._line, self._broken("is not a comma or the array's end")
                    return
                self._position += separator == ","
            self._position += 1

    def _next_character(self) -> str:
        """Skip white space, and return the next character; empty at the end of the text."""
        while True:
            found = _WHITE_SPACE.match(self._buffer, self._position)
            self._position = found.end() if found else self._position
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._fill():
                return ""

    def _value(self) -> object:
        while True:
            plain = _PLAIN.match(self._buffer, self._position)
            if plain is not None:
                self._position = plain.end()
                return JsonNumber(plain[0])
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._position)
            except RecursionError:
                return self._broken("is nested too deeply")
            except ValueError:
                if self._is_too_long() or not self._fill(keep=True):
                    return self._broken("is not JSON")
                continue
            # A number that ends where the text so far does may go on in the line's next piece.
            cut = isinstance(value, JsonNumber) and _NUMBER_ENDS.match(self._buffer, end)
            if cut and not self._is_too_long() and self._fill(keep=True):
                continue
            self._position = end
            return value

    def _is_too_long(self) -> bool:
        """Tell whether an item is longer than any: within a line it is read but a few times."""
        whole_lines = self._buffer.endswith(("\n", "\r"))
        most = _MAX_ITEM_CHARACTERS if whole_lines else MAX_LINE_CHARACTERS
        return len(self._buffer) - self._position > most

    def _fill(self, *, keep: bool = False) -> bool:
        """Take the next line, behind what is not yet consumed if `keep`; False at the end.

        What is kept is at least doubled: read anew with each line that comes, an item of many
        short ones would take for ever.
        """
        rest = self._buffer[self._position :] if keep else ""
        starts = [(0, self._line)] if keep else []
        starts += [(at - self._position, of) for at, of in self._starts if at > self._position]
        parts, length, most = [rest], len(rest), 2 * len(rest)
        for number, line in self._numbered:
            if starts and number != starts[-1][1]:
                parts.append("\n")
                length += 1
            starts.append((length, number))
            parts.append(line)
            length += len(line)
            if length >= most:
                break
        if len(parts) == 1:
            return False
        self._buffer, self._position, self._starts = "".join(parts), 0, starts
        return True

    def _broken(self, reason: str) -> Broken:
        text = self._buffer[self._position : self._position + 200]
        return Broken(text, reason) if text else Broken("", "the array is not closed")
