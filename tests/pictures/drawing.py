"""Screens as SVG: one, or a film of them, which CSS alone moves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from pictures.film import COLUMNS, Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pictures.film import Picture, Piece

_COLUMN: Final = 8.4
_LINE: Final = 18
_BASE: Final = 13.5
"""From the top of a line to what its letters stand on."""
_MARGIN: Final = 14

# By pyte's names of a terminal's colours; its brown is what others call yellow.
_COLOURS: Final = (
    "default",
    "black",
    "red",
    "green",
    "brown",
    "blue",
    "magenta",
    "cyan",
    "white",
    "inverse",
)
_LIGHT: Final = "#1f2328 #24292f #b31d28 #116329 #7d4e00 #0550ae #6f42c1 #1b6f80 #57606a #ffffff"
_DARK: Final = "#e6edf3 #8b949e #ff7b72 #56d364 #e3b341 #79c0ff #d2a8ff #56d4dd #b1bac4 #0d1117"


def still(picture: Picture, title: str) -> str:
    """Draw what is on a screen."""
    return film([Frame(0.0, picture)], 0.0, title)


def film(frames: Sequence[Frame], seconds: float, title: str) -> str:
    """Draw a film that goes on and on: all its frames on one strip, which jumps behind a window.

    A line that is on many frames is drawn once. Where nothing moves, because the viewer cannot or a
    person wants it so, the last frame is seen.
    """
    width, height = round(COLUMNS * _COLUMN), len(frames[0].picture) * _LINE
    lines: dict[tuple[Piece, ...], int] = {}
    strip = []
    for number, frame in enumerate(frames):
        uses = "".join(
            f'<use href="#l{lines.setdefault(line, len(lines))}" y="{row * _LINE}"/>'
            for row, line in enumerate(frame.picture)
            if line
        )
        strip.append(f'<g transform="translate(0 {number * height})">{uses}</g>\n')
    drawn = "".join(
        f'<g id="l{number}">{"".join(map(_drawn, line))}</g>\n' for line, number in lines.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 2 * _MARGIN} '
        f'{height + 2 * _MARGIN}" width="{width + 2 * _MARGIN}" height="{height + 2 * _MARGIN}" '
        f'role="img"><title>{escape(title)}</title>\n'
        f"<style>\n{_colours(_LIGHT)}"
        f"@media(prefers-color-scheme:dark){{\n{_colours(_DARK)}}}\n"
        f"text{{font:14px ui-monospace,SFMono-Regular,'Cascadia Mono',Menlo,Consolas,"
        f"'DejaVu Sans Mono','Liberation Mono',monospace}}\n.bold{{font-weight:bold}}\n"
        f"{_motion(frames, seconds, height) if len(frames) > 1 else ''}</style>\n"
        f"<defs>\n{drawn}</defs>\n"
        f'<rect class="inverse" stroke="#8b949e" x=".5" y=".5" width="{width + 2 * _MARGIN - 1}" '
        f'height="{height + 2 * _MARGIN - 1}" rx="6"/>\n'
        f'<svg x="{_MARGIN}" y="{_MARGIN}" width="{width}" height="{height}"><g class="strip" '
        f'transform="translate(0 {(1 - len(frames)) * height})">\n{"".join(strip)}</g>'
        "</svg>\n</svg>\n"
    )


def _drawn(piece: Piece) -> str:
    """Draw characters as wide as a terminal would, whatever font there is.

    What stands apart is drawn apart: viewers take several blanks for one.
    """
    colour = piece.style.colour if piece.style.colour in _COLOURS else "default"
    drawn = ""
    if piece.style.inverse:
        x, width = _columns(piece.column), _columns(len(piece.text))
        drawn = f'<rect class="{colour}" x="{x}" width="{width}" height="{_LINE}"/>'
        colour = "inverse"
    classes = f"{colour} bold" if piece.style.bold else colour
    for words in re.finditer(r"[^ ]+(?: [^ ]+)*", piece.text):
        drawn += (
            f'<text class="{classes}" x="{_columns(piece.column + words.start())}" y="{_BASE}" '
            f'textLength="{_columns(len(words[0]))}" lengthAdjust="spacingAndGlyphs">'
            f"{escape(words[0])}</text>"
        )
    return drawn


def _columns(number: int) -> str:
    return f"{number * _COLUMN:g}"


def _colours(values: str) -> str:
    named = zip(_COLOURS, values.split(), strict=True)
    return "".join(f".{name}{{fill:{value}}}\n" for name, value in named)


def _motion(frames: Sequence[Frame], seconds: float, height: int) -> str:
    jumps = "\n".join(
        f"{frame.at / seconds:.4%}{{transform:translateY({-number * height}px)}}"
        for number, frame in enumerate(frames)
    )
    return (
        f".strip{{animation:film {seconds:.2f}s step-end infinite}}\n"
        f"@keyframes film{{\n{jumps}\n}}\n"
        f"@media(prefers-reduced-motion:reduce){{.strip{{animation:none}}}}\n"
    )
