"""How a service gets on: bars on a terminal, a log line at intervals elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import structlog

if TYPE_CHECKING:
    from types import TracebackType

    from tqdm import tqdm

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a service stands: what this call has finished, and what is left in the database.

    `transferring` runs are being saved, of `concurrency` that may be at a time just now.
    """

    done: int
    failed: int
    unfinished: int
    transferring: int
    concurrency: int
    received_bytes: int
    blocked: str | None


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
        )


class Bars:
    """Two bars on a terminal: runs, and bytes with their rate."""

    every_seconds: ClassVar[float] = 0.1

    def __init__(self) -> None:
        self._runs: tqdm[Any] | None = None
        self._bytes: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        from tqdm import tqdm  # noqa: PLC0415 - a pipe needs none

        self._runs = tqdm(
            desc="runs ", unit="run", total=0, position=0, file=sys.stderr, dynamic_ncols=True
        )
        self._bytes = tqdm(
            desc="bytes",
            unit="B",
            unit_scale=True,
            unit_divisor=1000,
            position=1,
            file=sys.stderr,
            dynamic_ncols=True,
            bar_format="{desc}: {n_fmt} [{elapsed}, {rate_fmt}{postfix}]",
        )
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for bar in (self._runs, self._bytes):
            if bar is not None:
                bar.close()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the bars."""
        if self._runs is None or self._bytes is None:
            return
        finished = snapshot.done + snapshot.failed
        self._runs.total = finished + snapshot.unfinished
        failed = f", {snapshot.failed} failed" if snapshot.failed else ""
        blocked = f", blocked: {snapshot.blocked}" if snapshot.blocked else ""
        self._runs.set_postfix_str(
            f"{snapshot.transferring} of {snapshot.concurrency} transferring{failed}{blocked}",
            refresh=False,
        )
        self._runs.n = finished
        self._bytes.n = snapshot.received_bytes
        self._runs.refresh()
        self._bytes.refresh()
