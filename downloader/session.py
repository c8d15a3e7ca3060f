"""What the tasks of one running service share: the database, the claims held, the tally."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

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

_NEGLIGIBLE_OFFSET: Final = timedelta(seconds=5)
"""`Date` has whole seconds and travels: an offset below this is taken for none."""


_DATABASE: Final = Place(Kind.DATABASE, "")


class Mode(StrEnum):
    """How long a service runs."""

    ONCE = "once"  # everything due now, once
    DRAIN = "drain"  # until no run is unfinished
    FOREVER = "forever"


class Signal:
    """Something to wait for that happens again and again."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake whoever waits, and the next one who will."""
        self._event.set()

    async def wait(self, at_most_seconds: float) -> None:
        """Wait until set since the last wait, at most so long."""
        with anyio.move_on_after(at_most_seconds):
            await self._event.wait()
        if self._event.is_set():
            self._event = anyio.Event()


@dataclass(slots=True)
class Held:
    """A claim of this process: a run being polled, or (with a guard) transferred.

    Of a transfer: when it began (monotonic clock), how many bytes have arrived since, how many
    were there before, and how many the file has, once that is known.
    """

    key: RunKey
    lease: str
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
    turned_at: float = field(default_factory=time.monotonic)
    """When the workers last took a turn, or were seen to wait for what nobody here can help."""
    ahead: int = 0
    """How many transfers end before the next can be begun, about."""
    _waiting: int = 0
    _waiting_known_at: float = float("-inf")
    stopping: anyio.Event = field(default_factory=anyio.Event)
    ready: Signal = field(default_factory=Signal)  # a worker may find something
    room: Signal = field(default_factory=Signal)  # the poller may ask for more
    owed: Signal = field(default_factory=Signal)  # a hook may be due
    breakers: Breakers = field(init=False)
    key: Breaker = field(init=False)
    folder: Breaker = field(init=False)
    concurrency: AdaptiveConcurrency = field(init=False)
    _held: dict[tuple[RunKey, str], Held] = field(default_factory=dict)
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
        """Run a blocking call of the store in a thread, to its end.

        A database that another program keeps locked is waited for, again and again, while the
        service goes on: a transaction that did not come through has changed nothing. So is,
        by a daemon, one whose disk is full.
        """
        room, paused = self.breakers.at(_DATABASE), False
        while True:
            began_at = time.monotonic()
            try:
                found = await anyio.to_thread.run_sync(
                    partial(call, *args, **kwargs), limiter=self._threads
                )
            except BusyDatabaseError as error:
                if self.mode is Mode.ONCE or self.stopping.is_set():
                    raise
                _log.warning("database.busy", message=str(error))
                self.turned_at = time.monotonic()
            except FullDatabaseError as error:
                if self.mode is not Mode.FOREVER or self.stopping.is_set():
                    raise
                paused = True
                with anyio.move_on_after(room.failed("disk_full", str(error), began_at)):
                    await self.stopping.wait()
                self.turned_at = time.monotonic()
            else:
                if paused:
                    room.succeeded(began_at)
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
