"""A far-away service: time goes into waiting, and what counts is that everybody waits at once.

The schedule's lower bound, connections not counted::

    API round trip + ceil(files / at once) × (first byte + size / rate of a connection)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from benchmarks.errors import BenchmarkError
from benchmarks.groups.downloads import USUAL_BYTES
from benchmarks.peers.tools import AT_ONCE, CURL, TOOLS, ToolSide
from benchmarks.program import ProgramSide
from benchmarks.services import BYTES_A_SECOND, FIRST_BYTE_SECONDS, fetch_seconds
from benchmarks.tables import Row, Unit

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.rounds import Side

API_SECONDS: Final = 0.150
MOST_OVER: Final = 1.05
"""What a transfer alone may take, as a multiple of what it is to take."""

_ALONE: Final = 5


def transfer_seconds() -> float:
    """Return what one transfer takes at the least."""
    return FIRST_BYTE_SECONDS + USUAL_BYTES / BYTES_A_SECOND


def lower_bound_seconds(count: int) -> float:
    """Return what `count` files take at the least, 16 at a time."""
    return API_SECONDS + math.ceil(count / AT_ONCE) * transfer_seconds()


def measure(bench: Bench) -> list[Row]:
    """Measure the whole program against the bound; curl, which asks for no URLs, beside it."""
    count = bench.size(500, 64)
    with bench.served("latency", count, USUAL_BYTES, paced=True, delay_seconds=API_SECONDS) as (
        audio,
        storage,
        api,
    ):
        url = storage.url(audio, 1, paced=True)
        alone = [fetch_seconds(url, storage.ca_file, audio.size) for _ in range(_ALONE)]
        pace = _pace(alone)
        sides: list[Side] = [ProgramSide(one, audio, storage, api) for one in bench.programs]
        if "curl" not in bench.without:
            sides.append(ToolSide(TOOLS[CURL], audio, storage, paced=True))
        found = bench.alternate("latency", sides)
    bound = lower_bound_seconds(count)
    bench.notes.append(f"{pace} The bound is {bound:.3f} s.")
    work = (
        f"{count} × 1.76 MB; API {API_SECONDS * 1000:.0f} ms, first byte "
        f"{FIRST_BYTE_SECONDS * 1000:.0f} ms, {BYTES_A_SECOND / 1e6:.0f} MB/s a connection, "
        f"{AT_ONCE} at a time"
    )
    rows = [
        Row(
            work,
            tuple(used.wall_seconds for used in found[program.name]),
            Unit.SECONDS,
            "the schedule's lower bound",
            (bound,) * bench.rounds,
            goal=1.08,
            floor=1.15,
            who=program.name,
        )
        for program in bench.programs
    ]
    if CURL in found:
        rows.append(
            Row(
                work,
                tuple(used.wall_seconds for used in found[CURL]),
                Unit.SECONDS,
                "the bound less the API, which it need not ask",
                (bound - API_SECONDS,) * bench.rounds,
                who=CURL,
            )
        )
    return rows


def _pace(alone: list[tuple[float, float]]) -> str:
    """Say how well the storage keeps the pace.

    Raises:
        BenchmarkError: it is faster than it may be, so that the bound would be none.

    """
    first = min(one[0] for one in alone)
    last = sorted(one[1] for one in alone)
    least = transfer_seconds()
    if first < FIRST_BYTE_SECONDS or last[0] < least:
        raise BenchmarkError(
            f"the storage is ahead of its pace: first byte after {first:.4f} s, last after "
            f"{last[0]:.4f} s; {FIRST_BYTE_SECONDS} and {least} s are set"
        )
    held = "" if last[len(last) // 2] <= MOST_OVER * least else " **The pace was not held.**"
    return (
        f"One transfer alone, on a connection that is there: first byte after {first * 1000:.0f} "
        f"ms, last after {last[0] * 1000:.0f} to {last[-1] * 1000:.0f} ms; "
        f"{least * 1000:.0f} ms are set.{held}"
    )
