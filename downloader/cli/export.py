"""`downloader export`: a manifest of what is saved, for other programs."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from downloader.cli.listing import filter_of, filter_options
from downloader.cli.options import Command, database_option
from downloader.cli.words import write_csv
from downloader.clock import utc_now
from downloader.durable import replaced
from downloader.errors import ConfigurationError, InputError
from downloader.rules.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Rows = Iterable[dict[str, Any]]


@click.command(cls=Command, epilog="Example: downloader export --format m3u --file saved.m3u8")
@click.option(
    "--format",
    "as_format",
    type=click.Choice(["csv", "jsonl", "m3u", "sha256"]),
    default="csv",
    show_default=True,
    help="CSV, JSON lines, a playlist, or what sha256sum --check reads.",
)
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    default=Path("-"),
    help="Write it here, replacing what is there at the end, whole. Default: standard output.",
)
@click.option(
    "--relative",
    is_flag=True,
    help="Paths from the folder of --file, else from the current one; default: absolute.",
)
@filter_options
@database_option
def export(
    *,
    as_format: str,
    file: Path,
    relative: bool,
    run_type: str | None,
    older_than: float | None,
    newer_than: float | None,
    saved_within: float | None,
    database: str | None,
) -> None:
    """Write a manifest of the saved files, in the order of their run ids.

    It tells what is recorded; `downloader verify` compares that with the files themselves.
    """
    from downloader.store import listing  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    write = _WRITERS[as_format]
    to_standard_output = str(file) == "-"
    folder = Path.cwd() if to_standard_output else file.absolute().parent
    with closing(open_database(database, existing=True)) as opened:
        which = filter_of(run_type, older_than, newer_than, saved_within, utc_now())
        rows: Rows = listing.saved_files(opened, which)
        if relative:
            rows = (row | {"location": os.path.relpath(row["location"], folder)} for row in rows)
        if to_standard_output:
            write(rows, sys.stdout)
            sys.stdout.flush()
            return
        try:
            with replaced(file.absolute()) as new:
                write(rows, new)
        except OSError as error:
            raise ConfigurationError(
                f"{file} cannot be written: {error.strerror}. Name another with --file."
            ) from error


def _csv(rows: Rows, to: TextIO) -> None:
    from downloader.store.listing import MANIFEST  # noqa: PLC0415 - start-up time

    write_csv([column.name for column in MANIFEST], rows, to)


def _json_lines(rows: Rows, to: TextIO) -> None:
    to.writelines(json.dumps(plain(row)) + "\n" for row in rows)


def _playlist(rows: Rows, to: TextIO) -> None:
    """Write an extended M3U: how long a file plays is not recorded, which is -1 there."""
    to.write("#EXTM3U\n")
    for row in rows:
        location = str(row["location"])
        if "\n" in location or "\r" in location:
            raise InputError(
                f"The path of run {row['run_id']} has a line break, which no playlist can have: "
                "choose another --format."
            )
        if location.startswith("#"):
            location = f"./{location}"
        to.write(f"#EXTINF:-1,{row['run_type']} {row['run_id']}\n{location}\n")


def _check_sums(rows: Rows, to: TextIO) -> None:
    r"""Write lines of sha256sum(1): a name with a line break or a \ is escaped, and so marked."""
    for row in rows:
        name = str(row["location"])
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "\\" if escaped != name else ""
        to.write(f"{mark}{row['sha256']}  {escaped}\n")


_WRITERS: Final[dict[str, Callable[[Rows, TextIO], None]]] = {
    "csv": _csv,
    "jsonl": _json_lines,
    "m3u": _playlist,
    "sha256": _check_sums,
}
