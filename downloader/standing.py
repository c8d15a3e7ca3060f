"""How a service stands: what this call has done, what is left, and what is waited for."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from downloader.breakers import Kind
from downloader.camb.run_types import RUN_TYPES
from downloader.clock import utc_now
from downloader.observe.progress import LONG_SECONDS, LongTransfer, Snapshot
from downloader.store import inspection, polling

if TYPE_CHECKING:
    from datetime import datetime

    from downloader.hooks.hooks import Hooks
    from downloader.poller import Poller
    from downloader.session import Session
    from downloader.worker import Workers

_ENOUGH: Final = 3
"""From how many files on their mean size says something of those to come."""

_DUE_KNOWN_SECONDS: Final = 1.0
"""How long it is good to know when the next run is asked for: other processes ask, too."""

_COUNTING_SHARE: Final = 50
"""How many times as long as counting the unfinished runs took they are not counted again."""


class Standing:
    """Looks at a service's tasks and its database, as seldom as that costs something."""

    def __init__(self, session: Session, poller: Poller, workers: Workers, hooks: Hooks) -> None:
        self._session = session
        self._poller = poller
        self._workers = workers
        self._hooks = hooks
        self.unfinished = 0
        self._finished_then = 0
        self._count_again_at = float("-inf")
        self._due_at: datetime | None = None
        self._look_again_at = float("-inf")

    async def snapshot(self) -> Snapshot:
        """Return where the service stands now."""
        session = self._session
        unfinished = await self._count_unfinished()
        trouble = session.trouble or next(iter(session.troubles(Kind.HOST)), None)
        return Snapshot(
            done=session.tally.done,
            failed=session.tally.failed,
            unfinished=unfinished,
            transferring=self._workers.active,
            concurrency=session.concurrency.limit,
            received_bytes=session.received_bytes,
            remaining_bytes=_remaining_bytes(session, unfinished),
            blocked=None if trouble is None else trouble.reason,
            blocked_why=None if trouble is None else trouble.message,
            long=_long(session),
            hooks=await self._hooks.count_left(),
        )

    async def with_waits(self, snapshot: Snapshot) -> Snapshot:
        """Add what is waited for, where runs are left and nothing is transferred."""
        if snapshot.transferring or not snapshot.unfinished:
            return snapshot
        return replace(snapshot, waits=await self._waits(snapshot.unfinished))

    async def _count_unfinished(self) -> int:
        """Count what is left, as seldom as it takes long: among a million runs it does."""
        began_at, tally = time.monotonic(), self._session.tally
        if began_at >= self._count_again_at or self._session.stopping.is_set():
            self.unfinished = await self._session.in_thread(
                inspection.count_unfinished, self._session.database
            )
            self._finished_then = tally.done + tally.failed
            ended_at = time.monotonic()
            self._count_again_at = ended_at + max(1.0, _COUNTING_SHARE * (ended_at - began_at))
        return max(0, self.unfinished - (tally.done + tally.failed - self._finished_then))

    async def _waits(self, unfinished: int) -> str | None:
        """Say what is waited for, and for how long yet; None where it is no wait."""
        session, now = self._session, time.monotonic()
        if session.stopping.is_set() or session.trouble is not None:
            return None if session.trouble is None else session.trouble.message
        if now >= self._look_again_at:
            self._look_again_at = now + _DUE_KNOWN_SECONDS
            self._due_at = await session.in_thread(polling.next_due_at, session.database, RUN_TYPES)
        if self._due_at is None:
            return f"{unfinished:,} wait for the storage"
        seconds = max(0, math.ceil((self._due_at - utc_now()).total_seconds()))
        when = f"in {seconds} s" if seconds else "now"
        failure = self._poller.no_answer
        if failure is not None:
            return f"the API is asked again {when}: {failure.message}"
        return f"{unfinished:,} not finished at the provider, asked again {when}"


def _remaining_bytes(session: Session, unfinished: int) -> int | None:
    """Return how many bytes are yet to come, by the mean of the files that came in this call."""
    known = [one for one in session.held() if one.total_bytes is not None]
    left = sum((one.total_bytes or 0) - one.resumed_bytes - one.received_bytes for one in known)
    others = max(0, unfinished - len(known))
    if not others:
        return left if known else None
    if session.tally.done < _ENOUGH:
        return None
    return left + round(others * session.tally.bytes / session.tally.done)


def _long(session: Session) -> tuple[LongTransfer, ...]:
    """Return the transfers that have lasted a while, those that began first before the others."""
    now = time.monotonic()
    return tuple(
        LongTransfer(
            one.key.run_id,
            one.resumed_bytes + one.received_bytes,
            one.total_bytes,
            now - one.began_at,
            one.received_bytes,
        )
        for one in sorted(session.held(), key=lambda one: one.began_at)
        if one.guard is not None and now - one.began_at >= LONG_SECONDS
    )
