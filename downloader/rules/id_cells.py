"""A run id as other programs write it into files: in quotes, as a decimal, beside odd blanks.

Whatever could be another number than the one it was is refused: an id that is wrong is somebody
else's run.
"""

from __future__ import annotations

import re
from typing import Final

from downloader.rules.states import MAX_RUN_ID

NO_NUMBER: Final = "is not a run id: a run id is a whole number"
GROUPED: Final = (
    "is not a run id: a run id is a whole number without separators, and this may also be several"
)
SHORTENED: Final = (
    "is not a run id: a run id is a whole number with all its digits, and spreadsheets shorten "
    "long ones: give the column the format of a number without decimals, and save again"
)
ROUNDED: Final = (
    "has been a floating-point number, which does not hold so many digits: it may be another id"
)
BINARY: Final = "holds NUL characters, and is no text: save it as UTF-8"

BLANKS: Final = "".join(
    map(
        chr,
        (
            *(*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010)),
            *(*range(0x2028, 0x2030), 0x205F, *range(0x2060, 0x206A), 0x3000, 0xFEFF, 0xAD),
        ),
    )
)
"""White space, and what takes no room: of joined files, of other directions, of web pages."""

_DIGITS: Final = re.compile(r"[0-9]+")
_NEGATIVE: Final = re.compile(r"-[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DECIMAL: Final = re.compile(r"(?P<whole>[0-9]{1,30})[.,](?P<zeros>0{1,30})")
_SCIENTIFIC: Final = re.compile(
    r"(?P<first>[0-9])(?:[.,](?P<rest>[0-9]{1,30}))?[eE]\+?(?P<exponent>[0-9]{1,3})"
)
_GROUPS: Final = re.compile(r"[0-9]{1,3}(?:[.,'\u2019_\u00a0\u2009\u202f][0-9]{3})+")
_QUOTES: Final = ('""', "''", "\u201c\u201d", "\u2018\u2019", "``")
_EXACT_IN_FLOATS: Final = 2**53  # below it, that is: what is above may have become this


def parse_id(text: str) -> int | str:
    """Return the run id that a text stands for, or the reason why it is none.

    An id is an integer from 1 to 2**63 - 1, in ASCII digits, without sign, separators or
    leading zeros, so that the same id is never written in two ways.
    """
    text = text.strip(" \t\r\n")
    if not text:
        return "is empty"
    if _DIGITS.fullmatch(text) is None:
        return "is negative: run ids start at 1" if _NEGATIVE.fullmatch(text) else NO_NUMBER
    if not text.strip("0"):
        return "is zero: run ids start at 1"
    if text.startswith("0"):
        return "has leading zeros"
    if len(text) > len(str(MAX_RUN_ID)) or int(text) > MAX_RUN_ID:
        return f"is too large: the largest run id is {MAX_RUN_ID}"
    return int(text)


def parse_cell(text: str) -> int | str:
    """Return the run id in a cell of a file, or the reason why there is none.

    Beyond `parse_id`: quotes around it, a spreadsheet's `="101"` and `'101`, blanks and marks
    that do not show; `101.0` and `1.01E+02`, where that is the whole of an exact number.
    """
    if text.isdecimal():  # as nearly every cell is
        return parse_id(text)
    text = unquoted(text)
    if found := _DECIMAL.fullmatch(text):
        if len(found["zeros"]) == 3 and len(found["whole"]) <= 3:
            return GROUPED
        return _of_float(found["whole"])
    if found := _SCIENTIFIC.fullmatch(text):
        rest, exponent = found["rest"] or "", int(found["exponent"])
        if exponent > len(rest):
            return SHORTENED
        return NO_NUMBER if rest[exponent:].strip("0") else _of_float(found[1] + rest[:exponent])
    if looks_grouped(text):
        return GROUPED
    if text.replace("\0", "").isdigit() and "\0" in text:
        return BINARY
    return parse_id(text)


def looks_grouped(text: str) -> bool:
    """Return whether a text may be one number with separators, or as well several numbers."""
    return _GROUPS.fullmatch(text) is not None


def unquoted(text: str) -> str:
    """Return what a cell holds without blanks around it, quotes, and a spreadsheet's signs."""
    text = text.strip(BLANKS)
    if text.startswith('="'):
        text = text[1:]
    for opening, closing in _QUOTES:
        if len(text) > 1 and text.startswith(opening) and text.endswith(closing):
            return text[1:-1].strip(BLANKS)
    return text.removeprefix("'") if text[1:].isdigit() else text


def _of_float(digits: str) -> int | str:
    parsed = parse_id(digits)
    return ROUNDED if isinstance(parsed, int) and parsed >= _EXACT_IN_FLOATS else parsed
