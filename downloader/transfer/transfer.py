"""One transfer, whole: socket → hash → disk → verify → sync → publish.

The engine's threads have the first half, a pool's the second, and whatever else may wait for a
disk or the database. Nothing here decides: the rules judge, this carries out.
"""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from downloader.clock import utc_now
from downloader.errors import StoreError
from downloader.failpoints import At, reach
from downloader.rules import audio, codings, digests, resume
from downloader.rules.decisions import EXPIRED, NOT_YET_VALID, Problem, ProblemKind
from downloader.rules.expiry import says_expired, seconds_until_valid
from downloader.rules.states import is_run_type
from downloader.rules.steps import Published
from downloader.transfer.engine import TransferError
from downloader.transfer.guard import Interrupted
from downloader.transfer.part import NameTakenError
from downloader.transfer.pool import ThreadPool
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

_PUBLISHING_THREADS: Final = 4

SLOWEST_DISK: Final = 5_000_000
"""Bytes a second that a disk is given time for before a transfer that waits for it is taken to
hang, where a whole file is read or forced to it."""

RESUMABLE_BYTES: Final = 64 * 1024
"""From this size on it is worth a write to the database to be able to resume."""

PROGRESS_BYTES: Final = 16 * 1024
"""By so much a try has to lengthen the part to count as one that has brought something."""

NOTE_SECONDS: Final = 1.0
"""How long a transfer has to last, or be cut off, for that write: most end before. What a crash
takes is then no more than this."""

_EARLY_LOOK_BYTES: Final = 512

_PART_IS_OF_NO_USE: Final = (ProblemKind.WRONG_OBJECT, ProblemKind.HOPELESS)

_OF_THE_OBJECT: Final = frozenset(
    {
        *("not_audio", "truncated", "unverifiable_length"),
        *("encoded_content", "unexpected_partial", "bad_length"),
    }
)
"""What is found of an object, and will be again while it is the same. Not an error page: something
else may answer in the storage's place. Nor an empty file: its bytes may be on their way."""

_FREELY_UNPACKED_BYTES: Final = 64 * 1024 * 1024
_MAX_RATIO: Final = 200
"""What unpacks to more than the former, and to so many times its size, is no audio: silence aside,
sound does not get smaller than a tenth."""


class ObjectNote(Protocol):
    """Records which object a part belongs to; False where the lease was lost."""

    def __call__(self, journal: resume.Journal) -> bool:
        """Record it; raise StoreError where that cannot be done now."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be transferred, and who is told of it while it is.

    `journal` is of the part on the disk, `error_code` how the last try ended. `note_object` is
    told which object a new part is of, in the pool. In the engine's thread, which others wait for,
    `progress` is told how many bytes have arrived since it was last, and `expected` how many were
    there before and how many the whole file has (None: not known). A file of more than `max_bytes`
    is refused. Of a run that is `untried` no part is looked for.
    """

    key: RunKey
    url: str = field(repr=False)
    journal: resume.Journal
    note_object: ObjectNote
    progress: Callable[[int], None]
    max_bytes: int
    untried: bool = False
    expected: Callable[[int, int | None], None] | None = None
    error_code: str | None = None


@dataclass(slots=True)
class Delivered:
    """A published file; its part (a second name of it) goes when `done` is committed."""

    step: Published
    part: Part


class _StartOver(Exception):  # noqa: N818 - a turn taken, not an error
    """The part does not fit what the storage has: once more, from zero."""


def transfer(
    order: Order, output: Output, engine: Engine, guard: Guard, pool: ThreadPool | None = None
) -> Delivered:
    """Save one run's file under its final name; blocks until it is on the disk.

    Raises what `Transfer` ends with.
    """
    outcome: SimpleQueue[Delivered | BaseException] = SimpleQueue()
    with contextlib.ExitStack() as stack:
        if pool is None:
            pool = stack.enter_context(contextlib.closing(publishing_pool()))
        Transfer(order, output, engine, guard, pool=pool, ended=outcome.put).start()
        ended = outcome.get()
    if isinstance(ended, BaseException):
        raise ended
    return ended


def publishing_pool() -> ThreadPool:
    """Return a pool for the transfers of a process; a disk has no use for more threads."""
    return ThreadPool("publish", _PUBLISHING_THREADS)


class Transfer:
    """Saves one run's file under its final name; a `Fetch` itself.

    `ended` is called once, in whatever thread, with the file that is on the disk, or with

    - TransferError: there is no file; the problem says why and what it calls for.
    - Interrupted: `guard` said stop, or the lease was lost; what has arrived stays for a resume.
    - DiskError: the output folder cannot be written to, or there is no room.
    """

    def __init__(
        self,
        order: Order,
        output: Output,
        engine: Engine,
        guard: Guard,
        *,
        pool: ThreadPool,
        ended: Callable[[Delivered | BaseException], None],
    ) -> None:
        self.url = order.url
        self.guard = guard
        self._order = order
        self._output = output
        self._engine = engine
        self._steps = _Steps(pool, guard)
        self._ended = ended
        self._part: Part | None = None
        self._sink: _PartSink | None = None
        self._held = 0  # bytes that were there before
        self._before = 0  # bytes that were there before this request
        self._anew = False  # begun once more, from zero

    def start(self) -> None:
        """Begin; returns at once."""
        order = self._order
        if (
            order.untried
            and self._output.has_no_part(order.key)
            and is_run_type(order.key.run_type)
        ):
            self._engine.start(self)  # the part is made once there is a connection to be had
        else:
            self._steps.add(partial(self._step, self._open))

    def ask(self) -> Mapping[str, str]:
        """Return the headers to ask with for what is not there yet; see `Fetch`."""
        if self._sink is None:
            part = self._open_part()
            if part.linked:  # the folder is another than it was a moment ago
                raise _StartOver
            self._take(part)
        part, sink = self._opened()
        self._before = part.size
        return sink.ask()

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Judge the head of an answer; see `Fetch`."""
        self._opened()[1].begin(status, headers)

    def write(self, chunk: bytes) -> bool:
        """Put bytes into the part; see `Fetch`."""
        return self._opened()[1].write(chunk)

    def ended(self, error: BaseException | None) -> None:
        """Have the rest done by the pool; see `Fetch`."""
        self._steps.add(partial(self._step, partial(self._after_fetch, error)))

    def _opened(self) -> tuple[Part, _PartSink]:
        assert self._part is not None  # noqa: S101 - opened by `ask`, at the latest
        assert self._sink is not None  # noqa: S101 - with the part
        return self._part, self._sink

    def _open_part(self) -> Part:
        order = self._order
        self._part = self._output.open_part(
            order.key, order.journal.validator, order.journal.total_bytes, untried=order.untried
        )
        return self._part

    def _take(self, part: Part) -> None:
        self._held = part.size
        note = _Note(self._order, self._output, part, self._steps)
        self._sink = _PartSink(self._order, self._output, part, note)

    # ------------------------------------------------------------------ in the pool

    def _step(self, step: Callable[[], Delivered | None]) -> None:
        """Carry out a step, and end with what it returns or raises; None: there is more to do."""
        outcome: Delivered | BaseException
        try:
            delivered = self._kept(step)
            if delivered is None:
                return
            outcome = delivered
        except BaseException as error:  # noqa: BLE001 - handed to whom it matters
            outcome = error
        try:
            if self._part is not None:
                self._part.let_go()
        except OSError as error:
            outcome = error
        self._ended(outcome)

    def _kept(self, step: Callable[[], Delivered | None]) -> Delivered | None:
        """Carry out a step, and keep what can be gone on with where it raises."""
        part, sink = self._part, self._sink
        try:
            return step()
        except (Interrupted, DiskError):
            if sink is not None:
                sink.note.write(cut_off=True)
            raise
        except TransferError as error:
            if part is None or sink is None:
                raise
            problem = _keep_or_discard(error.problem, part, self._held, sink.note)
            raise TransferError(_again(problem, self._order, part, sink)) from None

    def _open(self) -> Delivered | None:
        """Take over what there is of the file, or begin a part; the engine goes on."""
        order = self._order
        if not is_run_type(order.key.run_type):  # only a row that somebody has edited has it
            raise TransferError(
                Problem(
                    ProblemKind.HOPELESS, "bad_run", "No folder can be named after its run type."
                )
            )
        self.guard.allow((order.journal.total_bytes or 0) / SLOWEST_DISK)
        return self._begin_with(self._open_part())

    def _begin_with(self, part: Part) -> Delivered | None:
        guard = self.guard
        if part.linked:
            guard.allow(part.size / SLOWEST_DISK)
            with disk_errors(self._output.folder):
                adopted = _adopt(part)
            if adopted is not None:
                return Delivered(adopted, part)
        self._take(part)
        self._engine.start(self)
        return None

    def _after_fetch(self, error: BaseException | None) -> Delivered | None:
        """Publish the file, or fetch what is missing of it.

        A storage may give less at a time than it is asked for: then in as many ranges as it takes.
        """
        if self._sink is not None and self._sink.note.failure is not None:
            error = self._sink.note.failure
        if isinstance(error, _StartOver):
            if self._part is not None and self._sink is None:
                return self._begin_with(self._part)
            self._start_over()
            return None
        if error is not None:
            raise error
        part, sink = self._opened()
        if sink.finish():
            step = _publish(self._order, self._output, part, sink, self.guard)
            reach(At.TRANSFER_DELIVERED)
            return Delivered(step, part)
        if part.size - self._before < PROGRESS_BYTES:
            raise TransferError(
                Problem(
                    ProblemKind.TRANSIENT,
                    "truncated",
                    f"The storage sends no more than {part.size - self._before} bytes at a time.",
                )
            )
        self._engine.start(self)
        return None

    def _start_over(self) -> None:
        """Fetch once more, from zero."""
        if self._anew:
            raise TransferError(
                Problem(
                    ProblemKind.WRONG_OBJECT,
                    "unusable_range",
                    "The storage's answers do not fit together, not even from the start of "
                    "the file.",
                )
            )
        self._anew = True
        with disk_errors(self._output.folder):
            self._opened()[0].restart()
        self._engine.start(self)


class _Steps:
    """Steps of one transfer that the pool carries out, one after another; they raise nothing."""

    def __init__(self, pool: ThreadPool, guard: Guard) -> None:
        self._pool = pool
        self.guard = guard
        self._lock = threading.Lock()
        self._left: deque[Callable[[], None]] = deque()
        self._running = False

    def add(self, step: Callable[[], None]) -> None:
        """Have a step carried out, after those before it."""
        with self._lock:
            self._left.append(step)
            if self._running:
                return
            self._running = True
        self._pool.submit(self._run, self.guard)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._left:
                    self._running = False
                    return
                step = self._left.popleft()
            step()


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


def _keep_or_discard(problem: Problem, part: Part, held: int, note: _Note) -> Problem:
    """Keep what can be gone on with, and say whether it is more than the `held` bytes before."""
    if problem.kind in _PART_IS_OF_NO_USE:
        part.discard()
        return problem
    note.write(cut_off=True)
    more = part.size - held >= PROGRESS_BYTES and note.is_kept
    return replace(problem, progressed=more and problem.kind is ProblemKind.TRANSIENT)


def _again(problem: Problem, order: Order, part: Part, sink: _PartSink) -> Problem:
    """Note what a problem is of, so that the same of the same object is final the next time."""
    if problem.error_code not in _OF_THE_OBJECT or sink.answered is None or part.is_kept:
        return problem
    if problem.error_code == "truncated" and not (
        problem.kind is ProblemKind.WRONG_OBJECT and sink.delimited
    ):
        return problem  # the line's fault, or maybe so
    if problem.error_code == order.error_code and sink.answered.is_same(order.journal):
        said = f"{problem.error_message} It is the same object as at the last try."
        return replace(problem, error_message=said, lasting=True)
    if sink.answered.validator is not None:
        try:
            held = order.note_object(sink.answered)
        except StoreError:  # it costs a try
            return problem
        if not held:
            raise Interrupted
    return problem


def _publish(order: Order, output: Output, part: Part, sink: _PartSink, guard: Guard) -> Published:
    """Verify the part, and give it its final name."""
    if audio.is_error_page(part.head):  # fetched no further
        page = audio.ContentProblem("error_page", audio.ERROR_PAGE)
        raise TransferError(_content_problem(page, None))
    agreed = _compare(part, sink.told, guard)
    packed = codings.packed_as(part.head, sink.content_encoding)
    if packed is not None:
        _unpack(order, output, part, packed, guard)
        sink.note.forget()
        if agreed is None:  # told of the file as it was before something packed it
            agreed = _compare(part, sink.told, guard)
    if agreed is None and sink.told:
        raise TransferError(
            Problem(
                ProblemKind.WRONG_OBJECT,
                "digest_mismatch",
                f"What came is not what the storage says that it has ({sink.told[0].name}).",
            )
        )
    found = audio.check(
        part.head,
        part.size,
        sink.content_type,
        urlsplit(order.url).path,
        delimited=sink.delimited or packed is not None,
    )
    if isinstance(found, audio.ContentProblem):
        raise TransferError(_content_problem(found, sink.content_encoding))
    final = output.final(order.key, found.value)
    hashed = part.hashed()
    try:
        with disk_errors(output.folder):
            reach(At.TRANSFER_WRITTEN)
            guard.allow(hashed.bytes / SLOWEST_DISK)
            part.sync()
            guard.check()  # the last moment at which a lost lease costs nothing
            reach(At.TRANSFER_SYNCED)
            part.publish(final)
    except NameTakenError as error:
        raise TransferError(
            Problem(
                ProblemKind.HOPELESS,
                "name_taken",
                f"{error} exists and is not this run's: move it away, then retry the run.",
            )
        ) from None
    return Published(
        str(final),
        hashed.bytes,
        hashed.sha256,
        found.value,
        sink.journal.etag,
        last_modified=sink.journal.last_modified,
        digest=agreed,
    )


def _compare(part: Part, told: tuple[digests.Digest, ...], guard: Guard) -> str | None:
    """Return the name of the digest that all bytes agree with; None if there is none, or not."""
    hashed = {digests.SHA_256: bytes.fromhex(part.hashed().sha256)}
    hashers = {
        algorithm: digests.hasher_of(algorithm)
        for algorithm in {one.algorithm for one in told} - hashed.keys()
    }
    if hashers:
        part.hash_also(list(hashers.values()), guard.check)
    hashed |= {algorithm: hasher.digest() for algorithm, hasher in hashers.items()}
    agree = all(hashed[one.algorithm] == one.value for one in told)
    return told[0].name if told and agree else None


def _unpack(order: Order, output: Output, part: Part, coding: str, guard: Guard) -> None:
    """Make of a part that is packed another, of what is in it."""
    packed_bytes, unpacker = part.size, codings.Unpacker(coding)
    try:
        with disk_errors(output.folder), part.replaced() as packed:
            for chunk in packed:
                guard.check()
                for piece in unpacker.feed(chunk):
                    size = part.size + len(piece)
                    if size > order.max_bytes:
                        raise _larger_than(order)
                    if size > max(_FREELY_UNPACKED_BYTES, packed_bytes * _MAX_RATIO):
                        said = f"The file unpacks to more than {_MAX_RATIO} times its size."
                        raise codings.UnpackError(said)  # noqa: TRY301 - leaves the part as it was
                    output.room.take(len(piece))
                    _write(part, piece)
            unpacker.finish()
    except codings.UnpackError as error:
        broken_off = isinstance(error, codings.BrokenOffError)
        code = "truncated" if broken_off else "encoded_content"
        raise TransferError(Problem(ProblemKind.WRONG_OBJECT, code, str(error))) from None


def _content_problem(found: audio.ContentProblem, content_encoding: str | None) -> Problem:
    """Return what a judgement of the bytes comes to: those of a packed file are no audio."""
    coding = codings.compression(content_encoding)
    if found.error_code == "not_audio" and coding is not None:
        said = f"The storage sent the file compressed ({coding}), and it cannot be unpacked."
        return Problem(ProblemKind.WRONG_OBJECT, "encoded_content", said)
    return Problem(ProblemKind.WRONG_OBJECT, found.error_code, found.message)


def _write(part: Part, chunk: bytes) -> None:
    try:
        reach(At.TRANSFER_WRITING)
        part.write(chunk)
    except OSError as error:
        if error.errno == errno.EFBIG:  # this file's trouble, not the folder's
            raise _too_large("the file system, or a limit of this process,") from error
        raise


class _Note:
    """What makes a part resumable: its name and the database say which object it is of.

    That is worth it only for a transfer that lasts, or is cut off. While bytes come the pool writes
    it; no other request is begun before that is done. So `Part.write` and `Part.belongs_to` may
    meet, which have nothing in common. `failure` is what came of it, where that ends the transfer.
    """

    def __init__(self, order: Order, output: Output, part: Part, steps: _Steps) -> None:
        self._order = order
        self._output = output
        self._part = part
        self._steps = steps
        self._object: resume.Journal | None = None  # what is yet to be noted
        self._due = math.inf  # monotonic clock
        self._writing = False
        self.failure: BaseException | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the next try can go on with the part."""
        return self._object is None and self._part.is_kept

    def is_of(self, journal: resume.Journal) -> None:
        """Take which object the bytes are of from here on."""
        total = journal.total_bytes
        large = total is None or total >= RESUMABLE_BYTES
        self._object = journal if journal.validator is not None and large else None
        self._due = time.monotonic() + NOTE_SECONDS

    def forget(self) -> None:
        """Note nothing more: the part does not hold what the storage sends."""
        self._object = None

    def write_if_due(self) -> None:
        """Have the pool write it, once it is worth it; what may not come need not be resumed."""
        if self._object is None or self._writing or time.monotonic() < self._due:
            return
        self._writing = True
        self._steps.add(self._write_meanwhile)

    def _write_meanwhile(self) -> None:
        try:
            self.write()
        except BaseException as error:  # noqa: BLE001 - raised by the next step
            self.failure = error
            self._steps.guard.cancel()  # the engine hears it
        self._writing = False

    def write(self, *, cut_off: bool = False) -> None:
        """Write it, where there is something to be gone on with.

        Raises:
            Interrupted: the lease is lost.
            DiskError: the part cannot be given its name.

        """
        journal = self._object
        if journal is None or (cut_off and not self._part.size):
            return
        if journal.validator is not None:
            with disk_errors(self._output.folder):
                self._part.belongs_to(journal.validator, journal.total_bytes)
        try:
            held = self._order.note_object(journal)
        except StoreError:  # locked by another program, say: the bytes come all the same
            self._due = time.monotonic() + NOTE_SECONDS
            return
        if not held:
            raise Interrupted
        self._object = None
        reach(At.TRANSFER_NOTED)


class _PartSink:
    """Judges the storage's answers, one after another, and puts the bytes into the part.

    `journal` is what is known of the object, `told` the digests of it, `answered` what the last
    answer that had bytes was of.
    """

    def __init__(self, order: Order, output: Output, part: Part, note: _Note) -> None:
        self._order = order
        self._output = output
        self._part = part
        self.note = note
        self._asked_range = False
        self._expected: int | None = None
        self._until: int | None = None
        self._refusal: _Refusal | None = None
        self._complete = False
        self._judged = False
        self.journal = order.journal
        self.told = digests.from_text(order.journal.digests)
        self.answered: resume.Journal | None = None
        self.delimited = True
        self.content_type: str | None = None
        self.content_encoding: str | None = None

    def ask(self) -> dict[str, str]:
        """Return the headers to ask with for what is not there yet."""
        headers = resume.request_headers(self._part.size, self.journal)
        self._asked_range = "range" in headers
        self._refusal, self._complete = None, False
        return headers

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        if status in {200, 206}:
            self.answered = resume.journal_of(headers)
        outcome = resume.judge_response(
            status,
            headers,
            self._part.size,
            self.journal,
            asked_range=self._asked_range,
            now=utc_now(),
            compressed=codings.packed_as(self._part.head, headers.get("content-encoding"))
            is not None,
        )
        self.content_type = headers.get("content-type")
        self.content_encoding = headers.get("content-encoding")
        match outcome:
            case resume.Append():
                self._expected, self._until = outcome.total_bytes, outcome.until
                self.told = _all_of(self.told, digests.told(headers, partial=True))
                self.journal = replace(self.journal, total_bytes=outcome.total_bytes)
            case resume.Restart():
                self._restart(outcome, headers)
            case resume.AlreadyComplete():
                self._complete = True
            case resume.StartOver():
                raise _StartOver
            case resume.Refused():
                self._refusal = _Refusal(outcome.status, headers.get("date"))
            case resume.Rejected():
                kind = ProblemKind.WRONG_OBJECT if outcome.wants_new_url else ProblemKind.TRANSIENT
                raise TransferError(
                    Problem(kind, outcome.error_code, outcome.message, outcome.retry_after_seconds)
                )
        if self._order.expected is not None and self._refusal is None:
            self._order.expected(self._part.size, self._expected)

    def _restart(self, outcome: resume.Restart, headers: Mapping[str, str]) -> None:
        """Take what comes for the object from its first byte on."""
        self._refuse_if_larger(outcome.total_bytes or 0)
        with disk_errors(self._output.folder):
            self._part.restart()
        self._expected, self._until = outcome.total_bytes, outcome.until
        self.delimited = outcome.delimited
        self._judged = False
        self.told = digests.told(headers, partial=outcome.until is not None)
        self.journal = resume.Journal(
            outcome.etag, outcome.total_bytes, outcome.last_modified, digests.to_text(self.told)
        )
        self.note.is_of(self.journal)

    def write(self, chunk: bytes) -> bool:
        if self._complete:
            return False
        if self._refusal is not None:
            return self._refusal.take(chunk)
        self.note.write_if_due()
        looked = self._part.size >= _EARLY_LOOK_BYTES
        self._refuse_if_larger(self._part.size + len(chunk))
        with disk_errors(self._output.folder):
            self._output.room.take(len(chunk))
            _write(self._part, chunk)
        self._order.progress(len(chunk))
        if not looked and audio.is_error_page(self._part.head):
            return False  # the check at the end says the same, without fetching the rest
        if not self._judged and len(self._part.head) >= audio.HEAD_BYTES:
            self._judge_start()
        end = self._end
        return end is None or self._part.size <= end

    @property
    def _end(self) -> int | None:
        """Where the answer ends that is being read."""
        return self._expected if self._until is None else self._until

    def _judge_start(self) -> None:
        """See whether it is worth fetching the rest.

        Raises:
            TransferError: it is not: no more bytes will make it the file.

        """
        self._judged = True
        head, total, delimited = self._part.head, self._expected, self.delimited
        coding = codings.packed_as(head, self.content_encoding)
        try:
            if coding is not None:
                head, total, delimited = codings.unpacked_head(head, coding), None, True
        except codings.UnpackError as error:
            problem = Problem(ProblemKind.WRONG_OBJECT, "encoded_content", str(error))
            raise TransferError(problem) from None
        path = urlsplit(self._order.url).path
        found = audio.check_start(head, total, self.content_type, path, delimited=delimited)
        if found is not None:
            raise TransferError(_content_problem(found, self.content_encoding))

    def _refuse_if_larger(self, size: int) -> None:
        """Refuse a file that nobody has asked for; a body without a length may have no end."""
        if size > self._order.max_bytes:
            raise _larger_than(self._order)

    def finish(self) -> bool:
        """Return whether what has arrived is all; False where the rest is to be asked for.

        Raises:
            TransferError: it was a refusal, or not all has come, or more than all.

        """
        if self._refusal is not None:
            raise TransferError(self._refusal.problem(self._order.url))
        if self._complete or audio.is_error_page(self._part.head):
            return True
        end = self._end
        if end is not None and self._part.size < end:
            raise TransferError(
                Problem(
                    ProblemKind.TRANSIENT,
                    "truncated",
                    f"The transfer ended after {self._part.size} of {self._expected} bytes.",
                )
            )
        if end is not None and self._part.size > end:
            raise TransferError(
                Problem(
                    ProblemKind.WRONG_OBJECT,
                    "too_long",
                    f"The storage sent more than the {end} bytes it had announced.",
                )
            )
        return self._until is None


@dataclass(slots=True)
class _Refusal:
    """A refusal; its body names the signature, so it is not quoted."""

    status: int
    date: str | None
    body: bytearray = field(default_factory=bytearray)

    def take(self, chunk: bytes) -> bool:
        """Take bytes of its body; False where no more are wanted."""
        self.body.extend(chunk[: REFUSAL_BYTES - len(self.body)])
        return len(self.body) < REFUSAL_BYTES

    def problem(self, url: str) -> Problem:
        """Return what it means."""
        status, body = self.status, bytes(self.body)
        seconds = seconds_until_valid(url, status, self.date, body, utc_now())
        if seconds is not None:
            said = "The URL is not valid yet, by the storage's clock."
            return Problem(ProblemKind.NOT_YET, NOT_YET_VALID, said, seconds or None)
        if says_expired(status, body):
            return Problem(ProblemKind.EXPIRED, EXPIRED, "The URL expired before it was used.")
        return Problem(
            ProblemKind.REFUSED,
            "url_refused",
            f"The storage refused the URL (HTTP {status}), and not because it had expired.",
        )


def _all_of(
    some: tuple[digests.Digest, ...], others: tuple[digests.Digest, ...]
) -> tuple[digests.Digest, ...]:
    return (*some, *(one for one in others if one not in some))


def _larger_than(order: Order) -> TransferError:
    return _too_large(f"--max-file-size ({order.max_bytes} bytes)")


def _too_large(who: str) -> TransferError:
    return TransferError(
        Problem(ProblemKind.HOPELESS, "too_large", f"The file is larger than {who} allows.")
    )
