"""The API's listener: what happens to a request before FastAPI sees it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from downloader.simulator import answers
from downloader.simulator.api import PREFIX, build_api
from downloader.simulator.catalogue import Place
from downloader.simulator.state import BUCKET, MOVED, SimulatorState
from downloader.simulator.storage import Storage
from downloader.simulator.wire import wire_of

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send


class Front:
    """The API's listener: counts, delays and limits requests before the application sees them."""

    def __init__(self, state: SimulatorState) -> None:
        self._state = state
        self._app = build_api(state)
        self._storage = Storage(state)
        self._allowance = 1.0
        self._allowance_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path.startswith((BUCKET, MOVED + BUCKET)):
            await self._storage(scope, receive, send)  # the other end of a redirect
        elif path.startswith(f"{PREFIX}/"):
            with self._state.stats.in_flight(Place.API):
                await self._answer(_kind(path), scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        state, counted = self._state, False

        def count(status: int | None) -> None:
            nonlocal counted
            if not counted:
                counted = True
                state.stats.api_request(kind, status)

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        scope["state"]["count"] = count
        if state.options.api_latency and not await wire_of(scope).wait(state.options.api_latency):
            count(None)
            return
        wait = self._wait_for_allowance()
        if wait:
            limited = JSONResponse(
                {"detail": answers.detail_of(429)},
                status_code=429,
                headers={"retry-after": str(math.ceil(wait))},
            )
            await limited(scope, receive, counting)
        else:
            await self._app(scope, receive, counting)

    def _wait_for_allowance(self) -> float:
        """Seconds until the rate limit lets a request through; 0 lets this one (token bucket)."""
        rate = self._state.options.rate_limit
        if rate is None:
            return 0.0
        now = time.monotonic()
        gained = (now - self._allowance_at) * rate
        self._allowance, self._allowance_at = min(self._allowance + gained, max(rate, 1.0)), now
        if self._allowance < 1:
            return (1 - self._allowance) / rate
        self._allowance -= 1
        return 0.0


def _kind(path: str) -> str:
    if path.endswith("-results"):
        return "bulk"
    return "single" if "-result/" in path else "other"
