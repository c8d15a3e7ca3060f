"""Reading a JSON array item by item, from lines of text, with numbers as they are written.

The standard library reads an array whole, which for a million run ids takes gigabytes as
objects; this reader holds one item and the line it stands in.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_ITEM_CHARACTERS: Final = 65_536
"""An item that spans lines and is longer than this is no run: something is not closed."""

_WHITE_SPACE: Final = re.compile(r"[ \t\r\n]*")
_PLAIN: Final = re.compile(r"-?[0-9]+(?=[ \t\r\n,\]])")


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
    """Yield line number and value of each item of the array that the text is.

    Where the text stops being JSON, a `Broken` is yielded as the last item. Never raises.
    """
    reader = _Reader(numbered)
    yield from reader.items()


class _Reader:
    """The lines read and not yet consumed: `buffer` from `position` on."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self._buffer = ""
        self._position = 0
        self._line = 1

    def items(self) -> Iterator[tuple[int, object]]:
        if self._next_character() != "[":
            yield self._line, self._broken("is not a JSON array")
            return
        self._position += 1
        if self._next_character() == "]":
            self._position += 1
        else:
            while True:
                line = self._line
                value = self._value()
                yield line, value
                if isinstance(value, Broken):
                    return
                separator = self._next_character()
                if separator not in {",", "]"}:
                    yield self._line, self._broken("is not a comma or the array's end")
                    return
                self._position += 1
                if separator == "]":
                    break
                self._next_character()
        if self._next_character():
            yield self._line, self._broken("stands behind the array's end")

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
                pending = len(self._buffer) - self._position
                if pending > _MAX_ITEM_CHARACTERS or not self._fill(keep=True):
                    return self._broken("is not JSON")
                continue
            self._position = end
            return value

    def _fill(self, *, keep: bool = False) -> bool:
        """Take the next line, behind what is not yet consumed if `keep`; False at the end."""
        following = next(self._numbered, None)
        if following is None:
            return False
        number, line = following
        self._buffer = f"{self._buffer[self._position :]}\n{line}" if keep else line
        self._position = 0
        self._line = number
        return True

    def _broken(self, reason: str) -> Broken:
        text = self._buffer[self._position : self._position + 200]
        return Broken(text, reason) if text else Broken("", "the array is not closed")
