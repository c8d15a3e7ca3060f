"""The parameters of faults: what each may be, so that no rule makes the simulator itself fail."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.simulator.errors import SimulatorError, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_SECONDS: Final = 1e10
"""Three hundred years: no date overflows so soon."""

_MOST_INTEGER: Final = 2**63 - 1

_DEEPEST: Final = 100
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a fault: its type, its default (None: derived), what it means."""

    kind: type
    default: object
    meaning: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    """Also how far below zero it may be; None: what dates, or 64 bits, can take."""
    header: bool = False
    """The text goes into a header."""

    def check(self, name: str, value: object) -> None:
        """Raise `SimulatorError` unless `value` fits."""
        if self.kind is object:
            _check_json(name, value)
            return
        wanted: tuple[type, ...] = (int, float) if self.kind is float else (self.kind,)
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.kind is not bool):
            raise SimulatorError(f"{name} must be {_TYPE_NAMES[self.kind]}, not {shown(value)}")
        most = self.most or (MOST_SECONDS if self.kind is float else _MOST_INTEGER)
        if isinstance(value, int | float) and not abs(value) <= most:  # NaN is not, either
            raise SimulatorError(f"{name} must be at most {most:g}, not {shown(value)}")
        if isinstance(value, dict):
            _check_headers(name, value)
        if isinstance(value, str) and not value.isprintable():
            raise SimulatorError(f"{name} must be printable text, not {shown(value)}")
        if isinstance(value, str) and self.header and not _fits_header(value):
            raise SimulatorError(f"{name} must be text that a header can have, not {shown(value)}")
        if self.least is not None and isinstance(value, int | float) and value < self.least:
            raise SimulatorError(f"{name} must be {self.least:g} or more, not {shown(value)}")
        if self.choices and value not in self.choices:
            raise SimulatorError(
                f"{name} must be one of {', '.join(self.choices)}, not {shown(value)}"
            )


def _check_json(name: str, value: object) -> None:
    """Refuse what JSON has not, though Python reads it, and what is nested beyond all use."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        level, depth = [item for one in level for item in _items(one)], depth + 1
    if level:
        raise SimulatorError(f"{name} is nested too deeply")
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:  # UnicodeEncodeError is one
        raise SimulatorError(f"{name} must be JSON, not {shown(value)}") from None


def _items(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_headers(name: str, headers: Mapping[object, object]) -> None:
    for key, text in headers.items():
        if not isinstance(key, str) or _HEADER_NAME.fullmatch(key) is None:
            raise SimulatorError(f"{name} must be named as headers are, not {shown(key)}")
        if text is not None and not (isinstance(text, str) and _fits_header(text)):
            raise SimulatorError(f"{name} must be texts that headers can have, not {shown(text)}")


def _fits_header(text: str) -> bool:
    """Tell whether a text can stand in a header: printable, and in Latin-1."""
    return text.isprintable() and all(ord(character) < 256 for character in text)


_TYPE_NAMES: Final[Mapping[type, str]] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    dict: "an object",
    bool: "true or false",
}
