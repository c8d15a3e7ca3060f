"""The one error of the simulator that is meant for its user."""

from __future__ import annotations

import reprlib
from typing import Final

_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100


class SimulatorError(Exception):
    """The simulator cannot do what it was asked to: a bad option or rule, or a port in use."""


def shown(value: object) -> str:
    """Return a value that somebody gave, as an error can name it: short, however large it is."""
    return _REPR.repr(value)
