"""`--max-rate`: what all transfers of a process receive together, held to a rate."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from downloader.rules.rates import booked_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downloader.transfer.engine import Engine, Sink
    from downloader.transfer.guard import Guard


_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon those who wait see that there is another rate."""


class RateLimit:
    """So many bytes a second for all threads together, first come, first served.

    Bytes are counted when they have arrived, whoever has use for them: bodies of refusals too.
    Whoever received some then waits until they are paid for. Meanwhile the network's own flow
    control keeps the sender waiting. None is no limit.
    """

    def __init__(self, bytes_per_second: float | None) -> None:
        self._bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._until = float("-inf")

    def change(self, bytes_per_second: float | None) -> None:
        """Hold to another rate from now on; what was booked at the one before is let off."""
        with self._lock:
            if bytes_per_second != self._bytes_per_second:
                self._bytes_per_second, self._until = bytes_per_second, float("-inf")

    def book(self, size: int) -> float:
        """Count bytes that have arrived; return how many seconds to wait before taking more."""
        with self._lock:
            if self._bytes_per_second is None:
                return 0.0
            now = time.monotonic()
            self._until = booked_until(self._until, size, rate=self._bytes_per_second, now=now)
            return max(0.0, self._until - now)

    def pause(self, seconds: float, guard: Guard) -> None:
        """Wait as long as `book` has said, or until there is another rate."""
        over_at, rate = time.monotonic() + seconds, self._bytes_per_second
        while (left := over_at - time.monotonic()) > 0 and self._bytes_per_second == rate:
            guard.pause(min(left, _LOOK_AGAIN_SECONDS))

    @property
    def reached(self) -> bool:
        """Whether transfers wait because of this limit."""
        return self._until > time.monotonic()


class LimitedEngine:
    """An engine whose transfers keep to a rate together."""

    def __init__(self, engine: Engine, limit: RateLimit) -> None:
        self.name = engine.name
        self._engine = engine
        self._limit = limit

    def fetch(self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard) -> None:
        """GET `url` into `sink`; see `Engine.fetch`."""
        self._engine.fetch(url, headers, _LimitedSink(sink, self._limit, guard), guard)

    def resize(self, connections: int) -> None:
        """Be ready for so many transfers at a time."""
        self._engine.resize(connections)

    def close(self) -> None:
        """Close idle connections."""
        self._engine.close()


class _LimitedSink:
    """Passes bytes on, then waits until more may come."""

    def __init__(self, sink: Sink, limit: RateLimit, guard: Guard) -> None:
        self._sink = sink
        self._limit = limit
        self._guard = guard

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._sink.begin(status, headers)

    def write(self, chunk: bytes) -> bool:
        pause_seconds = self._limit.book(len(chunk))
        wanted = self._sink.write(chunk)
        if pause_seconds > 0:
            self._limit.pause(pause_seconds, self._guard)
        return wanted
