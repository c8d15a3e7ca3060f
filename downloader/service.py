"""The service: one task group, run once, until drained, or for ever."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio

from downloader import __version__, housekeeping, rescuer
from downloader.breakers import Kind, Trouble
from downloader.camb.client import ApiClient
from downloader.camb.run_types import DEFAULT_RUN_TYPE, RUN_TYPES
from downloader.clock import utc_now
from downloader.errors import ConfigurationError
from downloader.hooks.hooks import Hooks
from downloader.logger import get_logger
from downloader.observe.logs import leave_terminal
from downloader.observe.metrics import Figures, Live, Metrics, Unmeasured
from downloader.ownership import why_not_ours
from downloader.poller import Poller
from downloader.recorder import Recorder
from downloader.session import LoopSignal, Mode, Session, run_in_thread
from downloader.standing import Standing
from downloader.store import inspection
from downloader.store.status import status
from downloader.supervision import Manager, Reloading, supervise
from downloader.transfer.choice import make_engine
from downloader.transfer.output import Output
from downloader.transfer.room import Room
from downloader.transfer.unusable import DiskError
from downloader.worker import UNWIND_SECONDS, Workers

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import TaskGroup

    from downloader.observe.progress import Reporter
    from downloader.observe.tally import Tally
    from downloader.settings import Settings
    from downloader.store.database import Database
    from downloader.transfer.engine import Engine

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """How a call of the service ended."""

    tally: Tally
    stopped: str | None  # the signal or limit that ended it early
    work_left: bool
    trouble: Trouble | None
    output: Path
    unfinished: int  # runs, of whatever type, when it was last counted: at the end
    standing: dict[str, int] | None = None
    """How many runs are in which state, where a drain found nothing to do."""


def run(
    settings: Settings,
    database: Database,
    mode: Mode,
    reporter: Reporter,
    *,
    metrics: Metrics | None = None,
    manager: Manager | None = None,
) -> Result:
    """Run the service, blocking; see `serve`."""
    metrics, manager = metrics or Unmeasured(), manager or Manager()
    on_hangup = signal.getsignal(signal.SIGHUP)
    try:
        serving = partial(serve, metrics=metrics, manager=manager)
        return anyio.run(serving, settings, database, mode, reporter)
    except BaseExceptionGroup as group:
        raise first_error(group) from None
    finally:
        signal.signal(signal.SIGHUP, on_hangup)
        metrics.end()


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what went wrong first: tasks that fail take the others with them."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def serve(
    settings: Settings,
    database: Database,
    mode: Mode,
    reporter: Reporter,
    *,
    metrics: Metrics,
    manager: Manager,
) -> Result:
    """Poll, save and rescue until `mode` says that it is over, or a signal comes.

    Signals are listened for where the process is the service's own. Cancelled, this gives back what
    is claimed, and keeps the parts of files.

    Raises:
        ConfigurationError: the output folder is no folder, and cannot be one.
        StoreError: the database has become unusable.

    """
    folder = settings.output.absolute()
    output = Output(
        folder,
        DEFAULT_RUN_TYPE,
        Room(settings.min_free_bytes, [folder, database.path.parent]),
        partial(_why_not, database, folder),
    )
    unusable = await anyio.to_thread.run_sync(_why_unusable, output)
    session = Session(settings, database, mode, tally=metrics.tally)
    if unusable is not None:
        await session.in_thread(
            session.folder.failed, unusable.reason, unusable.message, time.monotonic()
        )
    if await session.in_thread(inspection.any_of_other_types, database, RUN_TYPES):
        _log.warning("runs.of_unknown_type", hint="nobody asks for them; see `downloader list`")
    client = ApiClient(settings.api_url, settings.api_key)
    engine = make_engine(settings, session.concurrency.rate_limit)
    _log.info(
        "service.started",
        version=__version__,
        mode=mode.value,
        database=str(database.path),
        output=str(output.folder),
        engine=engine.name,
        concurrency=settings.concurrency,
    )
    began_at = time.monotonic()
    try:
        service = _Service(session, client, engine, output, reporter=reporter, manager=manager)
        metrics.begin(service.live, partial(_figures, database))
        stopped = await service.run()
        unfinished = service.unfinished
    finally:
        manager.notifier.stopping("ending")
        client.close()
        engine.close()
    left = await session.in_thread(inspection.any_unfinished, database, RUN_TYPES)
    if left and not unfinished:  # submitted as this ended
        unfinished = await session.in_thread(inspection.count_unfinished, database)
    tally, standing, trouble = session.tally, None, session.trouble
    if mode is Mode.DRAIN and not (left or tally.done or tally.failed):
        standing = (await session.in_thread(status, database, utc_now())).runs
    if trouble is None and mode is Mode.ONCE:  # the others try on
        trouble = next(iter((*service.troubles(), *session.troubles(Kind.HOST))), None)
    result = Result(tally, stopped, left, trouble, output.folder, unfinished, standing)
    _tell_end(result, time.monotonic() - began_at)
    return result


def _why_not(database: Database, folder: Path) -> str | None:
    """Return in sentences why nothing may be saved in a folder."""
    found = why_not_ours(database, folder)
    return None if found is None else found.message


def _why_unusable(output: Output) -> Trouble | None:
    """Prepare the output folder; return why it is of no use just now. A full disk may be of some.

    Raises:
        ConfigurationError: it never will be.

    """
    try:
        output.prepare()
    except DiskError as error:
        why = error.message
        if error.is_mistake:
            raise ConfigurationError(
                lambda say: (
                    f"{why} Put that right, or name another folder with {say.setting('output')}."
                )
            ) from error
        return None if error.reason == "disk_full" else Trouble(error.reason, why)
    return None


def _tell_end(result: Result, seconds: float) -> None:
    """Say in one line what this call has done."""
    tally, trouble = result.tally, result.trouble
    _log.info(
        "service.ended",
        seconds=round(seconds, 3),
        done=tally.done,
        failed=tally.failed,
        saved_bytes=tally.bytes,
        received_bytes=tally.received_bytes,
        retried=tally.retried,
        new_urls=tally.refreshed,
        requests=tally.requests,
        work_left=result.work_left,
        stopped=result.stopped,
        blocked=None if trouble is None else trouble.reason,
    )


def _figures(database: Database) -> Figures:
    """Return what the database says of all that was ever done; blocking."""
    found = status(database, utc_now())
    blocked = [(one.scope, one.reason) for one in found.blocked]
    return Figures(found.runs, found.bytes, found.oldest_unfinished_at, blocked)


class _Service:
    """The tasks of one service, and how they end."""

    def __init__(
        self,
        session: Session,
        client: ApiClient,
        engine: Engine,
        output: Output,
        *,
        reporter: Reporter,
        manager: Manager,
    ) -> None:
        self._session = session
        self._output = output
        self._engine = engine
        self._reporter = reporter
        self._manager = manager
        self._reloading = Reloading(session, manager, self._adopt)
        self._recorder = Recorder(session)
        self._poller = Poller(session, client, self._recorder)
        self._hooks = Hooks(session)
        self._workers = Workers(session, self._recorder, output, engine, self._nothing_left)
        self._standing = Standing(session, self._poller, self._workers, self._hooks)
        self._stopped: str | None = None
        self._pruned = False

    @property
    def unfinished(self) -> int:
        """How many runs were unfinished when they were last counted."""
        return self._standing.unfinished

    def troubles(self) -> list[Trouble]:
        """Return why this call has no use of the API, its key apart."""
        known = self._session.troubles(Kind.ENDPOINT)
        return known if self._poller.trouble is None else [self._poller.trouble, *known]

    async def run(self) -> str | None:
        """Run everything; return what ended it early, if anything did."""
        session = self._session
        await self._hooks.begin()
        try:
            await self._run_tasks()
        finally:
            session.stop()  # a database that is locked is not waited for any longer
            # Outcomes of transfers that were cut off: one transaction gives their leases back.
            with anyio.CancelScope(shield=True):
                await session.in_thread(self._recorder.flush)
            session.close()
        await self._hooks.tell_what_is_left()
        return self._stopped

    async def _run_tasks(self) -> None:
        session = self._session
        async with anyio.create_task_group() as helpers:
            helpers.start_soon(rescuer.heartbeat, session)
            helpers.start_soon(rescuer.rescue, session)
            helpers.start_soon(housekeeping.sweep, session, self._output)
            helpers.start_soon(housekeeping.keep_log_short, session)
            helpers.start_soon(housekeeping.prune_now_and_then, session)
            helpers.start_soon(session.concurrency.watch_memory)
            helpers.start_soon(self._report)
            async with anyio.create_task_group() as work:
                if session.settings.owns_process:
                    helpers.start_soon(self._watch_signals, work.cancel_scope)
                helpers.start_soon(self._watch_duration, work.cancel_scope)
                helpers.start_soon(
                    supervise, session, self._manager.notifier, self._standing.snapshot
                )
                work.start_soon(run_in_thread, self._poller.run, self._cut_off_poller)
                work.start_soon(self._hooks.run)
                await self._workers.run()
                session.stop()
                self._hooks.finish()
            await self._prune()
            await self._show()  # the last word, not the one before
            helpers.cancel_scope.cancel()

    def _cut_off_poller(self) -> None:
        self._session.stop()
        self._poller.stop()

    async def _nothing_left(self) -> bool:
        """Return whether a drain is over: no run is unfinished, and no hook may submit another.

        What takes its time at the end is done before that is seen for the last time.
        """
        session = self._session
        while True:
            begun = self._hooks.begun
            if await session.in_thread(inspection.any_unfinished, session.database, RUN_TYPES):
                return False
            if await self._hooks.any_left() or self._hooks.begun != begun:
                return False
            if self._pruned:
                return True
            await self._prune()

    async def _prune(self) -> None:
        """Delete old history once, at the end; not where that is to come soon."""
        if not self._pruned and self._stopped is None:
            await housekeeping.prune_at_the_end(self._session)
        self._pruned = True

    async def _report(self) -> None:
        while True:
            await self._show()
            await anyio.sleep(self._reporter.every_seconds)

    async def _show(self) -> None:
        snapshot = await self._standing.snapshot()
        if self._reporter.tells_of_waits:
            snapshot = await self._standing.with_waits(snapshot)
        self._reporter.show(snapshot)

    def live(self) -> Live:
        """Return where this process stands; from any thread."""
        session = self._session
        shared = (("api", session.key.trouble), ("disk", session.folder.trouble))
        blocked = [(scope, trouble.reason) for scope, trouble in shared if trouble is not None]
        blocked += [("database", one.reason) for one in session.troubles(Kind.DATABASE)]
        if session.mode is Mode.ONCE:  # the others try on
            blocked += [("api", one.reason) for one in self.troubles()]
        return Live(
            self._workers.active, session.concurrency.limit, session.received_bytes, blocked
        )

    async def _adopt(self, settings: Settings) -> None:
        """Go by other settings from now on, as far as a running service can."""
        self._engine.resize(settings.concurrency)
        await self._session.in_thread(self._output.room.keep_free, settings.min_free_bytes)
        self._poller.adopt(settings)
        self._session.adopt(settings)

    async def _watch_signals(self, work: anyio.CancelScope) -> None:
        """First signal: end in peace; second: cut off what is running. SIGHUP: see `Manager`."""
        async with anyio.create_task_group() as ending:
            ending.start_soon(self._watch_hangups, ending, work)
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for received in signals:
                    await self._end_on(received.name, ending, work)

    async def _watch_hangups(self, ending: TaskGroup, work: anyio.CancelScope) -> None:
        """Heed SIGHUP, and ignore it in the end: the last commits are still to come.

        By a handler of our own: between the event loop's and none at all it is deadly for a moment.
        """
        heard = LoopSignal()
        signal.signal(signal.SIGHUP, lambda *_: heard.set())
        try:
            while True:
                await heard.wait(math.inf)
                if self._manager.reread is None and self._stopped is None:
                    leave_terminal()
                    await self._end_on(signal.SIGHUP.name, ending, work)
                elif self._stopped is None:
                    ending.start_soon(self._reloading.run)
        finally:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            heard.close()

    async def _end_on(self, name: str, ending: TaskGroup, work: anyio.CancelScope) -> None:
        """Begin to end, or cut off what is running where that has begun before."""
        if self._stopped is None:
            self._stopped = name
            ending.start_soon(self._end, name, work)
            return
        _log.warning("service.cut_off", signal=name)
        await self._cut_off(work)
        ending.cancel_scope.cancel()

    async def _watch_duration(self, work: anyio.CancelScope) -> None:
        seconds = self._session.settings.max_duration_seconds
        if seconds is not None:
            await anyio.sleep(seconds)
            await self._end("max-duration", work)

    async def _end(self, why: str, work: anyio.CancelScope) -> None:
        """Take up nothing new, let what is running end within the grace time, cut off the rest."""
        grace = self._session.settings.grace_seconds
        running = self._workers.active
        hooks = self._hooks.under_way
        self._stopped = self._stopped or why
        self._manager.notifier.stopping(f"ending ({why}), {running} transferring")
        said: dict[str, object] = {"hooks": hooks} if hooks else {}
        if running or hooks:
            said["hint"] = "what is running may end; a second signal cuts it off"
        _log.warning("service.stopping", reason=why, transfers=running, grace_seconds=grace, **said)
        self._session.stop()
        self._poller.stop()
        self._hooks.stop()
        await anyio.sleep(grace)
        await self._cut_off(work)

    async def _cut_off(self, work: anyio.CancelScope) -> None:
        self._session.stop()
        self._hooks.cut_off()
        for one in self._session.held():
            if one.guard is not None:
                one.guard.cancel()
        await anyio.sleep(UNWIND_SECONDS)
        work.cancel()
