"""How the text of a file with run ids is encoded, told from its first bytes."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

ENOUGH_BYTES: Final = 512
"""So many first bytes tell it, or fewer where the file is shorter."""

# Longest first: that of UTF-32 begins as that of UTF-16 does.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAVE_AS_CSV: Final = "open it, and save the sheet as CSV"
_OTHERS: Final = (
    (b"PK\x03\x04", f"a zip file, as Excel's .xlsx and .ods are: {_SAVE_AS_CSV}"),
    (b"\xd0\xcf\x11\xe0", f"a workbook of Excel's: {_SAVE_AS_CSV}"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first, with gunzip"),
    (b"BZh", "compressed by bzip2: unpack it first, with bunzip2"),
    (b"\xfd7zXZ\x00", "compressed by xz: unpack it first, with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first, with unzstd"),
    (b"%PDF-", "a PDF: save its list as text"),
    (b"{\\rtf", "a document (RTF): save it as plain text"),
    (b"SQLite format 3\x00", "an SQLite database: select the ids of it, with sqlite3"),
    (b"PAR1", "a Parquet file: save its column as CSV"),
)


@dataclass(frozen=True, slots=True)
class NoText:
    """A file of another kind: what it is, and what to do."""

    what: str


def encoding_of(first: bytes) -> str | NoText:
    """Return the encoding of a text that begins with these bytes, `ENOUGH_BYTES` of them.

    A byte order mark tells it; UTF-16 without one is known by its ends of lines. Anything else
    is UTF-8, or close enough to it: ids are ASCII.
    """
    for mark, name in _MARKS:
        if first.startswith(mark):
            return name
    for magic, what in _OTHERS:
        if first.startswith(magic):
            return NoText(what)
    even, odd = first[0::2], first[1::2]
    if b"\n\0" in first and not any(odd) and all(even):
        return "utf-16-le"
    if b"\0\n" in first and not any(even) and all(odd):
        return "utf-16-be"
    return "utf-8"
