"""Leases: keeps ours alive, notices those we lose, and rescues those that ran out."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import anyio

from downloader.camb.run_types import RUN_TYPES
from downloader.clock import NOTICED_SECONDS, utc_now
from downloader.errors import StoreError
from downloader.failpoints import At, reach
from downloader.logger import get_logger
from downloader.store import leases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from downloader.rules.states import RunKey
    from downloader.session import Held, Session

_log = get_logger(__name__)

_LOOK_SECONDS: Final = 1.0
"""How soon a transfer notices that its run was cancelled."""

_BEATS_A_LEASE: Final = 3.0
_RESCUES_A_LEASE: Final = 4.0


async def heartbeat(session: Session) -> None:
    """Extend the claims of this process, and stop the transfers whose claim is lost."""
    lease = session.settings.lease_seconds
    extend_every = lease / _BEATS_A_LEASE
    extended_at = time.monotonic()
    while True:
        await anyio.sleep(min(_LOOK_SECONDS, extend_every))
        session.watch_clock()
        held = list(session.held())
        if not held:
            extended_at = time.monotonic()
            continue
        beat_at = time.monotonic()
        try:
            if beat_at - extended_at >= extend_every or session.clock.stepped_at > extended_at:
                # What hangs is not extended: its lease runs out, and its run is rescued.
                reach(At.LEASES_EXTENDED)
                alive = [one for one in held if one.life.is_alive(extended_at)]
                lost = await session.in_thread(
                    leases.extend_leases,
                    session.database,
                    _names(alive),
                    session.lease_until(utc_now()),
                    utc_now(),
                )
                extended_at = beat_at
                for one in alive:
                    if one.guard is not None and one.lease not in lost:
                        one.guard.extend(lease - (time.monotonic() - beat_at))
            else:
                lost = await session.in_thread(leases.lost_leases, session.database, _names(held))
        except StoreError as error:
            # The guards' own clocks stop what cannot be extended in time.
            _log.warning("heartbeat.failed", message=str(error))
            continue
        for one in held:
            if one.lease in lost and one.guard is not None:
                one.guard.cancel()


def _names(held: Iterable[Held]) -> list[tuple[RunKey, str]]:
    return [(one.key, one.lease) for one in held]


async def rescue(session: Session) -> None:
    """Put runs whose worker is gone back in the queue, from the start on."""
    rebased_at = float("-inf")  # so that the first look does: the clock may have been set before
    while True:
        session.watch_clock()
        if session.clock.stepped_at >= rebased_at:
            rebased_at = time.monotonic()
            await _rebase(session)
        rescued = (
            []
            if session.clock.settling
            else await session.in_thread(leases.rescue, session.database, utc_now())
        )
        if rescued:
            session.tally.rescued(len(rescued))
            _log.warning("runs.rescued", runs=len(rescued))
            session.ready.set()
        await anyio.sleep(max(0.2, min(5.0, session.settings.lease_seconds / _RESCUES_A_LEASE)))


async def _rebase(session: Session) -> None:
    """See that nothing waits for a time that is far off only because the clock was set back."""
    rebased = await session.in_thread(
        leases.rebase,
        session.database,
        RUN_TYPES,
        utc_now(),
        tolerance=timedelta(seconds=NOTICED_SECONDS),
        horizon=timedelta(seconds=session.settings.limits.max_poll_seconds),
    )
    if rebased:
        _log.warning("runs.rebased", runs=rebased)
        session.ready.set()
        session.room.set()
