"""One transfer, whole, in one thread: socket → hash → disk → verify → sync → publish.

Everything here blocks; nothing here decides: the rules judge, this carries out.
"""

from __future__ import annotations

import errno
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from downloader.clock import utc_now
from downloader.errors import StoreError
from downloader.failpoints import At, reach
from downloader.rules import audio, resume
from downloader.rules.decisions import EXPIRED, Problem, ProblemKind
from downloader.rules.expiry import says_expired
from downloader.rules.states import is_run_type
from downloader.rules.steps import Published
from downloader.transfer.engine import TransferError
from downloader.transfer.guard import Interrupted
from downloader.transfer.part import NameTakenError
from downloader.transfer.unusable import DiskError, disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from downloader.rules.states import RunKey
    from downloader.transfer.engine import Engine
    from downloader.transfer.guard import Guard
    from downloader.transfer.output import Output
    from downloader.transfer.part import Part

REFUSAL_BYTES: Final = 16 * 1024
"""How much of a refusal is read to tell whether the URL has expired."""

RESUMABLE_BYTES: Final = 1024 * 1024
"""From this size on it is worth a write to the database to be able to resume."""

NOTE_SECONDS: Final = 1.0
"""How long a transfer has to last, or be cut off, for that write: most end before. What a crash
takes is then no more than this."""

_EARLY_LOOK_BYTES: Final = 512

_PART_IS_OF_NO_USE: Final = (ProblemKind.WRONG_OBJECT, ProblemKind.HOPELESS)


class ObjectNote(Protocol):
    """Records which object a part belongs to; False where the lease was lost."""

    def __call__(self, *, etag: str | None, total_bytes: int | None) -> bool:
        """Record it; raise StoreError where that cannot be done now."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be transferred, and who is told of it while it is.

    `etag` and `total_bytes` are of the part on the disk. `note_object` is told which object a
    new part is of, `progress` how many bytes have arrived since it was told last, `expected` how
    many were there before and how many the whole file has (None: not known); all are called in
    the transfer's thread. A file of more than `max_bytes` is refused. Of a run that is `untried`
    no part is looked for.
    """

    key: RunKey
    url: str = field(repr=False)
    etag: str | None
    total_bytes: int | None
    note_object: ObjectNote
    progress: Callable[[int], None]
    max_bytes: int
    untried: bool = False
    expected: Callable[[int, int | None], None] | None = None


@dataclass(slots=True)
class Delivered:
    """A published file; its part (a second name of it) goes when `done` is committed."""

    step: Published
    part: Part


class _StartOver(Exception):  # noqa: N818 - a turn taken, not an error
    """The part does not fit what the storage has: once more, from zero."""


def transfer(order: Order, output: Output, engine: Engine, guard: Guard) -> Delivered:
    """Save one run's file under its final name; blocks until it is on the disk.

    Raises:
        TransferError: there is no file; the problem says why and what it calls for.
        Interrupted: `guard` said stop, or the lease was lost; what has arrived stays for a resume.
        DiskError: the output folder cannot be written to, or there is no room.

    """
    if not is_run_type(order.key.run_type):  # only a row that somebody has edited has it
        raise TransferError(
            Problem(ProblemKind.HOPELESS, "bad_run", "No folder can be named after its run type.")
        )
    if order.untried:
        part = output.open_part(order.key, order.etag, order.total_bytes, untried=True)
    else:
        with guard.away:  # what there is of it is read
            part = output.open_part(order.key, order.etag, order.total_bytes)
    try:
        if part.linked:
            with guard.away, disk_errors(output.folder):
                adopted = _adopt(part)
            if adopted is not None:
                return Delivered(adopted, part)
        note = _Note(order, output, part, guard)
        try:
            sink = _receive(order, output, part, note=note, engine=engine, guard=guard)
            step = _publish(order, output, part, sink, guard)
        except (Interrupted, DiskError):
            note.write_if_due(cut_off=True)
            raise
        except TransferError as error:
            if error.problem.kind in _PART_IS_OF_NO_USE:
                part.discard()
            else:
                note.write_if_due(cut_off=True)
            raise
        reach(At.TRANSFER_DELIVERED)
        return Delivered(step, part)
    finally:
        if part.linked:
            part.let_go()
        else:
            with guard.away:  # what has come is forced to the disk
                part.let_go()


def _adopt(part: Part) -> Published | None:
    """Return the file that an earlier process published without its commit, if it is there."""
    found = part.published()
    if found is None:
        part.abandon()
        return None
    final, audio_format, hashed = found
    return Published(
        str(final), hashed.bytes, hashed.sha256, audio_format.value, None, adopted=True
    )


def _receive(
    order: Order, output: Output, part: Part, *, note: _Note, engine: Engine, guard: Guard
) -> _PartSink:
    """Fetch into the part, once more from zero where it did not fit."""
    journal = resume.Journal(order.etag, order.total_bytes)
    for _ in range(2):
        headers = resume.request_headers(part.size, journal)
        sink = _PartSink(order, output, part, note, asked_range="range" in headers)
        try:
            engine.fetch(order.url, headers, sink, guard)
        except _StartOver:
            with disk_errors(output.folder):
                part.restart()
            continue
        sink.finish()
        return sink
    raise TransferError(
        Problem(
            ProblemKind.WRONG_OBJECT,
            "unusable_range",
            "The storage's answers do not fit together, not even from the start of the file.",
        )
    )


def _publish(order: Order, output: Output, part: Part, sink: _PartSink, guard: Guard) -> Published:
    """Verify the part, and give it its final name."""
    found = audio.check(
        part.head,
        part.size,
        sink.content_type,
        urlsplit(order.url).path,
        delimited=sink.delimited,
    )
    if isinstance(found, audio.ContentProblem):
        raise TransferError(Problem(ProblemKind.WRONG_OBJECT, found.error_code, found.message))
    final = output.final(order.key, found.value)
    hashed = part.hashed()
    try:
        with disk_errors(output.folder):
            reach(At.TRANSFER_WRITTEN)
            with guard.away:
                part.sync()
            guard.check()  # the last moment at which a lost lease costs nothing
            reach(At.TRANSFER_SYNCED)
            with guard.away:
                part.publish(final)
    except NameTakenError as error:
        raise TransferError(
            Problem(
                ProblemKind.HOPELESS,
                "name_taken",
                f"{error} exists and is not this run's: move it away, then retry the run.",
            )
        ) from None
    return Published(str(final), hashed.bytes, hashed.sha256, found.value, sink.etag)


class _Note:
    """What makes a part resumable: its name and the database say which object it is of.

    That is worth it only for a transfer that lasts, or is cut off.
    """

    def __init__(self, order: Order, output: Output, part: Part, guard: Guard) -> None:
        self._order = order
        self._output = output
        self._part = part
        self._guard = guard
        self._object: tuple[str, int | None] | None = None  # what is yet to be noted
        self._due = math.inf  # monotonic clock

    def is_of(self, etag: str | None, total_bytes: int | None) -> None:
        """Take which object the bytes are of from here on."""
        large = total_bytes is None or total_bytes >= RESUMABLE_BYTES
        self._object = (etag, total_bytes) if etag is not None and large else None
        self._due = time.monotonic() + NOTE_SECONDS

    def write_if_due(self, *, cut_off: bool = False) -> None:
        """Write it, once it is worth it; what has not come yet need not be gone on with.

        Raises:
            Interrupted: the lease is lost.

        """
        if self._object is None or (not cut_off and time.monotonic() < self._due):
            return
        if cut_off and not self._part.size:
            return
        etag, total_bytes = self._object
        with disk_errors(self._output.folder):
            self._part.belongs_to(etag, total_bytes)
        try:
            with self._guard.away:
                held = self._order.note_object(etag=etag, total_bytes=total_bytes)
        except StoreError:  # locked by another program, say: the bytes come all the same
            self._due = time.monotonic() + NOTE_SECONDS
            return
        if not held:
            raise Interrupted
        self._object = None
        reach(At.TRANSFER_NOTED)


class _PartSink:
    """Judges the storage's answer and puts the bytes into the part."""

    def __init__(
        self, order: Order, output: Output, part: Part, note: _Note, *, asked_range: bool
    ) -> None:
        self._order = order
        self._output = output
        self._part = part
        self._asked_range = asked_range
        self._journal = resume.Journal(order.etag, order.total_bytes)
        self._expected: int | None = None
        self._refusal: tuple[int, bytearray] | None = None
        self._complete = False
        self._note = note
        self.delimited = True
        self.etag = order.etag
        self.content_type: str | None = None

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        outcome = resume.judge_response(
            status,
            headers,
            self._part.size,
            self._journal,
            asked_range=self._asked_range,
            now=utc_now(),
        )
        self.content_type = headers.get("content-type")
        match outcome:
            case resume.Append():
                self._expected = outcome.total_bytes
            case resume.Restart():
                self._refuse_if_larger(outcome.total_bytes or 0)
                with disk_errors(self._output.folder):
                    self._part.restart()
                self._expected, self.etag = outcome.total_bytes, outcome.etag
                self.delimited = outcome.delimited
                self._note.is_of(outcome.etag, outcome.total_bytes)
            case resume.AlreadyComplete():
                self._complete = True
            case resume.StartOver():
                raise _StartOver
            case resume.Refused():
                self._refusal = (outcome.status, bytearray())
            case resume.Rejected():
                kind = ProblemKind.WRONG_OBJECT if outcome.wants_new_url else ProblemKind.TRANSIENT
                raise TransferError(
                    Problem(kind, outcome.error_code, outcome.message, outcome.retry_after_seconds)
                )
        if self._order.expected is not None and self._refusal is None:
            self._order.expected(self._part.size, self._expected)

    def write(self, chunk: bytes) -> bool:
        if self._complete:
            return False
        if self._refusal is not None:
            self._refusal[1].extend(chunk[: REFUSAL_BYTES - len(self._refusal[1])])
            return len(self._refusal[1]) < REFUSAL_BYTES
        self._note.write_if_due()
        looked = self._part.size >= _EARLY_LOOK_BYTES
        self._refuse_if_larger(self._part.size + len(chunk))
        with disk_errors(self._output.folder):
            self._output.room.take(len(chunk))
            try:
                reach(At.TRANSFER_WRITING)
                self._part.write(chunk)
            except OSError as error:
                if error.errno == errno.EFBIG:  # this file's trouble, not the folder's
                    raise _too_large("the file system, or a limit of this process,") from error
                raise
        self._order.progress(len(chunk))
        if not looked and audio.is_error_page(self._part.head):
            return False  # the check at the end says the same, without fetching the rest
        return self._expected is None or self._part.size <= self._expected

    def _refuse_if_larger(self, size: int) -> None:
        """Refuse a file that nobody has asked for; a body without a length may have no end."""
        if size > self._order.max_bytes:
            raise _too_large(f"--max-file-size ({self._order.max_bytes} bytes)")

    def finish(self) -> None:
        """Say whether what has arrived is all.

        Raises:
            TransferError: it was a refusal, or not all has come, or more than all.

        """
        if self._refusal is not None:
            raise TransferError(_refused(*self._refusal))
        if audio.is_error_page(self._part.head):
            return
        if self._expected is not None and self._part.size < self._expected:
            raise TransferError(
                Problem(
                    ProblemKind.TRANSIENT,
                    "truncated",
                    f"The transfer ended after {self._part.size} of {self._expected} bytes.",
                )
            )
        if self._expected is not None and self._part.size > self._expected:
            raise TransferError(
                Problem(
                    ProblemKind.WRONG_OBJECT,
                    "too_long",
                    f"The storage sent more than the {self._expected} bytes it had announced.",
                )
            )


def _too_large(who: str) -> TransferError:
    return TransferError(
        Problem(ProblemKind.HOPELESS, "too_large", f"The file is larger than {who} allows.")
    )


def _refused(status: int, body: bytearray) -> Problem:
    """Return the problem of a refusal; its body names the signature, so it is not quoted."""
    if says_expired(status, bytes(body)):
        return Problem(ProblemKind.EXPIRED, EXPIRED, "The URL expired before it was used.")
    return Problem(
        ProblemKind.REFUSED,
        "url_refused",
        f"The storage refused the URL (HTTP {status}), and not because it had expired.",
    )
