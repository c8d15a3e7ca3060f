"""Reading JSON from a server that may send anything at all."""

from __future__ import annotations

import json
import math
from enum import Enum
from typing import Final

_MAX_INTEGER_CHARACTERS: Final = 40
"""Python refuses to read integers of thousands of digits; one of them must not spoil an answer."""


class Unreadable(Enum):
    """What stands for a text that is not JSON; None would be JSON's null."""

    UNREADABLE = "unreadable"


def read_json(text: bytes | str) -> object:
    """Return the JSON value, or `Unreadable.UNREADABLE`; never raises.

    Integers of more than 40 characters become infinite.
    """
    try:
        value: object = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError):
        return Unreadable.UNREADABLE
    return value


def _integer(text: str) -> float:
    return int(text) if len(text) <= _MAX_INTEGER_CHARACTERS else math.inf
