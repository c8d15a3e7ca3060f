"""The picture of growth: one small chart a cost, all on the same scale of sizes.

Run as a process of its own: `python -m benchmarks.plot FIGURES.json PICTURE.svg`. The same figures
make the same file, byte for byte.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

_COLOURS: Final = ("#1f5fa8", "#c8641e")  # told apart also by those who see no red and green
_LEAST_DECADES: Final = 2.0
"""How much a chart shows at the least, so that noise does not look like growth."""


def draw(sizes: list[int], costs: dict[str, dict[str, list[float]]]) -> Figure:
    """Return the charts side by side."""
    figure = Figure(figsize=(3.1 * len(costs), 3.0), layout="constrained")
    for axes, (what, lines) in zip(figure.subplots(1, len(costs)), costs.items(), strict=True):
        for colour, (whose, values) in zip(_COLOURS, lines.items(), strict=False):
            axes.loglog(sizes, values, color=colour, marker="o", markersize=4, label=whose)
        axes.set_title(what.replace("`", ""), fontsize=10)
        axes.set_xlabel("runs in the database", fontsize=9)
        axes.set_ylim(*_limits([value for values in lines.values() for value in values]))
        axes.xaxis.set_major_locator(LogLocator(numticks=len(sizes)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(labelsize=8)
        axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    return figure


def _limits(values: list[float]) -> tuple[float, float]:
    """Return limits around values, at least so many decades apart."""
    low, high = min(values) / 1.5, max(values) * 1.5
    missing = 10**_LEAST_DECADES / (high / low)
    if missing > 1:
        low, high = low / missing**0.5, high * missing**0.5
    return low, high


def main(figures: Path, picture: Path) -> None:
    """Draw what a file of figures says."""
    mpl.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none"})
    content = json.loads(figures.read_text("utf-8"))
    figure = draw(content["sizes"], content["costs"])
    figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    # Without the spaces at the ends of lines, which matplotlib leaves.
    lines = picture.read_text("utf-8").splitlines()
    picture.write_text("".join(f"{line.rstrip()}\n" for line in lines), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
