"""Whether memory is low enough to do less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_LEAST_BYTES: Final = 200_000_000
_LEAST_SHARE: Final = 0.05
"""What is to stay available: the smaller of the two, of a small machine and of a large one."""

_OWN_SHARE: Final = 0.7
_STALLED_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Memory:
    """Where memory stands: bytes, of the machine or the container, whichever has less.

    `resident_bytes` is what this process itself has in use; `stalled_share` the part of the last
    ten seconds in which some process had to wait for memory, 0 to 1.
    """

    total_bytes: int
    available_bytes: int
    resident_bytes: int
    stalled_share: float


def is_low(memory: Memory) -> bool:
    """Return whether it is time to do less, so that nobody has to be killed."""
    return (
        memory.available_bytes < min(_LEAST_BYTES, _LEAST_SHARE * memory.total_bytes)
        or memory.resident_bytes > _OWN_SHARE * memory.total_bytes
        or memory.stalled_share > _STALLED_SHARE
    )
