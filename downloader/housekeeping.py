"""What has to be tidied up now and then: parts that nobody needs, and the write-ahead log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio

from downloader.errors import StoreError
from downloader.logger import get_logger
from downloader.rules.states import FINISHED, State
from downloader.store import inspection
from downloader.store.database import LARGE_LOG_BYTES

if TYPE_CHECKING:
    from downloader.session import Session
    from downloader.transfer.output import Output

_log = get_logger(__name__)

_SWEEP_SECONDS: Final = 600.0

_LOOK_SECONDS: Final = 1.0
_TOO_LARGE_LOG_BYTES: Final = 64 * 1024 * 1024
_VAIN_SECONDS: Final = 10.0
"""How long to leave it after a try in vain, which has had the writers wait."""
_REMIND_SECONDS: Final = 600.0


async def sweep(session: Session, output: Output) -> None:
    """Remove the parts of runs that are finished: of crashes after a commit, and of `cancel`."""
    while True:
        keys = await session.in_thread(output.runs_with_parts)
        states = await session.in_thread(inspection.states_of, session.database, list(keys))
        removed = 0
        for state in FINISHED:
            finished = {key for key, found in states.items() if found == state}
            if finished:
                removed += await session.in_thread(
                    output.discard_parts, finished, proofs=state is not State.FAILED
                )
        if removed:
            _log.info("parts.removed", parts=removed)
        await anyio.sleep(_SWEEP_SECONDS)


async def keep_log_short(session: Session) -> None:
    """Move the write-ahead log into the database whenever it has become large."""
    told_at = float("-inf")
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
        await anyio.sleep(_VAIN_SECONDS)
