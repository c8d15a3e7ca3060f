"""How a service gets on: bars on a terminal, a log line at intervals elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, Self

from downloader.logger import get_logger
from downloader.observe.painted import Painted

if TYPE_CHECKING:
    from types import TracebackType

_log = get_logger(__name__)

LONG_SECONDS: Final = 5.0
"""From how long on a transfer has a line of its own."""

_MOST_LINES: Final = 8
_LEFT_FREE: Final = 4
"""So many lines of a terminal are not for long transfers: two bars, and what was there before."""


class LongTransfer(NamedTuple):
    """A transfer that takes long: what is there of the file, and what came in so many seconds."""

    run_id: int
    bytes: int
    total_bytes: int | None
    seconds: float
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a service stands: what this call has finished, and what is left in the database.

    `transferring` runs are being saved, of `concurrency` that may be at a time just now; those of
    them that take `long` are told apart. `remaining_bytes` is an estimate, None where there is
    nothing to go by.
    """

    done: int
    failed: int
    unfinished: int
    transferring: int
    concurrency: int
    received_bytes: int
    remaining_bytes: int | None
    blocked: str | None
    blocked_why: str | None = None
    long: tuple[LongTransfer, ...] = ()
    hooks: int = 0
    """How many hooks are under way or wait."""
    waits: str | None = None
    """What is waited for where nothing is transferring, in words; known to who draws alone."""


class Reporter(Protocol):
    """Shows snapshots, one every `every_seconds`."""

    @property
    def every_seconds(self) -> float:
        """How often to show one; seconds."""

    @property
    def tells_of_waits(self) -> bool:
        """Whether it shows what is waited for."""

    def show(self, snapshot: Snapshot) -> None:
        """Show how it stands now."""


class Silent:
    """Shows nothing."""

    every_seconds: ClassVar[float] = 3600.0
    tells_of_waits: ClassVar[bool] = False

    def show(self, snapshot: Snapshot) -> None:
        """Show nothing."""


class LogLines:
    """A log line every 30 seconds."""

    every_seconds: ClassVar[float] = 30.0
    tells_of_waits: ClassVar[bool] = False

    def show(self, snapshot: Snapshot) -> None:
        """Write a line."""
        _log.info(
            "progress",
            done=snapshot.done,
            failed=snapshot.failed,
            unfinished=snapshot.unfinished,
            transferring=snapshot.transferring,
            concurrency=snapshot.concurrency,
            received_bytes=snapshot.received_bytes,
            **({"hooks": snapshot.hooks} if snapshot.hooks else {}),
        )


class Bars:
    """Runs and bytes in two bars on a terminal, what is waited for, and each transfer that is long.

    Nothing is drawn as long as there is nothing to do. A run that has failed is no progress: the
    bar is of those that can still be saved.
    """

    every_seconds: ClassVar[float] = 0.1
    tells_of_waits: ClassVar[bool] = True

    def __init__(self) -> None:
        self._painted = Painted(sys.stderr)
        self._began_at = time.monotonic()
        self._last: Snapshot | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            if self._last is not None:
                self._painted.show(self._bars(self._last, over=True))
            self._painted.leave()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the bars; a terminal that is gone is no reason to end."""
        with contextlib.suppress(OSError):
            if self._last is None and not (snapshot.unfinished or snapshot.done or snapshot.failed):
                return
            self._last = snapshot
            self._painted.show([*self._bars(snapshot), *_long_lines(snapshot.long)])

    def _bars(self, snapshot: Snapshot, *, over: bool = False) -> list[str]:
        elapsed = max(0.001, time.monotonic() - self._began_at)
        busy = snapshot.transferring and not over
        said = [f"{snapshot.transferring} of {snapshot.concurrency} transferring"] if busy else []
        if snapshot.failed:
            said.append(f"{snapshot.failed} failed")
        if snapshot.hooks and not over:
            said.append(f"{snapshot.hooks} hooks left")
        if snapshot.blocked:
            said.append(f"blocked: {snapshot.blocked}")
        lines = [
            meter(
                snapshot.done,
                snapshot.done + snapshot.unfinished,
                elapsed,
                prefix="runs ",
                unit="run",
                postfix=", ".join(said),
                bar_format=_RUNS_LEFT if busy and snapshot.done else _RUNS,
            )
        ]
        if snapshot.received_bytes or snapshot.transferring:
            left = snapshot.remaining_bytes if busy else None
            lines.append(
                meter(
                    snapshot.received_bytes,
                    None if left is None else snapshot.received_bytes + left,
                    elapsed,
                    prefix="bytes",
                    unit="B",
                    unit_scale=True,
                    bar_format=_BYTES if left is None else _BYTES_OF_ABOUT,
                )
            )
        if not over and snapshot.waits is not None and not snapshot.transferring:
            lines.append(snapshot.waits)
        return lines


def _long_lines(long: tuple[LongTransfer, ...]) -> list[str]:
    """Return a line for each, those that began first above the others."""
    rows = shutil.get_terminal_size().lines
    return [
        meter(
            one.bytes,
            one.total_bytes,
            one.seconds,
            prefix=f"  run {one.run_id}",
            unit="B",
            unit_scale=True,
            rate=one.received_bytes / one.seconds,
        )
        for one in long[: max(0, min(_MOST_LINES, rows - _LEFT_FREE))]
    ]


def meter(
    done: float,
    total: float | None,
    elapsed: float,
    *,
    bar_format: str | None = None,
    **options: Any,  # noqa: ANN401 - tqdm's own
) -> str:
    """Return a bar and its figures in a line of the window's width.

    The percentage is rounded down, where tqdm rounds to the nearest: it is 100 at the end alone,
    and 1 from the beginning on.
    """
    from tqdm import tqdm  # noqa: PLC0415 - a pipe needs none

    if total and done <= total:
        percent = max(int(100 * done // total), int(done > 0))
        left = f"{{desc}}: {percent:3d}%|"
        bar_format = (bar_format or "{l_bar}{bar}{r_bar}").replace("{l_bar}", left)
    columns = shutil.get_terminal_size().columns
    made: str = tqdm.format_meter(
        done,
        total,  # type: ignore[arg-type] # None: what there is, and no bar
        elapsed,
        ncols=columns - 1,
        bar_format=bar_format,
        **options,
    )
    return made


_RUNS: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
_RUNS_LEFT: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_BYTES: Final = "{desc}: {n_fmt} [{elapsed}, {rate_fmt}]"
_BYTES_OF_ABOUT: Final = "{desc}: {n_fmt} of about {total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
