"""All that there is to do in the database, in one transaction of whoever has its turn.

What the API has said is recorded first, then how transfers have ended: one that begins with a URL
of this turn may have ended in it too. Then is claimed what waits, what was just put back among it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from downloader.failpoints import At, reach
from downloader.store import events, polling, transfers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from downloader.rules.states import RunKey
    from downloader.rules.steps import PollStep, TransferStep
    from downloader.store.database import Database
    from downloader.store.pacing import Near


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be done: outcomes and judgements are a run, the lease on it, and its step.

    Of the runs with a new URL `begun` says which a transfer takes at once. `ready` claims others
    that have one, and each of `due` runs to ask for, one after the other while there is `room`.
    """

    outcomes: Sequence[tuple[RunKey, str, TransferStep]] = ()
    judged: Sequence[tuple[RunKey, str, PollStep]] = ()
    begun: polling.Begun | None = None
    ready: transfers.Claim | None = None
    due: Sequence[polling.Due | Near] = ()
    room: polling.Room = polling.Room()  # noqa: RUF009 - cannot be changed


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: whether each outcome and each judgement holds, and what is claimed now.

    What does not hold has lost its lease (rescued, cancelled): nothing was written of it. The runs
    that a transfer takes at once are `begun`.
    """

    outcomes: list[bool] = field(default_factory=list)
    judged: list[bool] = field(default_factory=list)
    begun: list[transfers.ClaimedRun] = field(default_factory=list)
    ready: transfers.Ready = transfers.NONE_READY
    batches: list[polling.ClaimedBatch] = field(default_factory=list)


def take_turn(database: Database, turn: Turn, now: datetime) -> Done:
    """Do it all, or nothing. Where there is nothing to do nothing is written, and no lock taken."""
    if not (turn.outcomes or turn.judged or _waits(database, turn)):
        return Done()
    with database.write() as connection:
        judged, begun, told = polling.record(connection, turn.judged, turn.begun, now)
        outcomes, ended = transfers.record(connection, turn.outcomes, now)
        told += ended
        ready = transfers.NONE_READY
        if turn.ready is not None:
            ready, claimed = transfers.claim(connection, turn.ready)
            told += claimed
        events.record(connection, now, told)
        batches: list[polling.ClaimedBatch] = []
        for one in turn.due:
            batches += one.claim(connection, turn.room.less(batches))
        if turn.outcomes:
            reach(At.RECORD_WRITTEN)
    return Done(outcomes, judged, begun, ready, batches)


def _waits(database: Database, turn: Turn) -> bool:
    """Return whether there is something to claim: who is idle looks often."""
    claims = [one for one in (turn.ready, *turn.due) if one is not None]
    if not claims or (turn.ready is not None and turn.ready.expected):
        return bool(claims)
    with database.read() as connection:
        return any(one.waits(connection) for one in claims)


def claim_polls(database: Database, claim: polling.Due | Near) -> list[polling.ClaimedBatch]:
    """Claim runs to ask for, and do nothing else."""
    return take_turn(database, Turn(due=[claim]), claim.now).batches
