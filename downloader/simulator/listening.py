"""A listener, and what may befall its connections before any request is read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

import uvicorn

from downloader.simulator.wire import LINGER_ZERO

if TYPE_CHECKING:
    from downloader.simulator.catalogue import Place
    from downloader.simulator.faults import Fault
    from downloader.simulator.state import SimulatorState

BACKLOG: Final = 2048
_TICK_SECONDS: Final = 0.05
_FILLERS: Final = 4
"""Connections that fill a queue of none; Linux lets one in, and drops the others' SYN."""
_LAST_WORDS_SECONDS: Final = 5.0
"""How long a request may take to notice that its connection was aborted."""


class Listener(uvicorn.Server):
    """One uvicorn server that says when it is ready and stops at once when it is told to.

    uvicorn's own way out waits for every response to end, in steps of 0.1 s; a stalled one
    never does. Here connections are aborted, which wakes whoever waits on them. So they are
    where a fault of all connections begins or ends.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: SimulatorState,
        place: Place | None,
        bound: socket.socket,
    ) -> None:
        super().__init__(config)
        self._state = state
        self._place = place
        self._bound = bound
        self._fillers: list[socket.socket] = []
        self._fault: Fault | None = None
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        self._write_date()

    def stop(self) -> None:
        """End `main_loop`."""
        self._stop.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's own
        """Listen, and say so."""
        await self._open()
        self.ready.set()

    async def main_loop(self) -> None:
        """Keep the Date header right, and follow the faults, until it is time to stop."""
        while not self._stop.is_set():
            self._write_date()
            fault = self._state.connection_fault(self._place)
            if fault != self._fault:
                await self._change(fault)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's own
        """Stop listening and abort what is open."""
        self._close()
        if tasks := list(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=_LAST_WORDS_SECONDS)

    async def _change(self, fault: Fault | None) -> None:
        """Have connections meet this fault from now on, or none."""
        kept = self._bound.dup()
        self._close()
        self._fault, self._bound = fault, kept
        if fault is not None and self._place is not None:
            self._state.stats.fault(self._place, fault.kind)
        match fault.kind if fault else "none":
            case "refuse":
                self._bind_anew()
            case "drop":
                self._bind_anew()
                self._fill()
            case "hang":
                self._bound.listen(BACKLOG)
            case "abort":
                loop = asyncio.get_running_loop()
                self.servers = [await loop.create_server(_Aborted, sock=self._bound)]
            case _:
                await self._open()

    async def _open(self) -> None:
        await super().startup([self._bound])

    def _close(self) -> None:
        for server in self.servers:
            server.close()
        self.servers = []
        self._bound.close()
        for filler in self._fillers:
            filler.close()
        self._fillers = []
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _bind_anew(self) -> None:
        """Keep the port without listening: connections are refused, those that wait reset."""
        family, address = self._bound.family, self._bound.getsockname()
        self._bound.close()
        self._bound = socket.socket(family, socket.SOCK_STREAM)
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bound.bind(address)

    def _fill(self) -> None:
        """Fill a queue that nobody empties, so that no further connection comes about."""
        self._bound.listen(0)
        for _ in range(_FILLERS):
            filler = socket.socket(self._bound.family, socket.SOCK_STREAM)
            filler.settimeout(0)
            filler.connect_ex(self._bound.getsockname())
            self._fillers.append(filler)

    def _write_date(self) -> None:
        date = formatdate(self._state.now, usegmt=True)
        self.server_state.default_headers = [(b"date", date.encode())]


class _Aborted(asyncio.Protocol):
    """A connection that is reset as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Reset it."""
        raw: socket.socket = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        transport.close()
