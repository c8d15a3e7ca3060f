"""What a verification may find, and how many of each it has found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from downloader.rules.states import RunKey


class Kind(StrEnum):
    """What is wrong."""

    DAMAGED = "damaged"  # a saved file is not what was saved
    MISSING = "missing"  # a saved file is not there
    UNREADABLE = "unreadable"  # nobody can say what is there
    UNRECORDED = "unrecorded"  # a file of ours, whole: only its commit was lost
    ORPHAN = "orphan"  # a file named as ours are, which no done run has
    STALE_PART = "stale_part"  # what is left of a transfer that is over


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, in words for a person; `repair` is what was done about it.

    `key` is None where it is no run's: a folder that cannot be read, a leftover without a run.
    """

    kind: Kind
    key: RunKey | None
    path: str
    detail: str
    repair: str | None = None


@dataclass(slots=True)
class Tally:
    """How far a verification is: files looked at, bytes read of them, what was found.

    `repaired` counts the findings that were put right, `put_back` the runs among them that are
    to be fetched anew.
    """

    checked: int = 0
    read_bytes: int = 0
    found: Counter[Kind] = field(default_factory=Counter)
    repaired: int = 0
    put_back: int = 0

    def count(self, finding: Finding) -> Finding:
        """Count a finding, and return it."""
        self.found[finding.kind] += 1
        if finding.repair is not None:
            self.repaired += 1
            self.put_back += finding.kind in (Kind.DAMAGED, Kind.MISSING)
        return finding
