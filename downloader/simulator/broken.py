"""Responses of the API that break off, never come, or come with something behind them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.responses import Response

from downloader.simulator.wire import head, surplus, wire_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from downloader.simulator.faults import Fault


class Broken(Response):
    """An answer that never comes: the connection is reset, or stays silent until it is lost."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self._fault = fault

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Break the connection instead of sending."""
        scope["state"]["count"](None)
        if self._fault.kind == "reset":
            await wire_of(scope).reset()
        else:
            await wire_of(scope).wait(None)


class Truncated(Response):
    """An answer that ends too early."""

    def __init__(self, body: object, after: int | None) -> None:
        super().__init__(json.dumps(body), media_type="application/json")
        self._after = len(self.body) // 2 if after is None else after

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send some of the body and close."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        part = bytes(self.body)[: self._after]
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await wire_of(scope).close()


class Surplus(Response):
    """An answer behind which something more comes."""

    def __init__(self, answer: Response, what: str) -> None:
        super().__init__()
        self._answer, self._what = answer, what

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer by the rules, and at once what is too much."""
        headers = [(name.decode(), value.decode()) for name, value in self._answer.raw_headers]
        again = head(self._answer.status_code, headers) + bytes(self._answer.body)
        with wire_of(scope).in_one_piece() as held:
            await self._answer(scope, receive, send)
            held.extend(surplus(self._what, again))
