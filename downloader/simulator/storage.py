"""The storage behind the presigned URLs: GET with ranges, S3's refusals, and faults."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, NamedTuple

from downloader.simulator import signing
from downloader.simulator.audio import CONTENT_TYPES, AudioFile, AudioName, Stored, audio_file
from downloader.simulator.catalogue import Place
from downloader.simulator.deliveries import Delivery, Reply, deliver, delivery
from downloader.simulator.digests import OF_WHAT_IS_SENT, digest
from downloader.simulator.faults import Fault
from downloader.simulator.ranges import part_asked_for
from downloader.simulator.signing import Refusal, s3_error
from downloader.simulator.state import BUCKET, MOVED, PORTAL, SimulatorState
from downloader.simulator.waits import wait_headers
from downloader.simulator.wire import Wire, head, surplus, wire_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.types import Receive, Scope, Send

_OBJECT: Final = re.compile(rf"({MOVED})?{BUCKET}([a-z-]+)/(\d{{1,19}})\.(wav|flac)", re.ASCII)
_FIRST_MODIFIED: Final = 1_735_689_600
"""2025-01-01; each further version of an object is a day younger."""
_SLOW_TO_MAKE: Final = 8_000_000
"""Bytes from which preparing a file (the MD5 of FLAC) leaves the event loop."""
_NOT_AUDIO: Final = b"THIS IS NOT AUDIO, WHATEVER IS SAID OF IT"[:32]

_CODES: Final = {
    400: "InvalidRequest",
    401: "Unauthorized",
    403: "AccessDenied",
    404: "NoSuchKey",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}
_PAGES: Final = {
    "xml": (
        "application/xml",
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code></Error>',
    ),
    "html": ("text/html", "<!DOCTYPE html>\n<html><body><h1>Bad gateway</h1></body></html>"),
    "json": ("application/json", json.dumps({"error": "internal", "code": 500})),
}


class _Request(NamedTuple):
    """A GET of an object, as far as it is understood."""

    path: str
    query: str
    headers: dict[str, str]
    run_type: str
    run_id: int
    moved: bool


class Storage:
    """The ASGI application of the storage."""

    def __init__(self, state: SimulatorState) -> None:
        self._state = state

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request; an answer is counted before its first byte goes."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if "x-api-key" in headers:
            self._state.stats.leaked_key()
        if scope["scheme"] == "http" and self._state.storage_origin.startswith("https"):
            self._state.stats.by_http()
        with self._state.stats.in_flight(Place.STORAGE):
            await self._answer(scope, headers, send)

    async def _answer(self, scope: Scope, headers: dict[str, str], send: Send) -> None:
        state, wire = self._state, wire_of(scope)
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        match = _OBJECT.fullmatch(path)
        refusal = signing.refusal(
            scope["method"], path, query, store=state.options.store, now=state.now
        )
        latency = state.options.storage_latency
        if latency and not await wire.wait(latency):
            self._count(None, None)
            return
        if match is None:
            await self._send(_refused(refusal or _missing(path)), Delivery(), wire, send)
            return
        moved, run_type, run_id = bool(match[1]), match[2], int(match[3])
        request = _Request(path, query, headers, run_type, run_id, moved)
        if refusal is not None:
            await self._send(_refused(refusal), Delivery(), wire, send, request)
            return
        fault = None
        if not moved:
            fault = state.fault(Place.STORAGE, run_type, run_id) or state.random_fault(
                Place.STORAGE, run_type, run_id
            )
        if await self._fails_before_headers(fault, request, wire):
            return
        reply = await self._reply(request, fault)
        how = delivery(fault, bandwidth=state.options.bandwidth)
        if fault is None or fault.kind != "surplus":
            await self._send(reply, how, wire, send, request)
            return
        again = await self._reply(request, None)
        top = head(again.status, [*again.headers.items(), ("content-length", str(again.size))])
        with wire.in_one_piece() as held:
            await self._send(reply, how, wire, send, request)
            held.extend(surplus(fault.text("what"), top + b"".join(again.body)))

    async def _send(
        self, reply: Reply, how: Delivery, wire: Wire, send: Send, request: _Request | None = None
    ) -> None:
        self._count(reply.status, request)
        await deliver(
            reply, how, send=send, wire=wire, date=self._state.date, count=self._state.stats.sent
        )

    def _count(self, status: int | None, request: _Request | None) -> None:
        self._state.stats.storage_request(
            status,
            run_id=request.run_id if request else None,
            ranged=request is not None and "range" in request.headers,
        )

    async def _fails_before_headers(
        self, fault: Fault | None, request: _Request, wire: Wire
    ) -> bool:
        """Act out a fault that comes before the status line; True where it was the end."""
        if fault is None:
            return False
        match fault.kind:
            case "reset" if fault.text("at") == "headers":
                self._count(None, request)
                await wire.reset()
                return True
            case "stall" if fault.text("at") != "headers":
                return False
            case "slow" | "stall":
                if await wire.wait(fault.number("seconds")):
                    return False
                self._count(None, request)
                return True
        return False

    async def _reply(self, request: _Request, fault: Fault | None) -> Reply:
        """Make what is to be sent, by the rules or by the fault."""
        if fault is not None and (instead := self._instead(request, fault)) is not None:
            instead.headers |= wait_headers(fault, self._state.now)
            return instead
        version = fault.integer("version") if fault and fault.kind == "changed" else 1
        streamed = fault is not None and fault.kind == "streamed"
        name = self._state.audio(
            request.run_type, request.run_id, version=version, streamed=streamed
        )
        file = await _made(name)
        modified: float = _FIRST_MODIFIED + 86_400 * (version - 1)
        told = {"etag": name.etag}
        match fault:
            case Fault(kind="gzip"):
                file = Stored(gzip.compress(b"".join(file.read(0, file.size)), mtime=0))
                told["content-encoding"] = "gzip"
            case Fault(kind="weak-etag"):
                told["etag"] = f"W/{name.etag}"
            case Fault(kind="no-etag"):
                del told["etag"]
                ago = fault.number("modified")
                modified = modified if ago is None else self._state.ruled_at - ago
            case Fault(kind="digest"):
                wrong = fault.text("wrong") == "digest"
                told |= await asyncio.to_thread(digest, name, fault.text("header"), wrong=wrong)
        last_modified = formatdate(modified, usegmt=True)
        asked = {} if fault and fault.kind == "ignore-range" else request.headers
        part = part_asked_for(asked, file.size, etag=told.get("etag"), last_modified=last_modified)
        if fault is not None and fault.kind == "partial":
            unasked = fault.value("unasked") is True
            part = part.capped(fault.integer("bytes", file.size), unasked=unasked)
        headers = {
            "accept-ranges": "bytes",
            "content-type": CONTENT_TYPES[name.extension],
            "last-modified": last_modified,
            "content-disposition": f'attachment; filename="a~{request.path.rpartition("/")[2]}"',
        }
        if part.status == 206:  # these two are of what is sent, not of the whole
            told = {name: text for name, text in told.items() if name not in OF_WHAT_IS_SENT}
        headers |= told
        if part.content_range is not None:
            headers["content-range"] = part.content_range
        if part.status == 416:
            error = s3_error(416, "InvalidRange", "The requested range is not satisfiable")
            return Reply.of(416, error.body, {**headers, "content-type": "application/xml"})
        reply = Reply(
            part.status, headers, file.read(part.start, part.stop), part.stop - part.start
        )
        return _bent(reply, fault, file, part.start, part.stop) if fault else reply

    def _instead(self, request: _Request, fault: Fault) -> Reply | None:
        """Make the answer that comes instead of the object, where the fault is one of those."""
        state = self._state
        match fault.kind:
            case "expired":
                return _refused(
                    signing.expired(store=state.options.store, now=state.now, dies_at=state.now - 1)
                )
            case "status":
                status = fault.integer("status")
                code = fault.text("code", _CODES.get(status, "SimulatedError"))
                signature = request.query.rpartition("=")[2]
                error = s3_error(status, code, fault.text("message"), SignatureProvided=signature)
                return _refused(error)
            case "late" if state.since_given(request.run_type, request.run_id) < (
                fault.number("seconds") or 0.0
            ):
                return _refused(_missing(request.path))
            case "redirect":
                return Reply.of(
                    fault.integer("status"), b"", {"location": self._new_place(request, fault)}
                )
            case "error-page":
                own_type, page = _PAGES[fault.text("form")]
                content_type = fault.text("content_type", own_type)
                status = fault.integer("status")
                return Reply.of(status, page.encode(), {"content-type": content_type})
            case "empty":
                extension = request.path.rpartition(".")[2]
                return Reply.of(200, b"", {"content-type": CONTENT_TYPES[extension]})
        return None

    def _new_place(self, request: _Request, fault: Fault) -> str:
        state, to = self._state, fault.text("to")
        if to == "loop":
            return f"{request.path}?{request.query}"
        if to == "portal":
            return f"{state.api_origin}{PORTAL}"
        if to in ("same", "other", "plain"):
            origin = {"other": state.api_origin, "plain": state.plain_origin}.get(to)
            return state.presigned(request.run_type, request.run_id, origin=origin, prefix=MOVED)
        return to


def _refused(refusal: Refusal) -> Reply:
    return Reply.of(refusal.status, refusal.body, {"content-type": "application/xml"})


def _missing(path: str) -> Refusal:
    return s3_error(404, "NoSuchKey", "The specified key does not exist.", Key=path)


async def _made(name: AudioName) -> AudioFile:
    if name.extension == "flac" and name.size >= _SLOW_TO_MAKE:
        return await asyncio.to_thread(audio_file, name)
    return audio_file(name)


def _bent(reply: Reply, fault: Fault, file: AudioFile, start: int, stop: int) -> Reply:
    """Return the object's reply with its headers or its bytes made wrong."""
    headers = dict(reply.headers)
    match fault.kind:
        case "wrong-content-range" if reply.status == 206:
            by = fault.integer("by")
            in_start, in_total = (by, 0) if fault.text("what") == "start" else (0, by)
            headers["content-range"] = (
                f"bytes {start + in_start}-{stop - 1 + in_start}/{file.size + in_start + in_total}"
            )
        case "wrong-magic":
            return replace(reply, body=_overwritten(reply.body, start, _NOT_AUDIO))
        case "digest" if fault.text("wrong") == "bytes":
            [byte] = b"".join(file.read(file.size // 2, file.size // 2 + 1))
            other = bytes([byte ^ 0xFF])
            return replace(reply, body=_overwritten(reply.body, start - file.size // 2, other))
        case "headers":
            wanted = fault.value("headers")
            for name, value in wanted.items() if isinstance(wanted, dict) else ():
                headers.pop(str(name).lower(), None)
                if value is not None:
                    headers[str(name).lower()] = str(value)
    return replace(reply, headers=headers)


def _overwritten(body: Iterable[bytes], position: int, other: bytes) -> Iterator[bytes]:
    """Yield the body, of which `position` is told from where others are to be, with these."""
    for part in body:
        before = part[: max(-position, 0)]
        covered = other[max(position, 0) : max(position + len(part), 0)]
        yield before + covered + part[len(before) + len(covered) :]
        position += len(part)
