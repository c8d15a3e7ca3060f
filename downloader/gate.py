"""Whether one scope of the service may go on: shut for everybody on the database at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from downloader.clock import utc_now
from downloader.jitter import jitter
from downloader.logger import get_logger
from downloader.rules.backoff import (
    MAX_PROBE_DELAY_SECONDS,
    disk_probe_delay_seconds,
    probe_delay_seconds,
)
from downloader.store import blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from downloader.store.database import Database

_log = get_logger(__name__)

T = TypeVar("T")

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon a process sees what another has shut or opened."""

_PROBE_SECONDS: Final = 60.0
"""How long the process that probes has to tell how it went, before another may probe."""

_DELAYS: Final[dict[blocks.Scope, Callable[[int, float], float]]] = {
    "api": probe_delay_seconds,
    "disk": disk_probe_delay_seconds,
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the service as a whole cannot go on, in words for a person."""

    reason: str
    message: str


class InThread(Protocol):
    """Runs a blocking call in a thread."""

    async def __call__(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:  # noqa: ANN401 - the call's own
        """Return what `call` returns."""


class Gate:
    """One scope of the service, and what this process knows of it.

    Every process on the database honours what one of them has shut, and one of them at a time
    probes whether the service goes on. Only a process that starts tries at once: whoever starts
    it may have put things right. What `ends_call` is not waited for.
    """

    def __init__(
        self,
        database: Database,
        scope: blocks.Scope,
        in_thread: InThread,
        *,
        ends_call: bool = False,
    ) -> None:
        self._database = database
        self._scope = scope
        self._in_thread = in_thread
        self._ends_call = ends_call
        self._looked_at: float | None = None
        self._learned_at = float("-inf")  # when this process came to know of the trouble
        self._excused: datetime | None = None  # the beginning of a block older than this process
        self._until: datetime | None = None  # when the next probe is due
        self._probing: datetime | None = None  # until when this process is the one that probes
        self.trouble: Trouble | None = None

    async def look(self) -> None:
        """See what other processes have shut or opened, at most once a second."""
        now = time.monotonic()
        first = self._looked_at is None
        if self._looked_at is not None and now - self._looked_at < _LOOK_AGAIN_SECONDS:
            return
        self._looked_at = now
        known = await self._in_thread(blocks.current_block, self._database, self._scope)
        if known is None:
            self._opened()
        elif first and self.trouble is None:
            self._excused = known.since
        elif known.since != self._excused:
            self._until = known.until
            self._learn(Trouble(known.reason, known.message))

    async def shut(self, trouble: Trouble) -> None:
        """Stop this scope for everybody until the next probe, and say so once."""
        delay = _DELAYS[self._scope]
        self._until = await self._in_thread(
            blocks.block,
            self._database,
            self._scope,
            trouble.reason,
            trouble.message,
            now=utc_now(),
            pause_seconds=lambda probes: delay(probes, jitter()),
            probing=self._probing,
        )
        self._probing = self._excused = None
        self._learn(trouble)

    def try_at_once(self) -> None:
        """Go on as a process that has just started: somebody may have put things right."""
        self.trouble = self._looked_at = self._until = self._probing = None

    async def passed(self, began_at: float) -> None:
        """Note the success of what began at this time of the monotonic clock.

        What was shut, by whatever process, is open again for everybody, unless it was shut only
        while this was under way.
        """
        if (self.trouble is None and self._excused is None) or began_at < self._learned_at:
            return
        await self._in_thread(blocks.unblock, self._database, self._scope)
        self._opened()

    async def no_longer(self, reason: str) -> None:
        """Open what was shut, by whatever process, for this reason: that is seen to be over."""
        known = await self._in_thread(blocks.current_block, self._database, self._scope)
        if known is not None and known.reason == reason:
            await self._in_thread(blocks.unblock, self._database, self._scope)
            _log.warning("service.unblocked", scope=self._scope)

    async def take_probe(self) -> bool:
        """Return whether a probe is due and this process is the one to make it."""
        if self._until is None or not _is_due(self._until):
            return False
        until = utc_now() + timedelta(seconds=_PROBE_SECONDS)
        if await self._in_thread(
            blocks.take_probe, self._database, self._scope, seen=self._until, until=until
        ):
            self._until = self._probing = until
            self._learned_at = time.monotonic()  # from here on a success means something
            return True
        return False

    def _learn(self, trouble: Trouble) -> None:
        known = self.trouble
        if known is None:
            self._learned_at = time.monotonic()
        if known is None or known.reason != trouble.reason:
            # A call that ends with it says so itself.
            tell = _log.info if self._ends_call else _log.error
            tell("service.blocked", reason=trouble.reason, message=trouble.message)
        self.trouble = trouble

    def _opened(self) -> None:
        if self.trouble is not None or self._excused is not None:
            _log.warning("service.unblocked", scope=self._scope)
        self.trouble = self._excused = self._until = self._probing = None


def _is_due(until: datetime) -> bool:
    """Return whether that moment has come, or is one that no pause leads to: the clock was set."""
    seconds = (until - utc_now()).total_seconds()
    return seconds <= 0 or seconds > 2 * MAX_PROBE_DELAY_SECONDS
