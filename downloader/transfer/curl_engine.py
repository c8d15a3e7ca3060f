"""The engine on libcurl: the faster one, used wherever pycurl is installed."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

from downloader.errors import ConfigurationError
from downloader.proxies import environment_proxies
from downloader.transfer.curl_library import pycurl
from downloader.transfer.curl_session import Session
from downloader.transfer.files import allow_files, files_needed
from downloader.transfer.problems import unreachable
from downloader.transfer.redirects import follow
from downloader.transfer.unusable import too_many_files
from downloader.trust import environment_authorities

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Sink, Timing
    from downloader.transfer.guard import Guard


class CurlEngine:
    """Transfers by sessions of libcurl, one for each transfer that is under way.

    A session is lent to a transfer and taken back, so that connections outlive the threads that
    come and go; at most `connections` are kept. With `raise_limit` this process is allowed as many
    open files as they need.

    Raises:
        ConfigurationError: the environment's proxy or TLS settings cannot be used.

    """

    name = "curl"

    def __init__(self, timing: Timing, *, connections: int, raise_limit: bool = False) -> None:
        self._raise_limit = raise_limit
        self.resize(connections)
        self._timing = timing
        self._authorities = environment_authorities()
        self._proxies = environment_proxies()
        self._lock = threading.Lock()
        self._idle: deque[Session] = deque()  # the one used last is used last: see QUIET_SECONDS
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
        for session in idle:
            session.close()

    def fetch(self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard) -> None:
        """GET `url` into `sink`; see `Engine.fetch`."""
        with self._session() as session:

            def request(url: str, address: Address) -> str | None:  # noqa: ARG001 - as `follow` calls it
                try:
                    proxy = self._proxies.of(address.origin)
                except ConfigurationError as error:
                    raise unreachable(address, str(error).rstrip(".")) from None
                return session.get(address, headers, proxy, sink, guard)

            follow(url, guard, request)

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        """Lend an idle session, or a new one."""
        with self._lock:
            session = self._idle.popleft() if self._idle else None
        if session is None:
            session = self._new_session()
        try:
            yield session
        finally:
            with self._lock:
                room = len(self._idle) < self._connections
                kept = room and not self._closed and not (session.stuck or session.spoilt)
                if kept:
                    self._idle.append(session)
            if not kept:
                session.close()

    def _new_session(self) -> Session:
        try:
            return Session(self._timing, self._authorities)
        except (OSError, pycurl.error):  # libcurl needs a descriptor or two of its own
            raise too_many_files() from None
