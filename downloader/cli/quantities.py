"""Durations, sizes and rates on the command line."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import click

if TYPE_CHECKING:
    from click import ParamType as _ParamType
else:
    T = TypeVar("T")

    class _ParamType(click.ParamType, Generic[T]):
        """Click's own, which is no generic class before 8.4."""


_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604_800.0}
_DURATION: Final = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)([smhdw]?)")

_RATE: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)

_BYTES: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE: Final = re.compile(r"([0-9]{1,18})(?:([kmgt])b?)?", re.ASCII)
_MOST_BYTES: Final = 2**60


class Duration(_ParamType[float]):
    """A duration: seconds, or a number with s, m, h, d or w."""

    name = "duration"

    @staticmethod
    def show(seconds: float) -> str:
        """Return a duration as it is typed, in the largest unit that it is a whole number of."""
        for unit, size in reversed(_SECONDS.items()):
            if unit and seconds >= size and seconds % size == 0:
                return f"{seconds / size:.0f}{unit}"
        return f"{seconds:.12g}s"

    def __init__(
        self, minimum: float = 0.0, maximum: float = math.inf, *, needs_unit: bool = False
    ) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._needs_unit = needs_unit

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the duration in seconds."""
        match = _DURATION.fullmatch(str(value).strip().lower())
        if match is not None and self._needs_unit and not match[2]:
            self.fail(f"{value!r} has no unit: give 30d, 12h, 90m or 90s.", param, ctx)
        if match is None:
            self.fail(
                f"{value!r} is not a duration: give seconds, or 90s, 5m, 24h, 2d, 1w.", param, ctx
            )
        seconds = float(match[1]) * _SECONDS[match[2]]
        if not self._minimum <= seconds <= min(self._maximum, 10 * 365 * 86400.0):
            least = f"at least {self._minimum:g} seconds, " if self._minimum > -math.inf else ""
            self.fail(f"{value!r} is out of range: {least}at most ten years.", param, ctx)
        return seconds


class Whole(click.IntRange):
    """A whole number within a range; who gives another is told which."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Return the number."""
        try:
            number: int = super().convert(value, param, ctx)
        except click.BadParameter:
            most = "" if self.max is None else f" to {self.max}"
            least = f"from {self.min}{most}" if most else f"of {self.min} or more"
            self.fail(f"{str(value)!r} is not a whole number {least}.", param, ctx)
        return number


class Size(_ParamType[int]):
    """A number of bytes, or a number with K, M, G or T, which count in thousands as disks do."""

    name = "size"

    @staticmethod
    def show(size: int) -> str:
        """Return a size as it is typed, in the largest unit that it is a whole number of."""
        for unit, bytes_ in reversed(_BYTES.items()):
            if size >= bytes_ and size % bytes_ == 0:
                return f"{size // bytes_}{unit.upper()}"
        return str(size)

    def __init__(self, minimum: int = 0) -> None:
        self._minimum = minimum

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Return the size in bytes."""
        match = _SIZE.fullmatch(str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is not a size: give bytes, or 500M, 10G.", param, ctx)
        size = int(match[1]) * _BYTES[match[2] or ""]
        if not self._minimum <= size <= _MOST_BYTES:
            self.fail(
                f"{value!r} is out of range: at least {self._minimum}, less than an exabyte.",
                param,
                ctx,
            )
        return size


class Rate(_ParamType[float]):
    """How often in a second: a plain number."""

    name = "rate"

    def __init__(self, minimum: float, maximum: float) -> None:
        self._minimum = minimum
        self._maximum = maximum

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return how often in a second."""
        text = str(value).strip()
        if _RATE.fullmatch(text) is None:
            self.fail(
                f"{value!r} is not a rate: give times a second, such as 2 or 0.5.", param, ctx
            )
        rate = float(text)
        if not self._minimum <= rate <= self._maximum:
            self.fail(
                f"{value!r} is out of range: at least {self._minimum:g}, at most "
                f"{self._maximum:g} a second.",
                param,
                ctx,
            )
        return rate
