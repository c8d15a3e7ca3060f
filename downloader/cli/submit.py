"""`downloader submit`: track runs."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from downloader.cli.options import Command, database_option, json_option, type_option
from downloader.cli.suggestions import files
from downloader.clock import utc_now
from downloader.errors import InputError
from downloader.rules.id_encodings import ENOUGH_BYTES, NoText, encoding_of
from downloader.rules.ids import BadId, NoIdColumn, parse_id, parse_pieces, show_id
from downloader.rules.json_array import MAX_LINE_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.rules.ids import Item

_BAD_IDS_SHOWN: Final = 10
_COLUMNS_SHOWN: Final = 10
_BAD_IDS_ENOUGH: Final = 10_000
"""Whoever has so many has named the wrong file, and it may have no end."""


@click.command(cls=Command, epilog="Example: downloader submit 12345 67890")
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...")
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATH|-",
    shell_complete=files,
    help="Read ids from a file (- is standard input): one a line, a JSON array, or JSON lines "
    "or CSV with a column run_id.",
)
@type_option
@database_option
@json_option
def submit(
    *,
    run_ids: tuple[str, ...],
    files: tuple[str, ...],
    run_type: str,
    database: str | None,
    as_json: bool,
) -> None:
    """Track runs by their run ids: all of them, or on any bad id none.

    Ids that are tracked already are counted, not changed. When this returns, they are on the
    disk.
    """
    from downloader.store.intake import submit as store_ids  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    if not run_ids and not files:
        raise click.UsageError("Give run ids, or --file with a file of them (- reads a pipe).")
    if files.count("-") > 1:
        raise click.UsageError("Standard input can be read only once: give --file - once.")
    with closing(open_database(database)) as opened:
        result = store_ids(opened, run_type, _read(run_ids, files), utc_now())
    if as_json:
        click.echo(json.dumps({"submitted": result.submitted, "known": result.known}))
    else:
        click.echo(f"submitted {result.submitted} new, {result.known} already tracked")


def _read(run_ids: tuple[str, ...], files: tuple[str, ...]) -> Iterator[int]:
    """Yield every id; at the end raise `InputError` if any was bad.

    The ids are yielded as they are read, so a million of them need no memory; the store
    records nothing when this raises.
    """
    bad = _BadIds()
    for text in run_ids:
        found = parse_id(text)
        if isinstance(found, int):
            yield found
        elif text == "-" or (not text.isdigit() and os.path.isfile(text)):  # noqa: PTH113 - any text
            raise InputError(
                f"{show_id(text)} is no run id: to read ids from it, "
                f"`downloader submit --file {shlex.quote(show_id(text))}`. Nothing was recorded."
            )
        else:
            bad.add(f"{show_id(text)!r} {found}")
    for name in files:
        read = 0
        for item in _parse(name):
            if isinstance(item, NoIdColumn):
                raise InputError(_no_column(name, item))
            if isinstance(item, BadId):
                bad.add(f"{_title(name)}, line {item.line}: {item.value!r} {item.reason}")
            else:
                read += 1
                yield item
        if read == 0 and not bad.count:
            raise InputError(f"{_title(name)} has no run ids: nothing was recorded.")
    if bad.count:
        raise InputError(bad.message())


def _title(name: str) -> str:
    return "standard input" if name == "-" else name


def _no_column(name: str, found: NoIdColumn) -> str:
    columns = ", ".join(found.columns[:_COLUMNS_SHOWN])
    if (more := len(found.columns) - _COLUMNS_SHOWN) > 0:
        columns += f" and {more} more"
    return (
        f"{_title(name)} looks like CSV, but has no column run_id; its columns in line "
        f"{found.line} are: {columns}. Name that of the ids run_id. "
        "Nothing was recorded."
    )


def _parse(name: str) -> Iterator[Item]:
    """Read one file, in the encoding that its first bytes tell."""
    try:
        with _opened(name) as binary:
            found = encoding_of(binary.peek(ENOUGH_BYTES)[:ENOUGH_BYTES])
            if isinstance(found, NoText):
                raise InputError(f"{_title(name)} is {found.what}. Nothing was recorded.")
            with io.TextIOWrapper(binary, found, errors="replace", newline=None) as text:
                yield from parse_pieces(_pieces(text))
    except OSError as error:
        raise InputError(
            f"{_title(name)} cannot be read: {error.strerror}. Nothing was recorded."
        ) from error


def _opened(name: str) -> io.BufferedReader:
    if name == "-" and sys.stdin is None:  # closed by the caller
        raise InputError("standard input is closed: nothing was recorded.")
    source = sys.stdin.buffer if name == "-" else io.open(name, "rb")  # noqa: UP020, SIM115 - of any name; closed with the other
    # One more buffer: it is filled before it is looked into, where a pipe gives byte by byte.
    return io.BufferedReader(source)  # type: ignore[arg-type] # it reads as a raw one does


def _pieces(stream: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers, long ones in pieces: some files have no line's end at all."""
    number = 1
    while piece := stream.readline(MAX_LINE_CHARACTERS):
        yield number, piece
        number += piece.endswith("\n")


class _BadIds:
    """The first bad ids, and how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def add(self, line: str) -> None:
        self.count += 1
        if len(self._first) < _BAD_IDS_SHOWN:
            self._first.append(line)
        if self.count == _BAD_IDS_ENOUGH:
            raise InputError(self.message())

    def message(self) -> str:
        more = self.count - len(self._first)
        least = "at least " if self.count == _BAD_IDS_ENOUGH else ""
        return "\n".join(
            [
                (
                    f"{least}{self.count} bad run {'id' if self.count == 1 else 'ids'}; "
                    "nothing was recorded. Correct and submit again:"
                ),
                *(f"  {line}" for line in self._first),
                *([f"  … and {more} more"] if more else []),
            ]
        )
