"""Rows as JSON has them: for people's programs, and for hooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def moment(when: datetime | None) -> str | None:
    """Return a moment as the database has it: UTC, with microseconds."""
    return None if when is None else when.strftime("%Y-%m-%d %H:%M:%S.%f")


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON can have it, also one of a damaged database."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return moment(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
