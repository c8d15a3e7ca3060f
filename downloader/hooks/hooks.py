"""Runs hooks for the runs that this process has ended, a few at a time, beside the transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from downloader.clock import utc_now
from downloader.errors import StoreError
from downloader.hooks.process import HookCall
from downloader.hooks.telling import environment, standard_input
from downloader.logger import get_logger
from downloader.observe.tally import HookOutcome
from downloader.rules.states import State
from downloader.store import hook_events

if TYPE_CHECKING:
    from downloader.hooks.process import HookResult
    from downloader.session import Session
    from downloader.store.backlog import EndedRun

_log = get_logger(__name__)

_LOOK_AGAIN_SECONDS = 60.0


class Hooks:
    """The hooks of one service.

    What waits is in the session's backlog. A hook that fails changes nothing of its run.
    """

    def __init__(self, session: Session) -> None:
        settings = session.settings
        self._session = session
        self._commands = {State.DONE: settings.on_done, State.FAILED: settings.on_failed}
        self._threads = anyio.CapacityLimiter(settings.hook_concurrency)
        self._calls: set[HookCall] = set()
        self._ended: list[hook_events.HookEvent] = []
        self._recording = anyio.Lock()
        self._all_told = False  # no run will end any more
        self._stopping = False

    @property
    def under_way(self) -> int:
        """How many are under way."""
        return len(self._calls)

    @property
    def left(self) -> int:
        """How many are under way or wait."""
        backlog = self._session.backlog
        return self.under_way + (0 if backlog is None else len(backlog))

    async def run(self) -> None:
        """Run hooks until all are run after `finish`, or those under way have ended after `stop`.

        Where this is cancelled they are killed.
        """
        if self._session.backlog is None:
            return
        async with anyio.create_task_group() as places:
            for _ in range(self._session.settings.hook_concurrency):
                places.start_soon(self._take_turns)

    def finish(self) -> None:
        """Come to an end when everything that waits is done."""
        self._all_told = True
        self._session.owed.set()

    def stop(self) -> None:
        """Begin no more."""
        self._stopping = True
        self._session.owed.set()

    def cut_off(self) -> None:
        """Begin no more, and have those under way end at once."""
        self.stop()
        for call in list(self._calls):
            call.cut_off()

    def tell_what_is_left(self) -> None:
        """Say how many hooks will not be run."""
        backlog = self._session.backlog
        if backlog is not None and (left := len(backlog) + backlog.lost):
            _log.warning(
                "hooks.not_run",
                runs=left,
                hint="docs/hooks.md has the query that finds these runs",
            )

    async def _take_turns(self) -> None:
        """Run one hook after another."""
        backlog = self._session.backlog
        while backlog is not None and not self._stopping:
            run = backlog.take()
            if run is not None:
                await self._see_through(run)
            elif self._all_told:
                return
            else:
                await self._session.owed.wait(_LOOK_AGAIN_SECONDS)

    async def _see_through(self, run: EndedRun) -> None:
        log = _log.bind(run_id=run.key.run_id, state=run.state.value)
        try:
            row = await self._session.in_thread(
                hook_events.row_as_it_ended, self._session.database, run
            )
        except StoreError as error:
            log.warning("hook.not_run", message=str(error))
            self._session.tally.hook(run.state, HookOutcome.NOT_RUN)
            return
        if row is None:  # put back since: its hook is due when it ends anew
            log.info("hook.out_of_date")
            return
        settings = self._session.settings
        call = HookCall(
            self._commands[run.state],
            environment(row, self._session.database.path, settings.api_key),
            standard_input(row),
            settings.hook_timeout_seconds,
            settings.api_key,
        )
        self._calls.add(call)
        try:
            result = await anyio.to_thread.run_sync(
                call.run, limiter=self._threads, abandon_on_cancel=True
            )
        except anyio.get_cancelled_exc_class():
            call.kill()
            raise
        finally:
            self._calls.discard(call)
        self._session.tally.hook(run.state, result.reason.removeprefix("hook_"))
        tell = log.info if result.reason == "hook_done" else log.warning
        output = {"output": result.output} if result.output else {}
        tell(result.reason.replace("_", ".", 1), detail=result.detail, **output)
        await self._record(run, result)

    async def _record(self, run: EndedRun, result: HookResult) -> None:
        """Put it into the history: whatever ends while one commit runs goes into the next."""
        event = hook_events.HookEvent(run.key, utc_now(), result.reason, result.detail)
        self._ended.append(event)
        with anyio.CancelScope(shield=True):
            async with self._recording:
                group, self._ended = self._ended, []
                if not group:
                    return
                try:
                    await self._session.in_thread(hook_events.record, self._session.database, group)
                except StoreError as error:
                    _log.warning("hook.not_recorded", runs=len(group), message=str(error))
