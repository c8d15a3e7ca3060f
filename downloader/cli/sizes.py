"""Sizes on the command line."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE: Final = re.compile(r"([0-9]{1,18})(?:([kmgt])b?)?", re.ASCII)
_MOST: Final = 2**60


class Size(click.ParamType[int]):
    """A number of bytes, or a number with K, M, G or T, which count in thousands as disks do."""

    name = "size"

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
        size = int(match[1]) * _UNITS[match[2] or ""]
        if not self._minimum <= size <= _MOST:
            self.fail(
                f"{value!r} is out of range: at least {self._minimum}, less than an exabyte.",
                param,
                ctx,
            )
        return size
