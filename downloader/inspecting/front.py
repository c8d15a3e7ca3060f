"""What a request must be before anything looks at it, and what every answer says.

A page of another site may make the user's browser ask a server on this machine. It cannot read
the answers (there is no CORS), unless it points a name of its own to 127.0.0.1: then the browser
takes both for one site ("DNS rebinding"). Such a request names that other host, and is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Any port: it may have been forwarded from another machine (`ssh -L`).
_HOST: Final = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)

_HEADERS: Final = (
    (b"cross-origin-resource-policy", b"same-origin"),
    # Everything is served from here, also where a page has a script or a style within it.
    (
        b"content-security-policy",
        (
            b"default-src 'self'; script-src 'self' 'unsafe-inline'; "
            b"style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
            b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        ),
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Front:
    """Lets through what a browser on this machine asks, to read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if not _is_for_us(scope["headers"]):
            await _refuse(
                telling,
                403,
                "This is for this machine alone: ask for it as localhost or 127.0.0.1.\n",
            )
        elif scope["method"] not in ("GET", "HEAD"):
            await _refuse(telling, 405, "Nothing can be changed here.\n")
        else:
            await self._app(scope, receive, telling)


def _is_for_us(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    hosts = [value for name, value in headers if name.lower() == b"host"]
    return len(hosts) == 1 and _HOST.fullmatch(hosts[0]) is not None


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
