"""Writing outcomes of transfers: whatever has ended while one commit ran goes into the next.

What is claimed in their place goes into the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from downloader.clock import utc_now
from downloader.failpoints import At, reach
from downloader.store import transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from downloader.rules.states import RunKey
    from downloader.rules.steps import TransferStep
    from downloader.session import Session


@dataclass(slots=True)
class Outcome:
    """What a transfer came to.

    `then` is called, in a thread, when it is committed; it must not fail. `held` says, once it
    has been looked at, whether the lease still was: nothing is written where it was lost.
    """

    key: RunKey
    lease: str
    step: TransferStep
    then: Callable[[], None] | None = None
    held: bool = False


class Recorder:
    """Commits outcomes in groups."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: list[Outcome] = []

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Have outcomes committed by the next `flush`."""
        self._waiting += outcomes

    @property
    def waiting(self) -> set[str]:
        """The leases whose outcome is yet to be committed."""
        return {one.lease for one in self._waiting}

    async def flush(self) -> list[Outcome]:
        """Commit what waits, and return it; what cannot be committed goes on waiting."""
        return (await self.turn(None))[0]

    async def turn(self, claim: transfers.Claim | None) -> tuple[list[Outcome], transfers.Ready]:
        """Commit what waits and claim runs, in one transaction; return both."""
        outcomes = list(self._waiting)
        if not outcomes and claim is None:
            return [], transfers.NONE_READY
        with anyio.CancelScope(shield=True):
            ready = await self._session.in_thread(self._commit, outcomes, claim)
        del self._waiting[: len(outcomes)]
        if outcomes or ready.failed:
            self._session.owed.set()
        return outcomes, ready

    def _commit(
        self, outcomes: Sequence[Outcome], claim: transfers.Claim | None
    ) -> transfers.Ready:
        now = utc_now()
        recorded, ready = transfers.take_turn(
            self._session.database,
            [(one.key, one.lease, one.step) for one in outcomes],
            claim,
            now,
        )
        if outcomes:
            reach(At.RECORD_COMMITTED)
        for one, held in zip(outcomes, recorded, strict=True):
            one.held = held
            if held and one.then is not None:
                one.then()  # here, since a way through a thread for each costs more than it does
        return ready
