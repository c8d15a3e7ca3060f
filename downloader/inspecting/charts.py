"""Bar charts as numbers: where each bar stands, and what is written beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WIDTH: Final = 480
HEIGHT: Final = 150
_BASE: Final = 128
_TOP: Final = 22
_GAP: Final = 0.2
_SMALLEST: Final = 1.0
"""How high a bar is that would be too low to be seen."""

_LABELS: Final = 4


class Bar(NamedTuple):
    """A bar, in the units of the drawing; `told` is what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    told: str


class Label(NamedTuple):
    """A time on the axis."""

    x: float
    text: str


class Chart(NamedTuple):
    """A chart: its bars, the times below them, and what the highest stands for."""

    title: str
    bars: list[Bar]
    labels: list[Label]
    most: str
    sum: str


class Slots(NamedTuple):
    """Equal stretches of time up to now: how long one is, how many, how their beginning is told."""

    length: timedelta
    number: int
    stored: str
    shown: str

    def beginnings(self, now: datetime) -> list[datetime]:
        """Return when each begins, the one of now at the end."""
        seconds = self.length.total_seconds()
        last = datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
        return [last - self.length * back for back in reversed(range(self.number))]


HOURS: Final = Slots(timedelta(hours=1), 24, "%Y-%m-%d %H:00:00", "%H:%M")
MINUTES: Final = Slots(timedelta(minutes=1), 60, "%Y-%m-%d %H:%M:00", "%H:%M")


def draw(
    title: str,
    slots: Slots,
    found: Mapping[str, int],
    now: datetime,
    written: Callable[[int], str],
) -> Chart:
    """Draw what was found in each slot; `found` has them by their beginning, as SQL writes it."""
    begins = slots.beginnings(now)
    values = [found.get(begin.strftime(slots.stored), 0) for begin in begins]
    most = max(values)
    step = WIDTH / slots.number
    bars = []
    for place, (begin, value) in enumerate(zip(begins, values, strict=True)):
        if value > 0:
            height = max(_SMALLEST, value / most * (_BASE - _TOP))
            told = f"{begin.strftime(slots.shown)} UTC: {written(value)}"
            bars.append(Bar(place * step, _BASE - height, step * (1 - _GAP), height, told))
    every = slots.number // _LABELS
    labels = [
        Label(place * step, begins[place].strftime(slots.shown))
        for place in range(0, slots.number, every)
    ]
    return Chart(title, bars, labels, written(most), written(sum(values)))
