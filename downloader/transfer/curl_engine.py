"""The engine on libcurl: the faster one, used wherever pycurl is installed."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from downloader.errors import ConfigurationError
from downloader.proxies import environment_proxies
from downloader.transfer.curl_library import pycurl
from downloader.transfer.curl_loop import Loop
from downloader.transfer.curl_session import Session
from downloader.transfer.files import allow_files, files_needed
from downloader.transfer.guard import Interrupted
from downloader.transfer.pool import MOST_HUNG
from downloader.transfer.problems import unreachable
from downloader.transfer.unusable import too_many_files
from downloader.trust import environment_authorities

if TYPE_CHECKING:
    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Fetch, Timing
    from downloader.transfer.rate_limit import RateLimit

_MOST_LOOPS: Final = 2
"""One thread decrypts and hashes what one core can; Python has no use for more than two of them."""

_JOIN_SECONDS: Final = 1.0


class CurlEngine:
    """Transfers by sessions of libcurl, one for each transfer that is under way.

    A few threads drive them all. A session is lent to a transfer and taken back, so that
    connections are used again; at most `connections` are kept. With `raise_limit` this process is
    allowed as many open files as they need.

    Raises:
        ConfigurationError: the environment's proxy or TLS settings cannot be used.

    """

    name = "curl"

    def __init__(
        self,
        timing: Timing,
        *,
        connections: int,
        rate_limit: RateLimit | None = None,
        raise_limit: bool = False,
    ) -> None:
        self._raise_limit = raise_limit
        self.resize(connections)
        self.timing = timing
        self.limit = rate_limit
        self._authorities = environment_authorities()
        self._proxies = environment_proxies()
        self._lock = threading.Lock()
        self._idle: deque[Session] = deque()  # the one used last is used last: see QUIET_SECONDS
        self._most_loops = min(_MOST_LOOPS, processors())
        self._loops: list[Loop] = []
        self._hung: list[Loop] = []  # with others in their places
        self._closed = False

    def resize(self, connections: int) -> None:
        """Be ready for so many transfers at a time, and keep at most so many sessions."""
        if self._raise_limit:
            allow_files(files_needed(connections))
        self._connections = connections

    def close(self) -> None:
        """Close idle connections; those in use are closed as their transfers end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
            loops, self._loops = self._loops, []
        for session in idle:
            session.close()
        for loop in loops:
            for fetch in loop.retire():
                fetch.ended(Interrupted())
            if not loop.active:
                loop.join(_JOIN_SECONDS)

    def start(self, fetch: Fetch) -> None:
        """GET its URL; see `Engine.start`."""
        fetch.guard.queue()
        try:
            with self._lock:
                started = not self._closed and self._loop().start(fetch)
        except OSError:
            fetch.ended(too_many_files())
            return
        if not started:
            fetch.ended(Interrupted())

    def _loop(self) -> Loop:
        """Return the loop with the least to do; a new one in the place of one that hangs."""
        self._hung = [one for one in self._hung if not one.is_over]
        for place, loop in enumerate(self._loops):
            if loop.is_hung and len(self._hung) < MOST_HUNG:
                self._loops[place] = Loop(self)
                for fetch in loop.retire():
                    self._loops[place].start(fetch)
                self._hung.append(loop)
        if not self._loops or (
            len(self._loops) < self._most_loops and all(loop.active for loop in self._loops)
        ):
            self._loops.append(Loop(self))
        return min(self._loops, key=lambda loop: loop.active)

    # what the loops ask for: see `Sessions`

    def lend(self) -> Session:
        """Return the session that is idle for the longest time, or a new one."""
        with self._lock:
            if self._idle:
                return self._idle.popleft()
        try:
            return Session(self.timing, self._authorities)
        except (OSError, pycurl.error):  # libcurl needs a descriptor or two of its own
            raise too_many_files() from None

    def give_back(self, session: Session) -> None:
        """Keep a session for the next transfer, or close it."""
        with self._lock:
            room = len(self._idle) < self._connections
            kept = room and not self._closed and not (session.stuck or session.spoilt)
            if kept:
                self._idle.append(session)
        if not kept:
            session.close()

    def proxy_of(self, address: Address) -> str | None:
        """Return the proxy for an address."""
        try:
            return self._proxies.of(address.origin)
        except ConfigurationError as error:
            raise unreachable(address, str(error).rstrip(".")) from None


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
