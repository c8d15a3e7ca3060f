"""Runs the hooks that the history owes, a few at a time, beside the transfers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from downloader.clock import utc_now
from downloader.errors import StoreError
from downloader.hooks.process import HookCall, HookResult
from downloader.hooks.telling import environment, standard_input
from downloader.logger import get_logger
from downloader.rules.states import State
from downloader.store.hook_events import HookEvent, HookQueue

if TYPE_CHECKING:
    from downloader.session import Session
    from downloader.store.hook_events import OwedHook

_log = get_logger(__name__)

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon what another process has recorded is seen."""

_COUNTING_SHARE: Final = 50
"""How many times as long as counting what is owed took it is not counted again."""


class Hooks:
    """The hooks of one service. A hook that fails changes nothing of its run."""

    def __init__(self, session: Session) -> None:
        settings = session.settings
        commands = {State.DONE: settings.on_done, State.FAILED: settings.on_failed}
        self._session = session
        self._commands = {state: command for state, command in commands.items() if command}
        self._queue = HookQueue(session.database, self._commands)
        self._threads = anyio.CapacityLimiter(settings.hook_concurrency)
        self._calls: set[HookCall] = set()
        self._ended: list[HookEvent] = []
        self._finishing = False  # nothing of this call ends any more
        self._stopping = False
        self._cut_off = False
        self._counted = 0
        self._count_again_at = float("-inf")
        self.under_way = 0
        """How many are under way."""
        self.begun = 0
        """How many have been begun so far."""

    async def begin(self) -> None:
        """Have hooks owed for what ends from now on; what ended before is known to the history."""
        if self._commands:
            await self._session.in_thread(self._queue.begin)

    async def any_left(self) -> bool:
        """Return whether a hook is under way here, or owed."""
        if not self._commands:
            return False
        return bool(self.under_way) or await self._session.in_thread(self._queue.any_owed)

    async def count_left(self) -> int:
        """Count those under way and those that are owed, these as seldom as it takes long."""
        began_at = time.monotonic()
        if self._commands and (began_at >= self._count_again_at or self._stopping):
            self._counted = await self._session.in_thread(self._queue.count)
            ended_at = time.monotonic()
            self._count_again_at = ended_at + max(1.0, _COUNTING_SHARE * (ended_at - began_at))
        return self.under_way + self._counted

    async def run(self) -> None:
        """Run hooks until none is left after `finish`, or those under way have ended after `stop`.

        Where this is cancelled they are killed.
        """
        if not self._commands:
            return
        try:
            async with anyio.create_task_group() as calls:
                last: int | None = None  # the last event whose hook this call has to see to
                while True:
                    if self._finishing and last is None:
                        last = await self._session.in_thread(self._queue.newest_event)
                    free = self._session.settings.hook_concurrency - self.under_way
                    for owed in await self._turn(0 if self._stopping else free, last):
                        self.under_way += 1
                        self.begun += 1
                        calls.start_soon(self._see_through, owed)
                    if not (self.under_way or self._ended) and (self._stopping or last is not None):
                        return
                    await self._session.owed.wait(_LOOK_AGAIN_SECONDS)
        finally:
            await self._turn(0, None)

    def finish(self) -> None:
        """Come to an end when everything is done that is owed by now."""
        self._finishing = True
        self._session.owed.set()

    def stop(self) -> None:
        """Begin no more."""
        self._stopping = True
        self._session.owed.set()

    def cut_off(self) -> None:
        """Begin no more, and have those under way end at once."""
        self.stop()
        self._cut_off = True
        for call in list(self._calls):
            call.cut_off()

    async def tell_what_is_left(self) -> None:
        """Say how many hooks this call leaves to the next, where it had to stop."""
        if self._stopping and (left := await self.count_left()):
            _log.warning(
                "hooks.not_run",
                runs=left,
                hint="they stay owed, and the next `downloader run` with these options runs them",
            )

    async def _turn(self, free: int, last: int | None) -> list[OwedHook]:
        """Record what has ended, and claim as many as are `free`: in one transaction."""
        ended, self._ended = self._ended, []
        owed: list[OwedHook] = []
        try:
            with anyio.CancelScope(shield=True):  # what is claimed is owed no more
                owed = await self._session.in_thread(self._queue.turn, ended, free, last)
        except StoreError as error:
            if ended:
                _log.warning("hook.not_recorded", runs=len(ended), message=str(error))
            else:
                _log.warning("hooks.not_claimed", message=str(error))
        return owed

    async def _see_through(self, owed: OwedHook) -> None:
        settings = self._session.settings
        call = HookCall(
            self._commands[owed.state],
            environment(owed.row, self._session.database.path, settings.api_key),
            standard_input(owed.row),
            settings.hook_timeout_seconds,
            settings.api_key,
        )
        self._calls.add(call)
        if self._cut_off:  # while it was claimed
            call.cut_off()
        result = HookResult("hook_interrupted", "killed")
        try:
            result = await anyio.to_thread.run_sync(
                call.run, limiter=self._threads, abandon_on_cancel=True
            )
        except anyio.get_cancelled_exc_class():
            call.kill()
            raise
        finally:
            self._calls.discard(call)
            self.under_way -= 1
            self._ended.append(HookEvent(owed.key, utc_now(), result.reason, result.detail))
            self._tell(owed, result)
            self._session.owed.set()

    def _tell(self, owed: OwedHook, result: HookResult) -> None:
        self._session.tally.hook(owed.state, result.reason.removeprefix("hook_"))
        log = _log.bind(run_id=owed.key.run_id, state=owed.state.value)
        tell = log.info if result.reason == "hook_done" else log.warning
        output = {"output": result.output} if result.output else {}
        tell(result.reason.replace("_", ".", 1), detail=result.detail, **output)
