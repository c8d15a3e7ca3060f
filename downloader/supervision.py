"""What a service and whoever manages it have to say to each other.

Out go readiness, a line about how it stands, and signs of life; in comes the wish to read the
configuration again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from downloader.errors import DownloaderError
from downloader.logger import get_logger
from downloader.observe import logs
from downloader.observe.notify import Notifier, status_line
from downloader.settings import change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from downloader.observe.progress import Snapshot
    from downloader.session import Session
    from downloader.settings import Reread, Settings

_log = get_logger(__name__)

_STATUS_SECONDS: Final = 3.0
"""How often the manager is told how it stands."""

STUCK_SECONDS: Final = 300.0
"""How long workers may take for a turn: a database that others keep locked is none of these."""


@dataclass(frozen=True, slots=True)
class Manager:
    """Whoever has started a service, be it a person, cron or systemd.

    On SIGHUP the service reads its configuration again by `reread`; without one it ends, as on
    SIGTERM.
    """

    notifier: Notifier = field(default_factory=Notifier)
    reread: Callable[[], Reread] | None = None


async def supervise(
    session: Session, notifier: Notifier, snapshot: Callable[[], Awaitable[Snapshot]]
) -> None:
    """Tell the manager that the service is ready, how it stands, and that it lives."""
    if not notifier.is_on:
        return
    # The database has answered, and all tasks have had a turn meanwhile.
    notifier.ready(status_line(await snapshot()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give_signs_of_life, notifier, lambda: session.went_round_at)
        while not session.stopping.is_set():
            notifier.status(status_line(await snapshot()))
            await anyio.sleep(_STATUS_SECONDS)


async def give_signs_of_life(
    notifier: Notifier, turned_at: Callable[[], float], stuck_seconds: float = STUCK_SECONDS
) -> None:
    """Feed the watchdog from the event loop, as long as the workers take turns.

    So a loop that hangs feeds it no more, nor does one that goes round while its work stands
    still. `turned_at` tells the time of their last turn by the monotonic clock.
    """
    if notifier.alive_every_seconds is None:
        return
    told = False
    while True:
        stuck = time.monotonic() - turned_at() > stuck_seconds
        if not stuck:
            notifier.alive()
        elif not told:
            _log.error("service.stuck", seconds=stuck_seconds, hint="no sign of life is given")
        told = stuck
        await anyio.sleep(notifier.alive_every_seconds)


class Reloading:
    """Reads the configuration again while the service runs, once at a time."""

    def __init__(
        self,
        session: Session,
        manager: Manager,
        adopt: Callable[[Settings], Awaitable[None]],
    ) -> None:
        self._session = session
        self._manager = manager
        self._adopt = adopt
        self._wanted = 0
        self._lock = anyio.Lock()

    async def run(self) -> None:
        """Take what can be taken of the configuration as it is now, and tell what cannot.

        One that is wrong changes nothing. Several wishes that come while one is seen to are one.
        """
        self._wanted += 1
        async with self._lock:
            if not self._wanted or self._manager.reread is None:
                return
            self._wanted = 0
            notifier = self._manager.notifier
            notifier.reloading()
            try:
                read = await anyio.to_thread.run_sync(self._manager.reread, abandon_on_cancel=True)
            except (DownloaderError, OSError) as error:
                _log.error(
                    "configuration.refused",
                    message=str(error),
                    hint="the settings of before stay in force",
                )
                notifier.refusal = f"the configuration was refused: {str(error).rstrip('.')}"
                notifier.ready("the settings of before stay in force")
            else:
                await self._take(read)
                notifier.refusal = ""
                notifier.ready("the configuration was read again")

    async def _take(self, read: Reread) -> None:
        session = self._session
        changed = change(session.settings, read.settings)
        if changed.now.verbosity != session.settings.verbosity:
            logs.configure(changed.now.verbosity, as_json=changed.now.logs_as_json)
        await self._adopt(changed.now)
        _log.info("configuration.read_again", changed=", ".join(changed.taken) or "nothing")
        kept = (*read.elsewhere, *changed.kept)
        if kept:
            _log.warning(
                "configuration.needs_restart",
                changed=", ".join(kept),
                hint="these hold from the next start on",
            )
