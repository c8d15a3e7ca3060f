"""Reading run ids: one argument, or a file of them in any of the usual formats.

The format is told from the first line that is neither blank nor a comment:

- `[` begins a JSON array of integers, strings of digits, or objects with `run_id`;
- a header with a column `run_id`, or else `id`, `Run ID` or the like, begins CSV (comma, semicolon
  or tab); other names in its place are CSV of which nobody knows where the ids are;
- anything else is one id a line, or one JSON object with `run_id` a line.

Reading is a stream: a million ids need no more memory than their longest line, and no line
counts as longer than a megabyte: an array goes on in the next piece, anything else is no list of
run ids.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.rules.json_array import (
    MAX_LINE_CHARACTERS,
    Broken,
    JsonNumber,
    items_of,
    read_value,
    show_json,
)
from downloader.rules.redaction import clean_text
from downloader.rules.states import MAX_RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAX_SHOWN_CHARACTERS: Final = 60
_COLUMN: Final = "run_id"
_LIKE_THE_COLUMN: Final = frozenset({"id", "run id", "run-id", "runid"})
_DELIMITERS: Final = ",;\t"
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DIGITS: Final = re.compile(r"[0-9]+")
_NO_NUMBER: Final = "is not a run id: a run id is a whole number"
_TOO_LONG: Final = "is in a line that is too long: the rest is not read"


@dataclass(frozen=True, slots=True)
class BadId:
    """What stands where a run id should: the line from 1, the text cut short, and why not."""

    line: int
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoIdColumn:
    """The header of CSV in which no column is named as that of the ids; nothing follows it."""

    line: int
    columns: tuple[str, ...]


Item = int | BadId | NoIdColumn


def parse_id(text: str) -> int | str:
    """Return the run id that a text stands for, or the reason why it is none.

    An id is an integer from 1 to 2**63 - 1, in ASCII digits, without sign, separators or
    leading zeros, so that the same id is never written in two ways.
    """
    text = text.strip(" \t\r\n")
    if not text:
        return "is empty"
    if _DIGITS.fullmatch(text) is None:
        if text.startswith("-") and _NUMBER.fullmatch(text):
            return "is negative: run ids start at 1"
        return _NO_NUMBER
    if not text.strip("0"):
        return "is zero: run ids start at 1"
    if text.startswith("0"):
        return "has leading zeros"
    if len(text) > len(str(MAX_RUN_ID)) or int(text) > MAX_RUN_ID:
        return f"is too large: the largest run id is {MAX_RUN_ID}"
    return int(text)


def parse_ids(lines: Iterable[str]) -> Iterator[Item]:
    """Yield every run id of a submit file in order, and a `BadId` for whatever is none.

    `lines` are lines of text as a file gives them, their ends kept or not. Nothing is
    dropped in silence but blank lines, comments (`#` to the end of the line) and the other
    columns of CSV. Duplicates are yielded as they come.
    """
    return parse_pieces(enumerate(lines, start=1))


def parse_pieces(pieces: Iterable[tuple[int, str]]) -> Iterator[Item]:
    """Do as `parse_ids`, of lines with their numbers.

    A line of `MAX_LINE_CHARACTERS` or more may come in pieces of so many, each with the line's
    number.
    """
    numbered = _without_mark(pieces)
    for number, line in numbered:
        if not _content(line) and len(line) < MAX_LINE_CHARACTERS:
            continue
        rest = _put_back((number, line), numbered)
        if line.lstrip().startswith("["):
            yield from _from_array(rest)
        elif len(line) < MAX_LINE_CHARACTERS and _header(line) is not None:
            yield from _from_csv(rest)
        elif len(line) < MAX_LINE_CHARACTERS and (columns := _other_header(line)):
            yield NoIdColumn(number, columns)
        else:
            yield from _from_lines(rest)
        return


def _without_mark(pieces: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    numbered = iter(pieces)
    for number, line in numbered:
        yield number, line.removeprefix("\ufeff")
        break
    yield from numbered


def _put_back(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _content(line: str) -> str:
    return line.partition("#")[0].strip()


def _from_lines(numbered: Iterator[tuple[int, str]]) -> Iterator[Item]:
    for number, line in numbered:
        if len(line) >= MAX_LINE_CHARACTERS:
            yield _bad(number, line, _TOO_LONG)
            return
        text = line.strip()
        if text.startswith(("{", '"')):
            # A comment sign within JSON is text.
            yield _of_value(number, read_value(text), text)
        elif content := _content(line):
            yield _of_text(number, content)


def _from_array(numbered: Iterator[tuple[int, str]]) -> Iterator[Item]:
    for number, value in items_of(numbered):
        if isinstance(value, Broken):
            yield _bad(number, value.text, value.reason)
        else:
            yield _of_value(number, value, "")


def _from_csv(numbered: Iterator[tuple[int, str]]) -> Iterator[Item]:
    header_number, header = next(numbered)
    delimiter, column = _header(header) or (",", 0)
    # Strict, or an unclosed quote would swallow the rest of the file without a word.
    too_long: list[Item] = []

    def lines() -> Iterator[str]:
        for number, line in numbered:
            if len(line) >= MAX_LINE_CHARACTERS:
                too_long.append(_bad(number, line, _TOO_LONG))
                return
            yield line

    rows = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        # A row may span lines: it is shown at its first.
        number = header_number + rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            yield from too_long
            return
        except csv.Error as error:
            yield _bad(number, "", f"is not readable as CSV ({error})")
            continue
        if len(row) == 1:
            row = [_content(row[0])]
        if not any(field.strip() for field in row):
            continue
        if column >= len(row):
            yield _bad(number, delimiter.join(row), f"has no column {_COLUMN}")
        else:
            yield _of_text(number, row[column])


def _header(line: str) -> tuple[str, int] | None:
    """Return the delimiter of a CSV header, and which column has the ids; None if it is none."""
    read = [(delimiter, _fields(line, delimiter)) for delimiter in _DELIMITERS]
    for names in ({_COLUMN}, _LIKE_THE_COLUMN):
        for delimiter, fields in read:
            columns = [field.lower() for field in fields]
            found = next((n for n, name in enumerate(columns) if name in names), None)
            if found is not None:
                return delimiter, found
    return None


def _other_header(line: str) -> tuple[str, ...]:
    """Return the column names of a line that looks as a CSV header does, without one for ids."""
    for delimiter in _DELIMITERS:
        fields = _fields(line, delimiter)
        named = len(fields) > 1 and all(any(map(str.isalpha, field)) for field in fields)
        if named and not line.lstrip().startswith("{"):
            return tuple(clean_text(field, _MAX_SHOWN_CHARACTERS) for field in fields)
    return ()


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return [one.strip() for one in next(csv.reader([line.strip()], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _of_value(line: int, value: object, text: str) -> Item:
    if isinstance(value, dict):
        if _COLUMN not in value:
            return _bad(line, text or show_json(value), f"has no {_COLUMN}")
        value = value[_COLUMN]
    if isinstance(value, Broken):
        return _bad(line, value.text, value.reason)
    if isinstance(value, JsonNumber | str):
        return _of_text(line, str(value))
    return _bad(line, show_json(value), _NO_NUMBER)


def _of_text(line: int, text: str) -> Item:
    parsed = parse_id(text)
    return _bad(line, text, parsed) if isinstance(parsed, str) else parsed


def show_id(text: str) -> str:
    """Return what may be shown of what was given for a run id: it may be a signed URL."""
    return clean_text(text, _MAX_SHOWN_CHARACTERS)


def _bad(line: int, text: str, reason: str) -> BadId:
    return BadId(line, show_id(text), reason)
