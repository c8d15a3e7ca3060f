"""Writing outcomes of transfers: whatever has ended while one commit ran goes into the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.store import transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from downloader.rules.states import RunKey
    from downloader.rules.steps import TransferStep
    from downloader.session import Session


@dataclass(slots=True)
class _Entry:
    key: RunKey
    lease: str
    step: TransferStep
    then: Callable[[], None] | None = None
    held: bool = False
    recorded: anyio.Event = field(default_factory=anyio.Event)


class Recorder:
    """Commits outcomes in groups."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: list[_Entry] = []
        self._some = anyio.Event()

    async def record(
        self,
        key: RunKey,
        lease: str,
        step: TransferStep,
        then: Callable[[], None] | None = None,
    ) -> bool:
        """Return once the outcome is committed; False where the lease was lost.

        `then` is called, in a thread, when it is committed; it must not fail.
        """
        entry = _Entry(key, lease, step, then)
        self._waiting.append(entry)
        self._some.set()
        await entry.recorded.wait()
        return entry.held

    def leave(self, key: RunKey, lease: str, step: TransferStep) -> None:
        """Leave an outcome for `flush`: whoever has it is being cancelled and cannot wait."""
        self._waiting.append(_Entry(key, lease, step))

    async def run(self) -> None:
        """Commit what comes, until cancelled."""
        while True:
            await self._some.wait()
            self._some = anyio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Commit what waits, in one transaction; what cannot be committed goes on waiting."""
        entries = list(self._waiting)
        if not entries:
            return
        with anyio.CancelScope(shield=True):
            await self._session.in_thread(self._commit, entries)
        del self._waiting[: len(entries)]
        for entry in entries:
            entry.recorded.set()

    def _commit(self, entries: Sequence[_Entry]) -> None:
        outcomes = [(entry.key, entry.lease, entry.step) for entry in entries]
        held = transfers.record_transfers(self._session.database, outcomes, utc_now())
        reach(At.RECORD_COMMITTED)
        for entry, still_held in zip(entries, held, strict=True):
            entry.held = still_held
            if still_held and entry.then is not None:
                entry.then()  # here, since a way through a thread for each costs more than it does
