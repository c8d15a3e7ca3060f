"""Range requests (RFC 9110, sections 13 and 14): one range of bytes, and If-Range."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_ONE_RANGE: Final = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))", re.ASCII)


@dataclass(frozen=True)
class Part:
    """What to send: the bytes from `start` to before `stop`, of `total`."""

    status: int
    start: int
    stop: int
    total: int

    @property
    def content_range(self) -> str | None:
        """The header, where there is one: for 206 and 416."""
        if self.status == 206:
            return f"bytes {self.start}-{self.stop - 1}/{self.total}"
        return f"bytes */{self.total}" if self.status == 416 else None

    def capped(self, most: int, *, unasked: bool) -> Part:
        """Return at most so many bytes of it, as 206; the whole file only if `unasked`."""
        if self.status == 416 or (self.status == 200 and not unasked) or self.total == 0:
            return self
        return Part(206, self.start, min(self.stop, self.start + most), self.total)


def part_asked_for(
    headers: Mapping[str, str], total: int, *, etag: str | None, last_modified: str
) -> Part:
    """Which part of `total` bytes the headers (lower-case names) ask for.

    What is not one well-formed range of bytes is ignored, as the RFC allows.
    """
    whole = Part(200, 0, total, total)
    match = _ONE_RANGE.fullmatch(headers.get("range", "").strip())
    if match is None:
        return whole
    condition = headers.get("if-range")
    if condition is not None and not _holds(condition.strip(), etag, last_modified):
        return whole
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(total - int(suffix), 0), total
    else:
        start, stop = int(first), min(int(last) + 1, total) if last else total
        if last and int(last) < int(first):
            return whole
    if start >= total or start == stop:
        return Part(416, 0, 0, total)
    return Part(206, start, stop, total)


def _holds(condition: str, etag: str | None, last_modified: str) -> bool:
    if condition.startswith('"'):
        return condition == etag  # strong comparison: a weak tag of ours equals nothing
    return not condition.startswith("W/") and condition == last_modified
