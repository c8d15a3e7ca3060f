"""What the tasks of one running service share: the database, the claims held, the tally."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from downloader.bell import Bell
from downloader.breakers import Breakers, Kind, Place, folder_place, key_place
from downloader.clock import ClockWatch, utc_now
from downloader.concurrency import AdaptiveConcurrency
from downloader.errors import BusyDatabaseError, FullDatabaseError
from downloader.logger import get_logger
from downloader.observe.tally import Tally
from downloader.store.leases import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from downloader.breakers import Breaker, Trouble
    from downloader.rules.states import RunKey
    from downloader.settings import Settings
    from downloader.store.database import Database
    from downloader.transfer.guard import Guard

_log = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_STORE_THREADS: Final = 4
_WAITING_KNOWN_SECONDS: Final = 0.5
"""How long it is good to know how many runs wait: other processes take from them too."""

MOST_AHEAD: Final = 64
"""So many transfers at most are claimed and wait here: they could be another process's."""

_NEGLIGIBLE_OFFSET: Final = timedelta(seconds=5)
"""`Date` has whole seconds and travels: an offset below this is taken for none."""


_DATABASE: Final = Place(Kind.DATABASE, "")


class Mode(StrEnum):
    """How long a service runs."""

    ONCE = "once"  # everything due now, once
    DRAIN = "drain"  # until no run is unfinished
    FOREVER = "forever"


class Signal:
    """Something that happens again and again, in any thread; a thread waits for it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Wake the thread that waits, or the next one that will."""
        self._event.set()

    def wait(self, at_most_seconds: float) -> None:
        """Wait until set since the last wait, at most so long."""
        self._event.wait(at_most_seconds)
        self._event.clear()


class LoopSignal:
    """The same, waited for by a task of the event loop."""

    def __init__(self) -> None:
        self._is_set = self._waited_for = False
        self._bell: Bell | None = None

    def set(self) -> None:
        """Wake the task that waits, or the next one that will."""
        self._is_set = True
        if self._waited_for and self._bell is not None:
            self._bell.ring()

    async def wait(self, at_most_seconds: float) -> None:
        """Wait until set since the last wait, at most so long."""
        if self._bell is None:
            self._bell = Bell()
        self._waited_for = True  # before the look: what is set behind it rings
        try:
            if not self._is_set:
                with anyio.move_on_after(at_most_seconds):
                    await anyio.wait_readable(self._bell.descriptor)
        finally:
            self._waited_for = False
        self._is_set = False
        self._bell.hush()

    def close(self) -> None:
        """Free what waiting takes; nobody may wait any more."""
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()


class SignOfLife:
    """When a thread that asks for runs was last seen to go on; by the monotonic clock.

    Until it begins it may take its time.
    """

    def __init__(self) -> None:
        self._at = math.inf

    def give(self) -> None:
        """Note that it goes on."""
        self._at = time.monotonic()

    def is_alive(self, since: float) -> bool:
        """Return whether it has done anything since then."""
        return self._at >= since


@dataclass(slots=True)
class Held:
    """A claim of this process: a run being polled, or (with a guard) transferred.

    `life` says whether the thread that has it goes on: where one hangs its leases run out.

    Of a transfer: when it began (monotonic clock), how many bytes have arrived since, how many
    were there before, and how many the file has, once that is known.
    """

    key: RunKey
    lease: str
    life: Guard | SignOfLife
    guard: Guard | None = None
    began_at: float = 0.0
    received_bytes: int = 0
    resumed_bytes: int = 0
    total_bytes: int | None = None


@dataclass(slots=True)
class Session:
    """One service on one database."""

    settings: Settings
    database: Database
    mode: Mode
    started_at: datetime = field(default_factory=utc_now)
    owner: Owner = field(default_factory=Owner)
    tally: Tally = field(default_factory=Tally)
    clock: ClockWatch = field(default_factory=ClockWatch)
    clock_offset: timedelta = timedelta()
    polling_over: bool = False
    queued: int = 0
    """How many transfers are claimed and not begun."""
    ahead: int = 0
    """How many transfers end before the next can be begun, about."""
    _waiting: int = 0
    _waiting_known_at: float = float("-inf")
    stopping: threading.Event = field(default_factory=threading.Event)
    ready: Signal = field(default_factory=Signal)  # a worker may find something
    room: Signal = field(default_factory=Signal)  # the poller may ask for more
    owed: LoopSignal = field(default_factory=LoopSignal)  # a hook may be due
    breakers: Breakers = field(init=False)
    key: Breaker = field(init=False)
    folder: Breaker = field(init=False)
    concurrency: AdaptiveConcurrency = field(init=False)
    _held: dict[tuple[RunKey, str], Held] = field(default_factory=dict)
    _rounds: dict[str, float] = field(default_factory=dict)  # of each thread, when
    _rounds_lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: anyio.CapacityLimiter = field(
        default_factory=lambda: anyio.CapacityLimiter(_STORE_THREADS)
    )

    def __post_init__(self) -> None:
        """Make what watches over the places that the service goes to, and how many at a time."""
        self.breakers = Breakers(
            self.database,
            ends_call=self.mode is not Mode.FOREVER,
            once=self.mode is Mode.ONCE,
        )
        self.key = self.breakers.at(key_place(self.settings.api_key))
        self.folder = self.breakers.at(folder_place(self.settings.output))
        self.concurrency = AdaptiveConcurrency(self.settings)

    def adopt(self, settings: Settings) -> None:
        """Go by other settings from now on, and try at once what is blocked."""
        self.settings = settings
        self.concurrency.adopt(settings)
        self.key = self.breakers.at(key_place(settings.api_key))
        self.breakers.try_at_once()
        self.ready.set()
        self.room.set()

    @property
    def trouble(self) -> Trouble | None:
        """Why the service cannot go on, None where it can."""
        return self.folder.trouble or self.key.trouble

    def troubles(self, kind: Kind) -> list[Trouble]:
        """Return what ails the places of a kind, the longest first."""
        return [one.trouble for one in self.breakers.in_trouble(kind) if one.trouble is not None]

    def goes_round(self, thread: str) -> None:
        """Note that a thread that is to go round does so."""
        with self._rounds_lock:
            self._rounds[thread] = time.monotonic()

    def goes_round_no_more(self, thread: str) -> None:
        """Note that it has ended."""
        with self._rounds_lock:
            self._rounds.pop(thread, None)

    @property
    def went_round_at(self) -> float:
        """When the thread that has not gone round the longest last did so; monotonic clock.

        Or when it was seen to wait for what nobody here can help.
        """
        with self._rounds_lock:
            return min(self._rounds.values(), default=time.monotonic())

    def waits_for_others(self) -> None:
        """Note that whoever does not go round waits for another program."""
        with self._rounds_lock:
            self._rounds = dict.fromkeys(self._rounds, time.monotonic())

    @property
    def received_bytes(self) -> int:
        """How many bytes of files have arrived in this call."""
        # The tally first, and a copy: this may be asked in any thread, as transfers end.
        ended = self.tally.received_bytes
        return ended + sum(one.received_bytes for one in list(self._held.values()))

    @property
    def cutoff(self) -> datetime | None:
        """Until when runs must be due to be taken up; None: until now, whenever that is."""
        return self.started_at if self.mode is Mode.ONCE else None

    def lease_until(self, now: datetime) -> datetime:
        """Return when a claim made or extended now ends."""
        return now + timedelta(seconds=self.settings.lease_seconds)

    async def in_thread(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call of the store in a thread, to its end, as `call` does."""
        patience = _Patience(self)
        while True:
            began_at = time.monotonic()
            try:
                found = await anyio.to_thread.run_sync(
                    partial(call, *args, **kwargs), limiter=self._threads
                )
            except (BusyDatabaseError, FullDatabaseError) as error:
                await anyio.sleep(patience.seconds(error, began_at))
            else:
                patience.over(began_at)
                return found

    def call(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of the store, to its end.

        A database that another program keeps locked is waited for, again and again, while the
        service goes on: a transaction that did not come through has changed nothing. So is,
        by a daemon, one whose disk is full.
        """
        patience = _Patience(self)
        while True:
            began_at = time.monotonic()
            try:
                found = call(*args, **kwargs)
            except (BusyDatabaseError, FullDatabaseError) as error:
                self.stopping.wait(patience.seconds(error, began_at))
            else:
                patience.over(began_at)
                return found

    def waiting(self) -> int | None:
        """Return how many runs wait with a URL for a worker, where that was seen just now."""
        fresh = time.monotonic() - self._waiting_known_at < _WAITING_KNOWN_SECONDS
        return self._waiting if fresh else None

    def note_waiting(self, number: int) -> None:
        """Take from a look how many runs wait with a URL for a worker."""
        self._waiting, self._waiting_known_at = number, time.monotonic()

    def note_urls(self, number: int) -> None:
        """Note that so many more runs have got a URL."""
        self._waiting += number

    def hold(self, claim: Held) -> None:
        """Have the heartbeat look after a claim."""
        self._held[claim.key, claim.lease] = claim

    def release(self, key: RunKey, lease: str) -> None:
        """Leave a claim to itself: it is recorded, or lost."""
        claim = self._held.pop((key, lease), None)
        if claim is not None:
            self.tally.received_bytes += claim.received_bytes

    def held(self) -> Iterator[Held]:
        """Yield the claims of this process."""
        yield from list(self._held.values())

    def watch_clock(self) -> None:
        """Notice that the clock was set, or the machine suspended."""
        step = self.clock.look()
        if step:
            _log.warning("clock.set", seconds=round(step, 1))
            self.clock_offset -= timedelta(seconds=step)  # the server's has not been set

    def note_clock_offset(self, offset: timedelta | None) -> None:
        """Take the server's clock, less ours, from an answer."""
        if offset is not None:
            self.clock_offset = offset if abs(offset) > _NEGLIGIBLE_OFFSET else timedelta()

    def stop(self) -> None:
        """Take up nothing new."""
        self.stopping.set()
        self.ready.set()
        self.room.set()

    def close(self) -> None:
        """Free what waiting takes, once every task has ended."""
        self.owed.close()


class _Patience:
    """How a call of the store that cannot be carried out just now is waited for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._room: Breaker | None = None

    def seconds(self, error: BusyDatabaseError | FullDatabaseError, began_at: float) -> float:
        """Return for how long to wait before it is called again; raise where it is not to be."""
        session = self._session
        full = isinstance(error, FullDatabaseError)
        for_ever = session.mode is Mode.FOREVER if full else session.mode is not Mode.ONCE
        if not for_ever or session.stopping.is_set():
            raise error
        session.waits_for_others()
        if not full:
            _log.warning("database.busy", message=str(error))
            return 0.0
        self._room = session.breakers.at(_DATABASE)
        return self._room.failed("disk_full", str(error), began_at)

    def over(self, began_at: float) -> None:
        """Note that it could be carried out."""
        if self._room is not None:
            self._room.succeeded(began_at)


async def run_in_thread(work: Callable[[], None], cut_off: Callable[[], None]) -> None:
    """Run blocking work in a thread of its own; where this is cancelled it is cut off, and ends."""

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if not over:
                cut_off()

    over = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
        over = True
        tasks.cancel_scope.cancel()
