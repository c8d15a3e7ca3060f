"""Which storage hosts cannot be reached: paused as a whole, one probe at a time, at no run's cost.

Each process finds out for itself. A host is known by its origin, the scheme, host and port of a
run's URL.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from downloader.gate import Trouble
from downloader.jitter import jitter
from downloader.logger import get_logger
from downloader.rules.backoff import host_delay_seconds
from downloader.rules.decisions import UNREACHABLE
from downloader.transfer.addresses import address_of
from downloader.transfer.engine import TransferError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_log = get_logger(__name__)

_LASTING: Final = 2
"""From so many vain tries in a row on it is told: one that heals by itself is nobody's business."""

_PROBE_SECONDS: Final = 5.0
"""How soon what is put off while a probe is under way is looked at again."""


@dataclass(frozen=True, slots=True)
class Down:
    """A host that cannot be reached: why, for how long by now, and when to look again; seconds."""

    message: str
    lasted_seconds: float
    wait_seconds: float


@dataclass(slots=True)
class _Host:
    message: str
    since: float  # all by the monotonic clock
    learned_at: float
    until: float
    tries: int = 1
    told: bool = False
    probe: str | None = None  # the lease of the run that tries it


class Storages:
    """What the transfers of this process have found of hosts; for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._down: dict[str, _Host] = {}
        self._up: set[str] = set()  # reached in this process, and not found down since
        self._back = False
        self._curious = False

    @property
    def any_down(self) -> bool:
        """Whether some host cannot be reached."""
        return bool(self._down)

    @property
    def all_down(self) -> bool:
        """Whether no host is known that can be."""
        return bool(self._down) and not self._up

    @property
    def trouble(self) -> Trouble | None:
        """Why runs wait for a host, None where none does."""
        with self._lock:
            told = next(iter(self._down.values()), None)
        return None if told is None else Trouble(UNREACHABLE, told.message)

    def look(self, origin: str | None, taken: AbstractSet[str]) -> Down | None:
        """Return why a host is not to be gone to now; None where it is.

        To one that is down a single run goes, when its pause is over: `taken` has the hosts that
        one is on its way to already.
        """
        with self._lock:
            host = None if origin is None else self._down.get(origin)
            if host is None:
                return None
            now = time.monotonic()
            probed = host.probe is not None or origin in taken
            if now >= host.until and not probed:
                return None
            wait = _PROBE_SECONDS if probed else host.until - now
            return Down(host.message, now - host.since, wait)

    def begins(self, origin: str | None, lease: str) -> None:
        """Note that a transfer begins; to a host that is down it is the probe."""
        with self._lock:
            if (host := self._down.get(origin or "")) is not None:
                host.probe = lease

    def ended(self, origin: str | None, lease: str) -> None:
        """Note that a transfer has ended, whatever it found."""
        with self._lock:
            host = self._down.get(origin or "")
            if host is not None and host.probe == lease:
                host.probe = None

    def failed(self, origin: str, message: str, began_at: float) -> float:
        """Note that no connection came about; return for how many seconds the host is paused.

        Many that meet it at once are one try.
        """
        with self._lock:
            now = time.monotonic()
            self._up.discard(origin)
            host = self._down.get(origin)
            if host is None:
                until = now + host_delay_seconds(0, jitter())
                host = self._down[origin] = _Host(message, now, now, until)
            elif began_at >= host.learned_at:
                host.until = now + host_delay_seconds(host.tries, jitter())
                host.message, host.learned_at = message, now
                host.tries += 1
                self._curious = True
            tell = host.tries >= _LASTING and not host.told
            host.told = host.told or tell
            wait = max(0.0, host.until - now)
        if tell:
            _log.warning(
                "storage.down", host=_name(origin), message=message, pause_seconds=round(wait, 1)
            )
        return wait

    def reached(self, origin: str | None, began_at: float) -> None:
        """Note that a connection came about, of what began at this time of the monotonic clock."""
        if origin is None or (origin in self._up and origin not in self._down):
            return
        with self._lock:
            host = self._down.get(origin)
            if host is not None and began_at < host.learned_at:
                return
            self._up.add(origin)
            if host is None:
                return
            del self._down[origin]
            self._back = True
        if host.told:
            seconds = round(time.monotonic() - host.since, 1)
            _log.warning("storage.back", host=_name(origin), seconds=seconds)

    def take_back(self) -> bool:
        """Return whether a host is back since the last time."""
        back, self._back = self._back, False
        return back

    def take_curiosity(self) -> bool:
        """Return whether a host stayed down since the last time: others may be asked for anew."""
        curious, self._curious = self._curious, False
        return curious

    def try_at_once(self) -> None:
        """Have every host tried now: somebody may have put things right."""
        with self._lock:
            for host in self._down.values():
                host.until = float("-inf")


def origin_of(url: str) -> str | None:
    """Return the origin of a URL, None where it cannot be gone to at all."""
    try:
        return address_of(url).origin
    except TransferError:
        return None


def _name(origin: str) -> str:
    return urlsplit(origin).netloc
