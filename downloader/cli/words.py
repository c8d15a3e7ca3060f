"""Moments, durations, sizes and rows: for people."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

from downloader.camb.run_types import DEFAULT_RUN_TYPE
from downloader.rules.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import TextIO

_SIZES: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")
_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def minute(when: datetime) -> str:
    """Return a moment as a person wants it."""
    return when.strftime("%Y-%m-%d %H:%M UTC")


def span(seconds: float) -> str:
    """Return a duration in its two largest units: 2 d 4 h, 3 min 20 s."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for length, unit in _SPANS:
        number, left = divmod(left, length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
        elif parts:
            break  # 1 h, not 1 h 4 s
        if len(parts) == 2:
            break
    return " ".join(parts)


def run_name(run_type: str, run_id: object) -> str:
    """Return what a run is called: by its id, and where it is not of the usual type by that too.

    As its file is, below the output folder; `run_key` reads it.
    """
    return str(run_id) if run_type == DEFAULT_RUN_TYPE else f"{run_type}/{run_id}"


def size(number: float) -> str:
    """Return a number of bytes in thousands, as disks are sold: 14.3 GB."""
    for unit in _SIZES[:-1]:
        if abs(number) < (1000 if unit == "bytes" else 999.95):
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} {_SIZES[-1]}"


def rate(per_second: float, unit: str) -> str:
    """Return how many of something in a second, or in the shortest time that has one."""
    for seconds, name in ((1, "second"), (60, "minute"), (3600, "hour")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:,.1f} {unit} a {name}"
    return f"{per_second * 86400:,.1f} {unit} a day"


def write_csv(columns: list[str], rows: Iterable[dict[str, Any]], to: TextIO) -> None:
    """Write rows as CSV with a heading; nothing stands where there is no value."""
    writer = csv.DictWriter(to, columns, lineterminator="\n")  # as other commands end lines
    writer.writeheader()
    writer.writerows(map(plain, rows))
