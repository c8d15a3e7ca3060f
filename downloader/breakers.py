"""What is in trouble as a whole is paused as a whole: one breaker for each place.

A place is a key, an endpoint of the API, a host of the storage, an output folder, or the database.
While its breaker is open nothing goes there but one try at a time, each after a longer pause, and
the first that succeeds closes it. What other processes must know of (the key, the folder) is in the
table `blocks`; of the rest each process finds out for itself.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from downloader.clock import utc_now
from downloader.jitter import jitter
from downloader.logger import get_logger
from downloader.rules.backoff import (
    MAX_PROBE_DELAY_SECONDS,
    disk_probe_delay_seconds,
    host_delay_seconds,
    probe_delay_seconds,
)
from downloader.rules.blame import Blame, Evidence
from downloader.store import blocks
from downloader.transfer.addresses import address_of
from downloader.transfer.engine import TransferError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from downloader.rules.states import RunKey
    from downloader.store.blocks import Scope
    from downloader.store.database import Database

_log = get_logger(__name__)

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How soon a process sees what another has opened or closed."""

_PROBE_SECONDS: Final = 60.0
"""How long the process that tries has to tell how it went, before another may."""

_WAIT_FOR_PROBE_SECONDS: Final = 5.0
"""How soon what is put off while a try is under way is looked at again."""

_LASTING: Final = 2
"""From so many failures in a row on it is told: one that heals by itself concerns no one."""

_MOST_PLACES: Final = 1024

_DATABASE_SECONDS: Final = 2.0
_REMIND_SECONDS: Final = 600.0


class Kind(StrEnum):
    """What kinds of places there are."""

    KEY = "key"
    ENDPOINT = "endpoint"
    HOST = "host"
    FOLDER = "folder"
    DATABASE = "database"


class Stage(IntEnum):
    """How far a run has come at a place: one stage says nothing of a later one."""

    ANSWER = 1
    FILE = 2


class Place(NamedTuple):
    """What can be in trouble: its kind, and which one it is."""

    kind: Kind
    name: str


class Trouble(NamedTuple):
    """Why a place is of no use just now, in words for a person; `since` in our clock."""

    reason: str
    message: str
    since: datetime | None = None

    @property
    def for_all(self) -> str:
        """What is told of a run that waits with all others."""
        if self.since is None:
            return self.message
        since = f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.message} So it has been for all its runs since {since}."


@dataclass(frozen=True, slots=True)
class Pause:
    """Why not to go to a place now: for how long that lasts, and when to look again; seconds."""

    trouble: Trouble
    lasted_seconds: float
    wait_seconds: float


def _database_delay_seconds(_tries: int, _jitter: float) -> float:
    return _DATABASE_SECONDS


_DELAYS: Final[dict[Kind, Callable[[int, float], float]]] = {
    Kind.KEY: probe_delay_seconds,
    Kind.ENDPOINT: host_delay_seconds,
    Kind.HOST: host_delay_seconds,
    Kind.FOLDER: disk_probe_delay_seconds,
    Kind.DATABASE: _database_delay_seconds,
}
_SCOPES: Final[dict[Kind, Scope]] = {Kind.KEY: "api", Kind.FOLDER: "disk"}
"""The kinds that are shared with other processes, and their scope in `blocks`."""


def key_place(api_key: str) -> Place:
    """Return the place that an API key is; its name tells it from others and does not give it away.

    48 bits of a digest: nothing is found by them but whether two keys are the same.
    """
    digest = hashlib.sha256(b"downloader: which key\0" + api_key.encode(errors="surrogateescape"))
    return Place(Kind.KEY, digest.hexdigest()[:12])


def folder_place(folder: Path) -> Place:
    """Return the place that an output folder is, by whichever path it is named."""
    real = os.path.realpath(folder)
    return Place(Kind.FOLDER, os.fsencode(real).decode(errors="backslashreplace"))


@dataclass(slots=True, eq=False)
class Breaker:
    """Whether one place may be gone to; for all threads.

    Of a place that is shared every process on the database honours what one of them has met. Only a
    process that starts tries at once: its user may have put things right. With `ends_call` a
    trouble is said by the call that ends with it.
    """

    place: Place
    ends_call: bool = False
    once: bool = False
    database: Database | None = None
    beneath: Breaker | None = None
    """A place that this one is a part of: while that is in trouble nothing is told of this."""
    evidence: dict[Stage, Evidence] = field(default_factory=lambda: {s: Evidence() for s in Stage})
    trouble: Trouble | None = None
    tries: int = 0
    """How many failures in a row there were; several at once are one."""
    _closed_at: datetime | None = None
    closed: str | None = None
    """What it was in trouble for, since it is well again; who looks after that resets this."""
    _until: float = float("-inf")  # by the monotonic clock, as are the next
    _learned_at: float = float("-inf")
    opened_at: float = float("-inf")
    _told_at: float | None = None
    _stage: Stage = Stage.ANSWER  # at which it failed the last time
    _probe: str | None = None  # who tries now
    _under_way: set[str] = field(default_factory=set)
    _just_closed: bool = False  # what was held up meanwhile is yet to be seen
    _lock: threading.RLock = field(default_factory=threading.RLock)
    # Of a shared place:
    _proved: bool = False  # by a success in this process
    _looked_at: float | None = None
    _seen_until: datetime | None = None
    _probing: datetime | None = None  # until when this process is the one that tries
    _excused: blocks.Block | None = None  # a trouble that is older than this process

    @property
    def _scope(self) -> Scope:
        return _SCOPES[self.place.kind]

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it would be missed."""
        return self.trouble is None and not self._under_way and self.place.kind is Kind.HOST

    @property
    def may_be_closed(self) -> bool:
        """Whether a success would change anything; the first one in a shared place always may."""
        if self.database is not None and not self._proved:
            return True
        return self.trouble is not None or self.tries > 0 or self._excused is not None

    @property
    def is_open(self) -> bool:
        """Whether the place is paused."""
        return self.trouble is not None

    @property
    def suspected_of(self) -> str | None:
        """Why the place was in trouble before this process, which has yet to see that it is not."""
        return None if self._excused is None else self._excused.reason

    # What is found of the place

    def failed(
        self,
        reason: str,
        message: str,
        began_at: float,
        *,
        at_least_seconds: float = 0.0,
        stage: Stage = Stage.ANSWER,
        lenient: bool = False,
    ) -> float:
        """Note that the place failed; return for how many seconds it is paused now.

        `began_at` is by the monotonic clock: many that meet it at once are one try.
        `at_least_seconds` is what the place itself asks for (Retry-After). With `lenient` a single
        failure changes nothing yet.
        """
        with self._lock:
            now = time.monotonic()
            self._stage = stage
            if self.tries == 0:
                self.opened_at = now
            if (
                lenient
                and self.trouble is None
                and (self.tries == 0 or began_at < self._learned_at)
            ):
                self.tries, self._learned_at = 1, now
                return 0.0
            if self.tries == 0 or began_at >= self._learned_at:
                self.tries += 1
                self._learned_at = now
                delay = _DELAYS[self.place.kind](self.tries - 1, jitter())
                self._until = max(self._until, now + delay)
            self._until = max(self._until, now + at_least_seconds)
            if self.database is not None:
                self._share(self.database, reason, message)
            self._learn(reason, message)
            return max(0.0, self._until - now)

    def succeeded(self, began_at: float) -> bool:
        """Note that what began at this time went well; return whether that has closed the breaker.

        One that began before the trouble says nothing of it.
        """
        if not self.may_be_closed or began_at < self._learned_at:
            return False
        with self._lock:
            if self.database is not None and not self._proved:
                # Keys and folders of before, which nobody may use any more, are met again if so.
                known = self.trouble is not None or self._excused is not None
                if blocks.unblock_all(self.database, self._scope) and not known:
                    _log.warning("service.unblocked", scope=self._scope)
            elif self.database is not None:
                blocks.unblock(self.database, self._scope, subject=self.place.name)
            self._proved = True
            return self._close()

    def served(self, key: RunKey, began_at: float, stage: Stage = Stage.ANSWER) -> bool:
        """Note that a run was served there; return whether that has closed the breaker."""
        with self._lock:
            self.evidence[stage].served(key, time.monotonic())
            self._just_closed = False
        return stage >= self._stage and self.succeeded(began_at)

    def serves_others(self, key: RunKey, since: float) -> bool:
        """Return whether another run was answered at that time or later."""
        with self._lock:
            return self.evidence[Stage.ANSWER].serves_others(key, since)

    @property
    def served_at(self) -> float:
        """When a run was answered the last time; monotonic clock."""
        with self._lock:
            return self.evidence[Stage.ANSWER].last_served_at

    def refused(
        self, key: RunKey, code: str, began_at: float, stage: Stage = Stage.ANSWER
    ) -> Blame:
        """Note that a run was refused there; return whose fault that is."""
        with self._lock:
            others = len(self._under_way) > 1 or self._just_closed
            found = self.evidence[stage].refused(
                key, code, began_at, time.monotonic(), others=others
            )
            if self.trouble is not None and found is not Blame.RUN:
                return Blame.PLACE
            return found

    # Whether to go there

    def is_tried_within(self, seconds: float) -> bool:
        """Return whether it is in trouble, and tried soon or now, or could have been lately."""
        with self._lock:
            soon = abs(self._until - time.monotonic()) <= seconds
            return self.trouble is not None and (self._probe is not None or soon)

    def pause(self, *, mine: str | None = None, taken: bool = False) -> Pause | None:
        """Return why not to go there now; None where one may, and be it as the one that tries.

        `taken` says that another run is on its way there already, `mine` is whom to let go on.
        """
        with self._lock:
            if self.trouble is None:
                return None
            now = time.monotonic()
            if mine is not None and self._probe == mine:
                return None
            probed = self._probe is not None or taken
            if now >= self._until and not probed:
                return None
            wait = _WAIT_FOR_PROBE_SECONDS if probed else self._until - now
            return Pause(self.trouble, now - self.opened_at, wait)

    def begins(self, who: str) -> None:
        """Note that somebody goes there: to a place in trouble that is the one who tries."""
        with self._lock:
            self._under_way.add(who)
            if self.trouble is not None and self._probe is None:
                self._probe = who

    def ended(self, who: str) -> None:
        """Note that somebody is back, whatever came of it."""
        with self._lock:
            self._under_way.discard(who)
            if self._probe == who:
                self._probe = None

    def was_in_trouble_since(self, then: datetime | None) -> bool:
        """Return whether it is in trouble, or was so at that time (our clock) or later."""
        closed_at = self._closed_at
        return self.is_open or (then is not None and closed_at is not None and closed_at >= then)

    def try_at_once(self) -> None:
        """Try now: somebody may have put things right."""
        with self._lock:
            self._until = float("-inf")
            if self.database is not None:
                self.trouble = self._looked_at = self._seen_until = self._probing = None

    # A place that is shared; blocking

    def look(self) -> None:
        """See what other processes have opened or closed, at most once a second."""
        assert self.database is not None  # noqa: S101 - a shared place
        with self._lock:
            now = time.monotonic()
            first = self._looked_at is None
            if self._looked_at is not None and now - self._looked_at < _LOOK_AGAIN_SECONDS:
                return
            self._looked_at = now
            known = blocks.current_block(self.database, self._scope, subject=self.place.name)
            if known is None:
                if self.trouble is not None or self._excused is not None:
                    self._close()
            elif first and self.trouble is None:
                self._excused = known
            elif self._excused is None or known.since != self._excused.since:
                self._seen_until = known.until
                if self.trouble is None:
                    self._learned_at = now
                self._learn(known.reason, known.message, known.since)

    def take_probe(self) -> bool:
        """Return whether a try is due and this process is the one to make it."""
        assert self.database is not None  # noqa: S101 - a shared place
        with self._lock:
            seen = self._seen_until
            if seen is None or not _is_due(seen):
                return False
            until = utc_now() + timedelta(seconds=_PROBE_SECONDS)
            if not blocks.take_probe(
                self.database, self._scope, subject=self.place.name, seen=seen, until=until
            ):
                return False
            self._seen_until = self._probing = until
            self._learned_at = time.monotonic()  # from here on a success means something
            return True

    def _share(self, database: Database, reason: str, message: str) -> None:
        delay = _DELAYS[self.place.kind]
        self._seen_until = blocks.block(
            database,
            self._scope,
            reason,
            message,
            subject=self.place.name,
            now=utc_now(),
            pause_seconds=lambda tries: delay(tries, jitter()),
            probing=self._probing,
        )
        self._probing = self._excused = None

    # What is told

    @property
    def _is_quiet(self) -> bool:
        told_at_end = self.once and self.place.kind is Kind.ENDPOINT
        return told_at_end or (self.beneath is not None and self.beneath.is_open)

    def _learn(self, reason: str, message: str, since: datetime | None = None) -> None:
        before = self.trouble
        same = before is not None and before.reason == reason
        if since is None:
            since = before.since if before is not None and same else utc_now()
        self.trouble = Trouble(reason, message, since)
        now = time.monotonic()
        if self.place.kind in _SCOPES:
            if not same:
                # A call that ends with it says so itself.
                tell = _log.info if self.ends_call else _log.error
                tell("service.blocked", reason=reason, message=message)
        elif self.place.kind is Kind.DATABASE:
            if self._told_at is None or now - self._told_at > _REMIND_SECONDS:
                self._told_at = now
                _log.error("service.blocked", reason=reason, message=message)
        elif self._told_at is None and self.tries >= _LASTING and not self._is_quiet:
            self._told_at = now
            pause = round(max(0.0, self._until - now), 1)
            if self.place.kind is Kind.HOST:
                _log.warning(
                    "storage.down",
                    host=urlsplit(self.place.name).netloc,
                    error_code=reason,
                    message=message,
                    pause_seconds=pause,
                )
            elif reason != "throttled":
                _log.warning(
                    "api.down",
                    endpoint=self.place.name,
                    error_code=reason,
                    message=message,
                    pause_seconds=pause,
                )
            else:
                self._told_at = None

    def _close(self) -> bool:
        was_open = self.trouble is not None or self._excused is not None
        seconds = round(time.monotonic() - self.opened_at, 1)
        if self.place.kind in _SCOPES:
            if was_open:
                _log.warning("service.unblocked", scope=self._scope)
        elif self._told_at is not None and self.place.kind is Kind.HOST:
            _log.warning("storage.back", host=urlsplit(self.place.name).netloc, seconds=seconds)
        elif self._told_at is not None and self.place.kind is Kind.ENDPOINT:
            _log.warning("api.back", endpoint=self.place.name, seconds=seconds)
        if self.place.kind is not Kind.DATABASE:  # which is reminded of at most now and then
            self._told_at = None
        if self.trouble is not None:
            self._closed_at = utc_now()
            self._just_closed, self.closed = True, self.trouble.reason
        self.trouble = self._excused = self._seen_until = self._probing = self._probe = None
        self.tries, self._until = 0, float("-inf")
        return was_open


class Breakers:
    """The breakers of one process; for all threads."""

    def __init__(self, database: Database, *, ends_call: bool, once: bool) -> None:
        self._database = database
        self._ends_call = ends_call
        self._once = once
        self._lock = threading.Lock()
        self._all: dict[Place, Breaker] = {}

    def at(self, place: Place, *, beneath: Breaker | None = None) -> Breaker:
        """Return the breaker of a place, which is a part of the one that it is `beneath`."""
        with self._lock:
            found = self._all.get(place)
            if found is None:
                if len(self._all) >= _MOST_PLACES:  # each run at a host of its own
                    idle = next((one for one in self._all.values() if one.is_idle), None)
                    if idle is not None:
                        del self._all[idle.place]
                shared = self._database if place.kind in _SCOPES else None
                found = self._all[place] = Breaker(
                    place, self._ends_call, self._once, shared, beneath
                )
            return found

    def host(self, origin: str) -> Breaker:
        """Return the breaker of a storage host, known by the origin of its URLs."""
        return self.at(Place(Kind.HOST, origin))

    def _of(self, kind: Kind) -> list[Breaker]:
        with self._lock:
            return [one for one in self._all.values() if one.place.kind is kind]

    def in_trouble(self, kind: Kind) -> list[Breaker]:
        """Return the places of a kind that are paused, the longest first."""
        found = [one for one in self._of(kind) if one.is_open]
        return sorted(found, key=lambda one: one.opened_at)

    def any_in_trouble(self, kind: Kind) -> bool:
        """Return whether some place of a kind is paused."""
        return any(one.is_open for one in self._of(kind))

    def take_closed(self, kind: Kind) -> set[str]:
        """Return what those of a kind were in trouble for that have become well again."""
        found = set()
        for one in self._of(kind):
            if one.closed is not None:
                found.add(one.closed)
                one.closed = None
        return found

    def try_at_once(self) -> None:
        """Try every place now: somebody may have put things right."""
        with self._lock:
            for one in self._all.values():
                one.try_at_once()


def origin_of(url: str) -> str | None:
    """Return the origin of a URL, None where it cannot be gone to at all."""
    try:
        return address_of(url).origin
    except TransferError:
        return None


def _is_due(until: datetime) -> bool:
    """Return whether that moment has come, or is one that no pause leads to: the clock was set."""
    seconds = (until - utc_now()).total_seconds()
    return seconds <= 0 or seconds > 2 * MAX_PROBE_DELAY_SECONDS
