"""Reading run ids: one argument, or a file of them in any of the usual formats.

The format is told from the first line that is neither blank nor a comment:

- `[` begins a JSON array of integers, strings of digits, or objects with `run_id`;
- a header with a column `run_id`, or else `id`, `Run ID` or the like, begins CSV (comma, semicolon
  or tab; `sep=` before it says which) or a printed table (columns between `|` or blanks); other
  names in its place are a table of which nobody knows where the ids are;
- anything else is one id a line, or one JSON object a line or over several; or one line of ids
  between commas, semicolons, tabs or blanks.

An object of JSON has `run_id`; or is one of the service's own: `run_ids` or `results` with a list,
or an answer whose names are the ids.

Reading is a stream: a million ids need no more memory than their longest line, and no line
counts as longer than a megabyte: an array goes on in the next piece, anything else is no list of
run ids.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.rules.id_cells import BLANKS, NO_NUMBER, looks_grouped, parse_cell, parse_id
from downloader.rules.json_array import (
    MAX_LINE_CHARACTERS,
    Broken,
    JsonNumber,
    items_of,
    read_value,
    show_json,
)
from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["BadId", "Item", "NoIdColumn", "parse_id", "parse_ids", "parse_pieces", "show_id"]

_MAX_SHOWN_CHARACTERS: Final = 60
_COLUMN: Final = "run_id"
_LIKE_THE_COLUMN: Final = frozenset(
    {"id", "ids", "run id", "run ids", "run-id", "runid", "run_ids"}
)
_LISTS: Final = ("run_ids", "results", "data")
_MAX_DEPTH: Final = 3
_CSV: Final = ",;\t"
_TABLE: Final = "|\u2502"
_SEP: Final = re.compile(r"sep=(.)", re.IGNORECASE)
_RULE: Final = re.compile(r"[-+|:=\s\u2500-\u257f]{3,}")
_FOOTER: Final = re.compile(r"\(?[0-9]+ rows?\b.*")
_TOO_LONG: Final = "is in a line that is too long: the rest is not read"
_COLUMNS: Final = "is in a line of several columns: name that of the ids run_id in a header"
_SURPLUS: Final = "has more columns than the header has names"
_OBJECT_LINES: Final = 10_000


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


@dataclass(frozen=True, slots=True)
class _Header:
    """How columns are told apart, which of them has the ids, and how many there are.

    A table is framed where the delimiter stands at the ends of its lines as well.
    """

    delimiter: str
    column: int
    width: int
    is_framed: bool


Item = int | BadId | NoIdColumn


def parse_ids(lines: Iterable[str]) -> Iterator[Item]:
    """Yield every run id of a submit file in order, and a `BadId` for whatever is none.

    `lines` are lines of text as a file gives them, their ends kept or not. Nothing is
    dropped in silence but blank lines, comments (`#` to the end of the line), the rules of a
    printed table and the other columns. Duplicates are yielded as they come.
    """
    return parse_pieces(enumerate(lines, start=1))


def parse_pieces(pieces: Iterable[tuple[int, str]]) -> Iterator[Item]:
    """Do as `parse_ids`, of lines with their numbers.

    A line of `MAX_LINE_CHARACTERS` or more may come in pieces of so many, each with the line's
    number.
    """
    numbered = _without_mark(pieces)
    delimiters = _CSV + _TABLE + " "
    for number, line in numbered:
        is_whole = len(line) < MAX_LINE_CHARACTERS
        if is_whole and (not _content(line) or _RULE.fullmatch(line)):
            continue
        if is_whole and (found := _SEP.fullmatch(line.lstrip(BLANKS).rstrip("\r\n"))):
            delimiters = found[1]
            continue
        rest = _put_back((number, line), numbered)
        if line.lstrip(BLANKS).startswith("["):
            yield from _from_array(rest)
        elif is_whole and (header := _header(line, delimiters)) is not None:
            yield from (_from_csv if header.delimiter in _CSV else _from_table)(header, rest)
        elif is_whole and (columns := _other_header(line, delimiters)):
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
    return line.partition("#")[0].strip(BLANKS)


class _Lines:
    """Numbered lines, the next of which can be looked at."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self._ahead: deque[tuple[int, str]] = deque()

    def next(self) -> tuple[int, str] | None:
        """Take the next line."""
        return self._ahead.popleft() if self._ahead else next(self._numbered, None)

    def put_back(self, lines: list[tuple[int, str]]) -> None:
        """Have these lines be the next ones."""
        self._ahead.extendleft(reversed(lines))

    def has_more(self) -> bool:
        """Return whether any line follows that says something."""
        while (one := self.next()) is not None:
            if _content(one[1]):
                self.put_back([one])
                return True
        return False


def _from_lines(numbered: Iterator[tuple[int, str]]) -> Iterator[Item]:
    lines = _Lines(numbered)
    goes_on = True  # every line so far is the part of a list that a comma ends
    while (one := lines.next()) is not None:
        number, line = one
        if len(line) >= MAX_LINE_CHARACTERS:
            yield _bad(number, line, _TOO_LONG)
            return
        text = line.strip()
        if text.isdecimal():  # as nearly every line is
            goes_on = False
            yield _of_text(number, text)
            continue
        text = text.strip(BLANKS)
        if text.startswith("{") or (text.startswith('"') and text.endswith('"')):
            # A comment sign within JSON is text.
            goes_on = False
            yield from _of_value(number, _whole_value(number, line, lines), text)
        elif content := _content(line):
            cells, ends_open = _cells(content)
            if len(cells) == 1:
                yield _of_text(number, cells[0])
            elif goes_on and (ends_open or not lines.has_more()):
                for cell in cells:
                    yield _of_text(number, cell)
            else:
                yield _bad(number, content, _COLUMNS)
            goes_on = goes_on and ends_open


def _cells(content: str) -> tuple[list[str], bool]:
    """Return the ids that stand in a line, and whether a comma at its end says that more follow.

    Where not all of them are, the line is one cell that is none; so is one that may be one number.
    """
    text = content.rstrip(",;" + BLANKS)
    if not text or looks_grouped(text):
        return [text or content], False
    delimiter = next((one for one in ";\t," if one in text), None)
    cells = [cell.strip(BLANKS) for cell in text.split(delimiter)]
    if len(cells) > 1 and any(isinstance(parse_cell(cell), str) for cell in cells):
        return [text], False
    return cells, content.endswith(",") and (len(cells) == 1 or ", " in text)


def _whole_value(number: int, line: str, lines: _Lines) -> object:
    """Return the JSON value that begins in a line.

    One that is printed over lines ends with a brace below the one that it begins with.
    """
    value = read_value(line.strip(BLANKS))
    opening = line.rstrip()
    if not isinstance(value, Broken) or opening.lstrip() not in {"{", "{}"}:
        return value
    indent = opening[: -len(opening.lstrip())]
    taken: list[tuple[int, str]] = []
    length = 0
    while (one := lines.next()) is not None:
        taken.append(one)
        length += len(one[1])
        if one[1].rstrip().rstrip(",") == indent + "}":
            text = "\n".join(piece for _, piece in [(number, line), *taken])
            found = read_value(text.strip().rstrip(","))
            if not isinstance(found, Broken):
                return found
            break
        if length >= MAX_LINE_CHARACTERS or len(taken) >= _OBJECT_LINES:
            break
    lines.put_back(taken)
    return value


def _from_array(numbered: Iterator[tuple[int, str]]) -> Iterator[Item]:
    for number, value in items_of(numbered):
        if isinstance(value, Broken):
            yield _bad(number, value.text, value.reason)
        else:
            yield from _of_value(number, value, "")


def _from_csv(header: _Header, numbered: Iterator[tuple[int, str]]) -> Iterator[Item]:
    header_number, _ = next(numbered)
    # Strict, or an unclosed quote would swallow the rest of the file without a word.
    too_long: list[Item] = []

    def lines() -> Iterator[str]:
        for number, line in numbered:
            if len(line) >= MAX_LINE_CHARACTERS:
                too_long.append(_bad(number, line, _TOO_LONG))
                return
            yield line

    rows = csv.reader(lines(), delimiter=header.delimiter, strict=True)
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
        if any(field.strip(BLANKS) for field in row):
            yield _of_row(number, row, header)


def _from_table(header: _Header, numbered: Iterator[tuple[int, str]]) -> Iterator[Item]:
    next(numbered)
    for number, line in numbered:
        if len(line) >= MAX_LINE_CHARACTERS:
            yield _bad(number, line, _TOO_LONG)
            return
        if not line.strip(BLANKS) or _RULE.fullmatch(line):
            continue
        row = _split(line, header.delimiter, is_framed=header.is_framed)
        if len(row) == header.width:
            yield _of_row(number, row, header)
        elif not _FOOTER.fullmatch(line.strip()):
            # A blank within a value may have moved the others.
            yield _bad(number, line.strip(), f"has not the {header.width} columns of the header")


def _of_row(number: int, row: list[str], header: _Header) -> Item:
    shown = header.delimiter.join(row)
    if any(field.strip(BLANKS) for field in row[header.width :]):
        return _bad(number, shown, _SURPLUS)
    if header.column >= len(row):
        return _bad(number, shown, f"has no column {_COLUMN}")
    return _of_text(number, row[header.column])


def _header(line: str, delimiters: str) -> _Header | None:
    """Return how a header of columns is to be read; None if the line is none."""
    if line.lstrip(BLANKS).startswith("{"):
        return None
    read = [(one, _split(line, one, is_framed=_is_framed(line, one))) for one in delimiters]
    for names in ({_COLUMN}, _LIKE_THE_COLUMN):
        for delimiter, fields in read:
            columns = [field.strip(BLANKS).lower() for field in fields]
            found = next((n for n, name in enumerate(columns) if name in names), None)
            # Words between blanks are a header only where all are words.
            if found is not None and (delimiter != " " or all(map(_is_name, columns))):
                return _Header(delimiter, found, len(fields), _is_framed(line, delimiter))
    return None


def _other_header(line: str, delimiters: str) -> tuple[str, ...]:
    """Return the column names of a line that looks as a CSV header does, without one for ids."""
    for delimiter in delimiters.replace(" ", ""):
        fields = _split(line, delimiter, is_framed=_is_framed(line, delimiter))
        if len(fields) > 1 and all(map(_is_name, fields)) and not line.lstrip().startswith("{"):
            return tuple(clean_text(field, _MAX_SHOWN_CHARACTERS) for field in fields)
    return ()


def _is_name(field: str) -> bool:
    return any(map(str.isalpha, field))


def _is_framed(line: str, delimiter: str) -> bool:
    text = line.strip(BLANKS)
    return delimiter in _TABLE and text.startswith(delimiter) and text.endswith(delimiter)


def _split(line: str, delimiter: str, *, is_framed: bool) -> list[str]:
    """Return the columns of one line."""
    text = line.strip(BLANKS.replace("\t", "") if delimiter == "\t" else BLANKS)
    if delimiter == " ":
        return text.split()
    if delimiter in _TABLE:
        if is_framed:
            text = text.removeprefix(delimiter).removesuffix(delimiter)
        return [field.strip(BLANKS) for field in text.split(delimiter)]
    try:
        return [one.strip() for one in next(csv.reader([text], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _of_value(line: int, value: object, text: str, depth: int = 0) -> Iterator[Item]:
    """Yield the ids that a value of JSON stands for."""
    if isinstance(value, dict):
        yield from _of_object(line, value, text, depth)
    elif isinstance(value, Broken):
        yield _bad(line, value.text, value.reason)
    elif isinstance(value, JsonNumber | str):
        yield _of_text(line, str(value))
    else:
        yield _bad(line, show_json(value), NO_NUMBER)


def _of_object(line: int, value: dict[str, object], text: str, depth: int) -> Iterator[Item]:
    named = next((name for name in (_COLUMN, "runId") if name in value), None)
    inner = next((value[name] for name in _LISTS if isinstance(value.get(name), dict | list)), None)
    if named is not None:
        found = value[named]
        yield from (
            [_bad(line, "{…}", NO_NUMBER)]
            if isinstance(found, dict)
            else _of_value(line, found, "")
        )
    elif value and all(name.isascii() and name.isdigit() for name in value):
        for name in value:  # the service's answer: the ids are the names
            yield _of_text(line, name)
    elif inner is not None and depth < _MAX_DEPTH:
        for one in inner if isinstance(inner, list) else [inner]:
            yield from _of_value(line, one, "", depth + 1)
    else:
        yield _bad(line, text or show_json(value), f"has no {_COLUMN}")


def _of_text(line: int, text: str) -> Item:
    parsed = parse_cell(text)
    return _bad(line, text, parsed) if isinstance(parsed, str) else parsed


def show_id(text: str) -> str:
    """Return what may be shown of what was given for a run id: it may be a signed URL."""
    return clean_text(text, _MAX_SHOWN_CHARACTERS)


def _bad(line: int, text: str, reason: str) -> BadId:
    return BadId(line, show_id(text), reason)
