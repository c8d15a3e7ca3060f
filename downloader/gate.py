"""Whether one scope of the service may go on: shut for everybody on the database at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import structlog

from downloader.clock import utc_now
from downloader.jitter import jitter
from downloader.rules.backoff import probe_delay_seconds
from downloader.store import blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from downloader.store.database import Database

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_LOOK_AGAIN_SECONDS: Final = 5.0
"""How often successes look for what another process has shut."""


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

    A process that starts does not ask whether the gate is shut: whoever starts it may have
    put things right. The first success then opens it for everybody.
    """

    def __init__(self, database: Database, scope: blocks.Scope, in_thread: InThread) -> None:
        self._database = database
        self._scope = scope
        self._in_thread = in_thread
        self._looked_at: float | None = None  # when a success last opened the gate
        self.trouble: Trouble | None = None

    async def shut(self, trouble: Trouble) -> datetime:
        """Stop this scope for everybody, say so once, and return when to try again."""
        until = await self._in_thread(
            blocks.block,
            self._database,
            self._scope,
            trouble.reason,
            trouble.message,
            now=utc_now(),
            pause_seconds=lambda probes: probe_delay_seconds(probes, jitter()),
        )
        if self.trouble is None:
            _log.error("service.blocked", reason=trouble.reason, message=trouble.message)
        self.trouble, self._looked_at = trouble, None
        return until

    async def passed(self) -> None:
        """Note a success: what was shut, by whatever process, is open again for everybody."""
        looked_at, self.trouble = self._looked_at, None
        if looked_at is not None and time.monotonic() - looked_at < _LOOK_AGAIN_SECONDS:
            return
        self._looked_at = time.monotonic()
        if await self._in_thread(blocks.unblock, self._database, self._scope):
            _log.warning("service.unblocked", scope=self._scope)

    async def shut_until(self) -> datetime | None:
        """Return when the next try is due; None where another process has found it open."""
        known = await self._block()
        if known is None:
            self.trouble = None
            return None
        return known.until

    async def _block(self) -> blocks.Block | None:
        known = await self._in_thread(blocks.current_blocks, self._database)
        return next((one for one in known if one.scope == self._scope), None)
