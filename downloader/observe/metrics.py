"""What a service has measured of itself, and to whom it tells: nobody, unless it is asked to.

What is counted is in `tally`; what Prometheus reads is made of it by `exposition`, which is
imported only where somebody has asked for metrics.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from downloader.errors import StoreError
from downloader.observe.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

_PAUSE_SECONDS: Final = 2.0
"""How long what the database says is good for, at the least."""

_PAUSE_SHARE: Final = 50
"""How many times as long as a look took none is taken again: a million runs take a while."""

_PATIENCE_SECONDS: Final = 2.0
"""How long whoever asks waits for a look: no scrape shall hang because the database does."""

_LAST_PATIENCE_SECONDS: Final = 10.0
"""How long the last look is waited for, which nobody can make up for."""

_OVERDUE_SECONDS: Final = 10.0
"""A look that takes longer has met a database that cannot be read."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the database says: of all processes that ever worked on it."""

    runs: Mapping[str, int]
    stored_bytes: int
    oldest_unfinished_at: datetime | None
    blocked: Collection[tuple[str, str]]
    """Scopes and reasons."""


@dataclass(frozen=True, slots=True)
class Live:
    """Where this process stands."""

    transferring: int
    concurrency: int
    received_bytes: int
    blocked: Collection[tuple[str, str]]


class Metrics(Protocol):
    """Takes what a service counts in `tally`, and tells of it from `begin` to `end`."""

    @property
    def tally(self) -> Tally:
        """Where the service counts."""

    def begin(self, live: Callable[[], Live], figures: Callable[[], Figures]) -> None:
        """Tell of a service from now on; both are called in other threads.

        `figures` raises StoreError where the database cannot be read.
        """

    def end(self) -> None:
        """Tell for the last time: the service has ended, however it did. Never raises."""


class Unmeasured:
    """Tells nobody."""

    def __init__(self) -> None:
        self.tally = Tally()

    def begin(self, live: Callable[[], Live], figures: Callable[[], Figures]) -> None:
        """Take no notice."""

    def end(self) -> None:
        """Take no notice."""


class Lookout:
    """What the database said last, looked up for whoever asks, as seldom as a look takes long.

    A look has a thread of its own: a database that is busy or gone delays nobody for long.
    """

    def __init__(
        self,
        figures: Callable[[], Figures],
        *,
        pause_seconds: float = _PAUSE_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
        overdue_seconds: float = _OVERDUE_SECONDS,
    ) -> None:
        self._read = figures
        self._pause_seconds = pause_seconds
        self._patience_seconds = patience_seconds
        self._overdue_seconds = overdue_seconds
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._began_at = 0.0
        self._again_at = float("-inf")
        self._failed = False
        self.known: Figures | None = None
        """What the last look that succeeded found; None before the first."""
        self.known_at: float | None = None
        """When that was, in seconds since 1970."""

    @property
    def up(self) -> bool:
        """Whether the database can be read, as far as is known."""
        overdue = (
            self._looking is not None and time.monotonic() - self._began_at >= self._overdue_seconds
        )
        return self.known is not None and not self._failed and not overdue

    def look(self) -> None:
        """See that `known` is as new as it can be had cheaply, and within a moment."""
        self._wait(self._patience_seconds)

    def look_at_last(self) -> None:
        """See that `known` is as of now, where that can be had at all."""
        ends_at = time.monotonic() + _LAST_PATIENCE_SECONDS
        if (begun_before := self._looking) is not None:
            begun_before.join(_LAST_PATIENCE_SECONDS)
        self._again_at = float("-inf")
        self._wait(max(0.0, ends_at - time.monotonic()))

    def _wait(self, patience_seconds: float) -> None:
        """Wait so long for the look that is under way, or for one that is due."""
        with self._lock:
            now = time.monotonic()
            if self._looking is None and now >= self._again_at:
                self._began_at = now
                self._looking = threading.Thread(target=self._look, name="metrics", daemon=True)
                self._looking.start()
            looking = self._looking
        if looking is not None:
            looking.join(patience_seconds)

    def _look(self) -> None:
        failed = True
        try:
            self.known = self._read()
            self.known_at = time.time()
            failed = False
        except StoreError:
            pass  # told by `up`; whoever works with the database says why
        finally:
            ended_at = time.monotonic()
            lasted = _PAUSE_SHARE * (ended_at - self._began_at)
            with self._lock:
                self._failed = failed
                self._again_at = ended_at + max(self._pause_seconds, lasted)
                self._looking = None
