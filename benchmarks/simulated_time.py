"""Simulated time: the program's own tasks run as they are, and waiting costs nothing.

The monotonic clock, the wall clock and the event loop are one simulated clock, which goes on to
the next timer whenever every task waits. Blocking calls run at once, in the loop's own thread.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from unittest.mock import patch

import anyio
import anyio.to_thread

from downloader import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

STARTED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)

TAKES_SECONDS: Final = "takes_seconds"
"""The attribute of a blocking call that says how long it takes in simulated time."""


class SimulatedTime:
    """A clock that starts at 0 on the monotonic side and at `STARTED_AT` on the wall."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return self.seconds

    def wall(self) -> float:
        """Return the time of day, in seconds since the epoch."""
        return STARTED_AT.timestamp() + self.seconds

    def run(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run an asynchronous function to its end in this time."""

        async def at_once(call: Callable[..., T], *values: object, **_options: object) -> T:
            await anyio.sleep(getattr(call, TAKES_SECONDS, 0.0))
            return call(*values)

        def loop() -> asyncio.AbstractEventLoop:
            return asyncio.SelectorEventLoop(_Selector(self))

        with ExitStack() as patches:
            patches.enter_context(patch.object(time, "monotonic", self.monotonic))
            patches.enter_context(patch.object(random, "random", random.Random(1).random))  # noqa: S311 - the same jitter in each call
            patches.enter_context(patch.object(clock, "_wall", self.wall))
            patches.enter_context(patch.object(anyio.to_thread, "run_sync", at_once))
            return anyio.run(function, *args, backend_options={"loop_factory": loop})


class _Selector(selectors.DefaultSelector):
    """Never waits: where nothing is ready, the time until the next timer has simply passed."""

    def __init__(self, simulated: SimulatedTime) -> None:
        super().__init__()
        self._simulated = simulated

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready now."""
        ready: list[Any] = super().select(0)
        if not ready and timeout:
            self._simulated.seconds += timeout
        return ready
