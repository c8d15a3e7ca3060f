"""Which runs to ask for together: 2 to 5 of one type a request, in as few requests as possible.

A lone run cannot go through the bulk endpoint and costs a request of its own, so that batches
are balanced (6 = 3+3, not 5+1) and short ones are topped up with runs that are due soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.rules.states import RunKey

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_BATCH: Final = 2
"""`minItems` of `RunIDsRequestPayload.run_ids` in the service's OpenAPI."""

MAX_BATCH: Final = 5
"""`maxItems` of `RunIDsRequestPayload.run_ids` in the service's OpenAPI."""

ASKED_ALONE: Final = 2
"""After so many polls in a row without an answer, while others had theirs, a run is asked for by
itself: in a batch it would keep others from theirs, or one of these keeps it from its own."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs of one type to be asked for in one request: a single run where there is no other."""

    run_type: str
    run_ids: tuple[int, ...]


def plan(due: Sequence[RunKey], soon: Sequence[RunKey]) -> list[Batch]:
    """Put every due run into exactly one batch, with as few batches as possible.

    Both sequences are in order of urgency; the batch of the most urgent run comes first. Runs
    of `soon` only fill up batches that a due run needs anyway.
    """
    order = {key: position for position, key in reversed(list(enumerate(due)))}
    due_by_type = _by_type(due)
    soon_by_type = _by_type([key for key in soon if key not in order])
    batches: list[tuple[int, Batch]] = []
    for run_type, run_ids in due_by_type.items():
        fillers = iter(soon_by_type.get(run_type, ()))
        start = 0
        for size in _sizes(len(run_ids)):
            chosen = run_ids[start : start + size]
            start += size
            first = order[RunKey(run_type, chosen[0])]
            while len(chosen) < MAX_BATCH and (filler := next(fillers, None)) is not None:
                chosen.append(filler)
            batches.append((first, Batch(run_type, tuple(chosen))))
    return [batch for _, batch in sorted(batches, key=lambda entry: entry[0])]


def split(run_ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Halve a batch that was refused as a whole, to find the run to blame: 5 into 3+2.

    Raises ValueError for fewer than two runs: such a batch has its culprit already.
    """
    if len(run_ids) < MIN_BATCH:
        raise ValueError("A batch of fewer than two runs cannot be split")
    middle = (len(run_ids) + 1) // 2
    return tuple(run_ids[:middle]), tuple(run_ids[middle:])


def claim_size(budget: int, due: int) -> int:
    """Return how many due runs to claim where workers have use for `budget` URLs.

    Rounded up to whole batches: the request is paid for anyway, and some runs will not be
    finished yet. Never more than are due.
    """
    if budget <= 0 or due <= 0:
        return 0
    return min(due, -(-budget // MAX_BATCH) * MAX_BATCH)


def _by_type(keys: Sequence[RunKey]) -> dict[str, list[int]]:
    grouped: dict[str, list[int]] = {}
    for run_type, run_id in dict.fromkeys(keys):
        grouped.setdefault(run_type, []).append(run_id)
    return grouped


def _sizes(count: int) -> list[int]:
    whole, rest = divmod(count, MAX_BATCH)
    if rest == 1 and whole:
        return [MAX_BATCH] * (whole - 1) + [3, 3]
    return [MAX_BATCH] * whole + ([rest] if rest else [])
