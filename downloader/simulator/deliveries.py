"""Sending a response: paced, cut, reset, stalled, or framed wrongly, as a fault says."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from downloader.simulator.wire import HttpSink, RawSink, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from starlette.types import Send

    from downloader.simulator.faults import Fault

_TICKS_PER_SECOND: Final = 20
"""How often a paced body gets its next bytes."""


@dataclass
class Reply:
    """What is to be sent: status, headers without Content-Length, and `size` bytes of body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Iterable[bytes] = ()
    size: int = 0

    @classmethod
    def of(cls, status: int, body: bytes, headers: dict[str, str]) -> Reply:
        """Make a reply whose body is at hand."""
        return cls(status, headers, (body,), len(body))


@dataclass(frozen=True)
class Delivery:
    """How it is to be sent; the default is whole, by the rules, as fast as it goes."""

    framing: str = "length"
    """`length`, `chunked` (no Content-Length), or `close` (neither: the end is the end)."""
    declared_by: int = 0
    """How much Content-Length is above the truth."""
    ending: str = "finish"
    """What happens after `after` bytes: `finish`, `close`, `reset` or `stall`."""
    after: int | None = None
    """Bytes of the body; None: half."""
    stall_seconds: float | None = None
    """How long a stall lasts; None: for ever."""
    rate: float | None = None
    """Bytes per second; None: no limit."""


def delivery(fault: Fault | None, *, bandwidth: float | None) -> Delivery:
    """How a fault of the storage has its answer sent."""
    if fault is None:
        return Delivery(rate=bandwidth)
    match fault.kind:
        case "truncate":
            return Delivery(
                framing=fault.text("framing"), ending="close", after=_after(fault), rate=bandwidth
            )
        case "reset":
            return Delivery(ending="reset", after=_after(fault), rate=bandwidth)
        case "stall" if fault.text("at") == "body":
            return Delivery(
                ending="stall",
                after=_after(fault),
                stall_seconds=fault.number("seconds"),
                rate=bandwidth,
            )
        case "framing":
            return Delivery(framing=fault.text("form"), rate=bandwidth)
        case "wrong-length":
            return Delivery(declared_by=fault.integer("by"), rate=bandwidth)
        case "drip":
            return Delivery(rate=fault.number("rate"))
    return Delivery(rate=bandwidth)


def _after(fault: Fault) -> int | None:
    return None if fault.value("after") is None else fault.integer("after")


async def deliver(
    reply: Reply,
    how: Delivery,
    *,
    send: Send,
    wire: Wire,
    date: str,
    count: Callable[[int], None],
) -> None:
    """Send a reply; `count` is told of the bytes of the body before they go."""
    raw = how.framing == "close" or how.declared_by != 0
    sink = RawSink(wire, date) if raw else HttpSink(send)
    headers = dict(reply.headers)
    if how.framing == "length":
        headers["content-length"] = str(max(reply.size + how.declared_by, 0))
    await sink.start(reply.status, list(headers.items()))
    parts = iter(reply.body)
    if how.rate is not None:
        parts = _paced_parts(parts, max(int(how.rate / _TICKS_PER_SECOND), 1))
    limit = None
    if how.ending != "finish":
        limit = min(reply.size // 2 if how.after is None else how.after, reply.size)
    begun, sent = time.monotonic(), 0
    for part in parts:
        piece = part if limit is None else part[: limit - sent]
        rest = part[len(piece) :]
        if how.rate is not None:
            await wire.wait(max(begun + sent / how.rate - time.monotonic(), 0))
        await asyncio.sleep(0)  # others have their turn, and a loss is noticed
        if wire.gone:
            await wire.wait(None)  # or uvicorn would miss the end of the answer
            return
        count(len(piece))
        await sink.write(piece)
        sent += len(piece)
        if limit is not None and sent >= limit:
            if not await _break_off(how, wire):
                return
            limit = None
            if rest:
                count(len(rest))
                await sink.write(rest)
                sent += len(rest)
    await sink.finish()


async def _break_off(how: Delivery, wire: Wire) -> bool:
    """Do to the connection what was ordered; True where the answer goes on afterwards."""
    if how.ending == "stall":
        await wire.flush()
        return await wire.wait(how.stall_seconds)
    await (wire.reset() if how.ending == "reset" else wire.close())
    return False


def _paced_parts(parts: Iterable[bytes], most: int) -> Iterator[bytes]:
    for part in parts:
        for start in range(0, len(part), most):
            yield part[start : start + most]
