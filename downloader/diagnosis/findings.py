"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How good it is: with a problem the program cannot do its work, or not for long."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check has found; `advice` says what to do where it is not ok."""

    name: str
    status: Status
    finding: str
    advice: str | None = None


def ok(name: str, finding: str) -> Check:
    """Return that all is well."""
    return Check(name, Status.OK, finding)


def warning(name: str, finding: str, advice: str) -> Check:
    """Return that the program works, but not as it could or should."""
    return Check(name, Status.WARNING, finding, advice)


def problem(name: str, finding: str, advice: str) -> Check:
    """Return that the program cannot do its work."""
    return Check(name, Status.PROBLEM, finding, advice)
