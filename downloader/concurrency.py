"""How many transfers there may be at a time in this process, as they go."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from downloader.logger import get_logger
from downloader.observe.memory import read_memory
from downloader.rules.concurrency import Concurrency, Observation
from downloader.rules.memory import is_low
from downloader.transfer.rate_limit import RateLimit

if TYPE_CHECKING:
    from downloader.settings import Settings

_log = get_logger(__name__)

START: Final = 8
"""How many to begin with: what helps almost everywhere, and asks too much almost nowhere."""

_BYTES_PER_SECOND_EACH: Final = 100_000
"""Under a limit on bytes no more begin than can each have so much: a storage ends connections
that take next to nothing, and a URL expires while it waits for its turn."""

_MEMORY_SECONDS: Final = 1.0

_BUSY: Final = frozenset({"storage_busy"})
_BROKEN: Final = frozenset({"network", "stalled", "too_slow", "truncated", "storage_error"})


class AdaptiveConcurrency:
    """Feeds the rule with what the transfers of this process go through.

    `rate_limit` holds them to what they may receive together.
    """

    def __init__(self, settings: Settings) -> None:
        start, rate = START, settings.max_bytes_per_second
        if rate is not None:
            start = min(start, max(1, rate // _BYTES_PER_SECOND_EACH))
        self.rate_limit = RateLimit(rate)
        self._rule = Concurrency(settings.concurrency, start)
        self._fell_at = float("-inf")
        self._looked_at = time.monotonic()
        self._received_bytes = 0
        self._files = self._busy = self._broken = 0
        self._full = False
        self._memory_low = False

    def adopt(self, settings: Settings) -> None:
        """Keep to other settings from now on."""
        self._rule.bound(settings.concurrency)
        self.rate_limit.change(settings.max_bytes_per_second)

    @property
    def limit(self) -> int:
        """How many transfers there may be now."""
        return self._rule.limit

    def saved(self) -> None:
        """Note that a transfer has ended in a file."""
        self._files += 1

    def failed(self, error_code: str, began_at: float, *, again: bool) -> None:
        """Note that a transfer that began at this time of the monotonic clock has failed.

        A run that breaks off `again` is a bad one, whatever the number of transfers.
        """
        if began_at < self._fell_at:
            return  # it met the number of before, which has been lowered since
        self._busy += error_code in _BUSY
        self._broken += error_code in _BROKEN and not again

    def found(self, claimed: int, *, wanted: int) -> None:
        """Note how many transfers have begun, of those that there was a place for."""
        self._full = claimed >= wanted

    def look(self, running: int, received_bytes: int) -> int:
        """Return how many there may be, `running` ones having received so much, ever."""
        now, before = time.monotonic(), self._rule.limit
        limit = self._rule.observe(
            Observation(
                seconds=now - self._looked_at,
                running=running,
                received_bytes=received_bytes - self._received_bytes,
                files=self._files,
                busy=self._busy,
                broken=self._broken,
                full=self._full,
                throttled=self.rate_limit.reached,
                memory_low=self._memory_low,
            )
        )
        self._looked_at, self._received_bytes = now, received_bytes
        self._files = self._busy = self._broken = 0
        if limit != before:
            self._tell(before, now)
        return limit

    def _tell(self, before: int, now: float) -> None:
        if self._rule.fell:
            self._fell_at = now
            _log.info("concurrency.lowered", limit=self.limit, was=before, why=self._rule.why)
        else:
            _log.debug("concurrency.changed", limit=self.limit, was=before, why=self._rule.why)

    async def watch_memory(self) -> None:
        """See once a second whether memory is low, until cancelled."""
        while True:
            memory = await anyio.to_thread.run_sync(read_memory)
            if memory is None:
                return
            self._memory_low = is_low(memory)
            await anyio.sleep(_MEMORY_SECONDS)
