"""The one source of randomness for the rules."""

from __future__ import annotations

import random


def jitter() -> float:
    """Return a random number in [0, 1)."""
    return random.random()  # noqa: S311 - spreads load, guards nothing
