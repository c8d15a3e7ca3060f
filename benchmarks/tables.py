"""Rows of figures: ours beside somebody else's, the goal, and whether it is met."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Compared(StrEnum):
    """How ours is compared with theirs, round by round."""

    RATIO = "ratio"  # ours divided by theirs
    MORE = "more"  # ours less theirs
    ALONE = "alone"  # ours as it is


class Unit(StrEnum):
    """What figures are of."""

    SECONDS = "s"
    SECONDS_PER_GB = "s/GB"
    MICROSECONDS = "µs"
    BYTES = "MB"
    REQUESTS = "requests"


_SCALE: Final = {Unit.BYTES: 1e6, Unit.MICROSECONDS: 1e-6}


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: a figure of each round, in seconds, bytes or requests.

    `goal` is what is wanted at most and `floor` what is bearable at most, both of what
    `compared` says; None where nothing is asked for.
    """

    work: str
    ours: tuple[float, ...]
    unit: Unit
    against: str = ""
    theirs: tuple[float, ...] = ()
    compared: Compared = Compared.RATIO
    goal: float | None = None
    floor: float | None = None
    who: str = "downloader"

    @property
    def values(self) -> list[float]:
        """What is compared with the goal, for each round."""
        if self.compared is Compared.ALONE:
            return list(self.ours)
        pairs = zip(self.ours, self.theirs, strict=True)
        if self.compared is Compared.MORE:
            return [our - their for our, their in pairs]
        return [our / their for our, their in pairs]

    @property
    def value(self) -> float:
        """The median of `values`."""
        return median(self.values)

    @property
    def verdict(self) -> str:
        """Whether the goal is met, the floor, or neither."""
        if self.goal is None:
            return ""
        if self.value <= self.goal:
            return "met"
        return "floor met" if self.floor is not None and self.value <= self.floor else "**missed**"


_HEADINGS: Final = ("work", "against", "ours", "theirs", "compared (range)", "goal (floor)", "")


def markdown(rows: Iterable[Row]) -> str:
    """Return rows as a table of Markdown."""
    lines = []
    before: tuple[str, ...] = ()
    for row in rows:
        cells = _cells(row)
        # What is equal to the cell above it is said once.
        lines.append(["" if before[:1] == cells[:1] else cells[0], *cells[1:]])
        before = cells
    return table(_HEADINGS, lines)


def table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    return "\n".join(map(_line, [headings, ["---"] * len(headings), *lines]))


def _cells(row: Row) -> tuple[str, ...]:
    theirs = _amount(row.theirs, row.unit) if row.theirs else ""
    low, high = min(row.values), max(row.values)
    if row.compared is Compared.RATIO:
        compared = f"{row.value:.2f} × ({low:.2f}–{high:.2f})"
        goal = _goal(row, "≤ {:.4g} ×", "{:.4g} ×")
    else:
        scale = _SCALE.get(row.unit, 1.0)
        more = " more" if row.compared is Compared.MORE else ""
        shown = [f"{digits(value / scale)}" for value in (row.value, low, high)]
        unit = "" if row.unit is Unit.REQUESTS else f" {row.unit}"
        compared = f"{shown[0]}{unit}{more} ({shown[1]}–{shown[2]})"
        goal = _goal(row, f"≤ {{:.4g}}{unit}{more}", f"{{:.4g}}{unit}", scale)
    who = "" if row.who == "downloader" else f" ({row.who})"
    return (
        row.work + who,
        row.against,
        _amount(row.ours, row.unit),
        theirs,
        compared,
        goal,
        row.verdict,
    )


def _goal(row: Row, wanted: str, bearable: str, scale: float = 1.0) -> str:
    if row.goal is None:
        return ""
    text = wanted.format(row.goal / scale)
    return text if row.floor is None else f"{text} ({bearable.format(row.floor / scale)})"


def _amount(figures: Sequence[float], unit: Unit) -> str:
    return f"{digits(median(figures) / _SCALE.get(unit, 1.0))} {unit}"


def digits(value: float) -> str:
    """Return a number with three digits that count, and at least those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
