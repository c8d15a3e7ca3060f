"""What has to be tidied up now and then: unneeded parts, old history, the write-ahead log."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import anyio

from downloader.clock import utc_now
from downloader.errors import StoreError
from downloader.logger import get_logger
from downloader.rules.states import FINISHED, State
from downloader.session import Mode
from downloader.store import pruning, verification
from downloader.store.database import LARGE_LOG_BYTES
from downloader.transfer.part import KEPT_SECONDS

if TYPE_CHECKING:
    from downloader.rules.states import RunKey
    from downloader.session import Session
    from downloader.store.database import Database
    from downloader.transfer.output import Output

_log = get_logger(__name__)

_SWEEP_SECONDS: Final = 600.0
_TOGETHER: Final = 500
_FULL_LOOK_SECONDS: Final = 1.0

_LOOK_SECONDS: Final = 1.0
_TOO_LARGE_LOG_BYTES: Final = 64 * 1024 * 1024
_VAIN_SECONDS: Final = (2.0, 4.0, 10.0)
"""How long to leave it after tries in vain in a row, each of which has had the writers wait."""
_REMIND_SECONDS: Final = 600.0

_PRUNE_SECONDS: Final = 600.0
_PRUNE_PAUSES: Final = 3.0
_PRUNE_AT_THE_END_SECONDS: Final = 10.0


async def sweep(session: Session, output: Output) -> None:
    """Remove the parts of runs that are over: of crashes after a commit, and of `cancel`.

    Those of failed runs, which `retry` goes on with, are kept for some days, or until the disk is
    full.
    """
    while True:
        full = _is_full(session)
        runs = await session.in_thread(_runs_with_parts, session.database, output)
        kept_since = utc_now() - timedelta(seconds=0.0 if full else KEPT_SECONDS)
        failed = {
            key
            for key, run in runs.items()
            if run.state is State.FAILED and run.updated_at < kept_since
        }
        over = {key for key, run in runs.items() if run.state in FINISHED - {State.FAILED}}
        removed = await session.in_thread(output.discard_parts, over)
        removed += await session.in_thread(output.discard_parts, failed, proofs=False)
        if removed:
            _log.info("parts.removed", parts=removed)
        again_at = time.monotonic() + _SWEEP_SECONDS
        while time.monotonic() < again_at and (full or not _is_full(session)):
            await anyio.sleep(_FULL_LOOK_SECONDS)
            full = full and _is_full(session)


def _runs_with_parts(database: Database, output: Output) -> dict[RunKey, verification.Tracked]:
    keys = list(output.runs_with_parts())
    runs: dict[RunKey, verification.Tracked] = {}
    for first in range(0, len(keys), _TOGETHER):
        runs |= verification.tracked(database, keys[first : first + _TOGETHER])
    return runs


def _is_full(session: Session) -> bool:
    trouble = session.folder.trouble
    return trouble is not None and trouble.reason == "disk_full"


async def keep_log_short(session: Session) -> None:
    """Move the write-ahead log into the database whenever it has become large."""
    told_at, vain = float("-inf"), 0
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        if session.database.log_bytes() < LARGE_LOG_BYTES:
            continue
        try:
            emptied = await session.in_thread(session.database.empty_log)
        except StoreError as error:
            _log.warning("database.log_not_emptied", message=str(error))
            emptied = False
        if emptied:
            vain = 0
            continue
        size = session.database.log_bytes()
        if size > _TOO_LARGE_LOG_BYTES and time.monotonic() - told_at > _REMIND_SECONDS:
            told_at = time.monotonic()
            _log.warning(
                "database.log_large",
                bytes=size,
                hint="a program has a transaction open on the database, and the log grows "
                "until that ends",
            )
        await anyio.sleep(_VAIN_SECONDS[vain])
        vain = min(vain + 1, len(_VAIN_SECONDS) - 1)


async def prune_now_and_then(session: Session) -> None:
    """Delete old history while the service runs; with `--once` that is done at its end."""
    if session.settings.prune_events_after_seconds is None or session.mode is Mode.ONCE:
        return
    while True:
        await _prune(session, math.inf, _PRUNE_PAUSES)
        await anyio.sleep(_PRUNE_SECONDS)


async def prune_at_the_end(session: Session) -> None:
    """Delete old history when everything else is done: not for long, the rest another time."""
    if session.settings.prune_events_after_seconds is not None:
        await _prune(session, _PRUNE_AT_THE_END_SECONDS, 1.0)


async def _prune(session: Session, seconds: float, pauses: float) -> None:
    """Delete old history; between two transactions pause so many times as long as one took."""
    ends_at = time.monotonic() + seconds
    try:
        pruned = await _prune_until(session, ends_at, pauses)
    except StoreError as error:  # nothing is lost by it, and nobody waits for it
        _log.warning("events.not_pruned", message=str(error))
        return
    if pruned:
        _log.info("events.pruned", events=pruned)


async def _prune_until(session: Session, ends_at: float, pauses: float) -> int:
    age = session.settings.prune_events_after_seconds
    assert age is not None  # noqa: S101 - the callers have seen that it is set
    database, before = session.database, utc_now() - timedelta(seconds=age)
    newest = await session.in_thread(pruning.newest_event, database)
    pruned = 0
    for after in range(0, newest, pruning.WINDOW):
        if time.monotonic() >= ends_at:
            break
        keys = await session.in_thread(pruning.runs_with_old_history, database, after, before)
        for first in range(0, len(keys), pruning.MOST_RUNS):
            some = keys[first : first + pruning.MOST_RUNS]
            rows = pruning.MOST_ROWS
            while rows == pruning.MOST_ROWS:  # there may be more of the same runs
                began_at = time.monotonic()
                if began_at >= ends_at:
                    return pruned
                rows = await session.in_thread(pruning.prune, database, some, before)
                pruned += rows
                # Whoever waits to write looks only now and then whether it may.
                await anyio.sleep(pauses * (time.monotonic() - began_at))
    return pruned
