"""How a service gets on: bars on a terminal, a log line at intervals elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, Self

from downloader.logger import get_logger

if TYPE_CHECKING:
    from types import TracebackType

    from tqdm import tqdm

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


class Reporter(Protocol):
    """Shows snapshots, one every `every_seconds`."""

    @property
    def every_seconds(self) -> float:
        """How often to show one; seconds."""

    def show(self, snapshot: Snapshot) -> None:
        """Show how it stands now."""


class Silent:
    """Shows nothing."""

    every_seconds: ClassVar[float] = 3600.0

    def show(self, snapshot: Snapshot) -> None:
        """Show nothing."""


class LogLines:
    """A log line every 30 seconds."""

    every_seconds: ClassVar[float] = 30.0

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
    """Two bars on a terminal, runs and bytes, and a line for each transfer that takes long."""

    every_seconds: ClassVar[float] = 0.1

    def __init__(self) -> None:
        self._runs: tqdm[Any] | None = None
        self._bytes: tqdm[Any] | None = None
        self._lines: list[tqdm[Any]] = []  # of long transfers
        self._columns = 0

    def __enter__(self) -> Self:
        self._runs = _bar(0, desc="runs ", unit="run", total=0)
        self._bytes = _bar(1, desc="bytes", unit="B", unit_scale=True, bar_format=_BYTES)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for bar in (*reversed(self._lines), self._runs, self._bytes):
            if bar is not None:
                bar.close()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the bars; a terminal that is gone is no reason to end."""
        with contextlib.suppress(OSError):
            self._draw(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        if self._runs is None or self._bytes is None:
            return
        self._fit()
        finished = snapshot.done + snapshot.failed
        self._runs.total = finished + snapshot.unfinished
        failed = f", {snapshot.failed} failed" if snapshot.failed else ""
        blocked = f", blocked: {snapshot.blocked}" if snapshot.blocked else ""
        hooks = f", {snapshot.hooks} hooks left" if snapshot.hooks else ""
        self._runs.set_postfix_str(
            f"{snapshot.transferring} of {snapshot.concurrency} transferring"
            f"{failed}{hooks}{blocked}",
            refresh=False,
        )
        self._runs.n = finished
        self._bytes.n = snapshot.received_bytes
        if snapshot.remaining_bytes is None:
            self._bytes.total, self._bytes.bar_format = None, _BYTES
        else:
            self._bytes.total = snapshot.received_bytes + snapshot.remaining_bytes
            self._bytes.bar_format = _BYTES_OF_ABOUT
        self._runs.refresh()
        self._bytes.refresh()
        self._show_long(snapshot.long)

    def _fit(self) -> None:
        """Where the window has another width, clear what was wrapped by it."""
        columns = shutil.get_terminal_size().columns
        if columns != self._columns and self._columns and self._runs is not None:
            with self._runs.get_lock():  # type: ignore[no-untyped-call] # the stubs have no types
                sys.stderr.write(_CLEAR_BELOW)
        self._columns = columns

    def _show_long(self, long: tuple[LongTransfer, ...]) -> None:
        """Show a line for each, those that began first above the others."""
        columns, rows = shutil.get_terminal_size()
        shown = long[: max(0, min(_MOST_LINES, rows - _LEFT_FREE))]
        while len(self._lines) > len(shown):
            self._lines.pop().close()
        while len(self._lines) < len(shown):
            self._lines.append(_bar(2 + len(self._lines), bar_format="{desc}", leave=False))
        for bar, one in zip(self._lines, shown, strict=True):
            bar.set_description_str(
                bar.format_meter(
                    one.bytes,
                    one.total_bytes,  # type: ignore[arg-type] # None: what there is, and no bar
                    one.seconds,
                    ncols=columns - 1,
                    prefix=f"  run {one.run_id}",
                    unit="B",
                    unit_scale=True,
                    rate=one.received_bytes / one.seconds,
                )
            )


def _bar(position: int, **options: Any) -> tqdm[Any]:  # noqa: ANN401 - tqdm's own
    from tqdm import tqdm  # noqa: PLC0415 - a pipe needs none

    return tqdm(position=position, file=sys.stderr, dynamic_ncols=True, **options)


_CLEAR_BELOW: Final = "\r\x1b[J"
_BYTES: Final = "{desc}: {n_fmt} [{elapsed}, {rate_fmt}]"
_BYTES_OF_ABOUT: Final = "{desc}: {n_fmt} of about {total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
