"""Below HTTP: the connection itself, for answers that break its rules.

An ASGI server lets an application send correct HTTP only. A stand-in for a bad network has to
cut, reset and stall connections, so the protocol class here puts the connection into each
request's ASGI state, as `scope["state"]["wire"]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import Scope, Send

Headers = Sequence[tuple[str, str]]

# SO_LINGER on, for 0 seconds: closing sends RST instead of FIN.
LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class Wire:
    """One connection, as a fault sees it."""

    def __init__(self, protocol: H11Protocol) -> None:
        self._protocol = protocol
        self._lost = asyncio.Event()

    @property
    def _transport(self) -> asyncio.Transport:
        return self._protocol.transport

    @property
    def gone(self) -> bool:
        """Whether there is no use in sending anything more."""
        return self._lost.is_set() or self._transport.is_closing()

    def lose(self) -> None:
        """Take note that the connection is lost: whoever waits goes on."""
        self._lost.set()

    async def wait(self, seconds: float | None) -> bool:
        """Wait `seconds` (None: for ever), or until the connection is lost; False if it was."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._lost.wait(), seconds)
        return not self.gone

    async def write(self, data: bytes) -> None:
        """Send bytes as they are, past the server's own idea of HTTP."""
        if not self.gone:
            self._transport.write(data)
            await self._protocol.flow.drain()

    async def flush(self) -> None:
        """Wait until what was sent has been given to the kernel."""
        if not self.gone:
            # Not 0: a TLS transport takes an empty buffer for one at its limit, and never drains.
            self._transport.set_write_buffer_limits(high=1, low=0)
            await self._protocol.flow.drain()

    @contextlib.contextmanager
    def in_one_piece(self) -> Iterator[bytearray]:
        """Hold what the server sends; in the end it goes at once, with what was put behind it.

        What comes after an answer does harm only where it is read together with its end.
        """
        cycle, held = self._protocol.cycle, _Held()
        cycle.transport, kept = cast("asyncio.Transport", held), cycle.transport
        try:
            yield held.data
        finally:
            cycle.transport = kept
            if not self.gone:
                kept.write(bytes(held.data))

    async def close(self) -> None:
        """Close in good order (FIN) after what was sent, and wait for it."""
        self._transport.close()
        await self._lost.wait()

    async def reset(self) -> None:
        """Close with RST, after what was sent."""
        await self.flush()
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None and not self.gone:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        self._transport.abort()
        await self._lost.wait()


class WireProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with the connection in each request's state."""

    wire: Wire

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the connection where applications find it."""
        super().connection_made(transport)
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            # asyncio does so only for sockets that name their protocol, which a bound one does
            # not; without it each small answer waits 40 ms for the client's delayed ACK.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = Wire(self)
        self.app_state: dict[str, Any] = {**self.app_state, "wire": self.wire}

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits on the connection."""
        self.wire.lose()
        super().connection_lost(exc)


def wire_of(scope: Scope) -> Wire:
    """Return the connection that a request came in on."""
    wire: Wire = scope["state"]["wire"]
    return wire


def head(status: int, headers: Headers) -> bytes:
    """Return a status line and headers as they go over the wire."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def surplus(what: str, again: bytes) -> bytes:
    """Return what nobody has asked for behind an answer, which is `again`."""
    if what == "timeout":
        return head(408, [("content-length", "0"), ("connection", "close")])
    return again if what == "answer" else b"stray bytes\r\n"


class _Held:
    """In place of a connection's transport: keeps what is written."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.data += data


class HttpSink:
    """Sends a response by the rules; the server chooses chunked where there is no length."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line and the headers."""
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes) -> None:
        """Send some of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class RawSink:
    """Sends a response as it is told, right or wrong; the end of the body is the connection's."""

    def __init__(self, wire: Wire, date: str) -> None:
        self._wire = wire
        self._date = date

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line and the headers."""
        more = [("date", self._date), *headers, ("connection", "close")]
        await self._wire.write(head(status, more))

    async def write(self, data: bytes) -> None:
        """Send some of the body."""
        await self._wire.write(data)

    async def finish(self) -> None:
        """End the body by closing."""
        await self._wire.close()


Sink = HttpSink | RawSink
