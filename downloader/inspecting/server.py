"""Serving it on this machine, until it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Final

import uvicorn

from downloader.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

_HOST: Final = "127.0.0.1"
_GRACE_SECONDS: Final = 2
"""How long answers under way may take at the end: a file that is listened to takes minutes."""


class _Server(uvicorn.Server):
    """A server that tells when it is ready, and for which being asked to end is no accident."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGINT and SIGTERM, at once on the second; uvicorn's own raises them again."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def bind(port: int) -> socket.socket:
    """Take a port of this machine's own address, 0 for a free one.

    Raises:
        ConfigurationError: it cannot be had.

    """
    try:
        return socket.create_server((_HOST, port))
    except OSError as error:
        raise ConfigurationError(
            f"It cannot be served at port {port} of {_HOST}: {error.strerror}. "
            "Name another with --port; 0 takes a free one."
        ) from error


def serve(app: ASGIApp, listening: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is told the address. Call it in the main thread."""
    url = f"http://{_HOST}:{listening.getsockname()[1]}/"
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    asyncio.run(_Server(config, lambda: ready(url)).serve([listening]))
