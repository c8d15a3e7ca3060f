"""One handle of libcurl with the connections it keeps, for one request at a time.

libcurl is driven through its multi interface, by events, rather than left to wait by itself: so
a wait ends when a guard says stop, be it for a name, a connection or a byte, and every time limit
is ours.
"""

from __future__ import annotations

import contextlib
import math
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from downloader.http import REQUEST_HEADERS
from downloader.network import QUIET_SECONDS, received_bytes
from downloader.transfer.curl_errors import failure_of
from downloader.transfer.curl_library import pycurl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downloader.transfer.addresses import Address
    from downloader.transfer.curl_answer import Answer
    from downloader.transfer.engine import Timing, TransferError
    from downloader.transfer.unusable import DiskError
    from downloader.trust import Authorities

BUFFER_BYTES: Final = 256 * 1024
"""How much libcurl reads at a time, where a connection without TLS has as much."""

_KEPT_CONNECTIONS: Final = 4  # of one handle: redirects lead to another host and back
_SUPPRESS_CONNECT_HEADERS: Final = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, not named by pycurl


class Events(Protocol):
    """What tells a session of events while it makes a request: calls `act` for them."""

    def watch(self, descriptor: int, wanted: int) -> None:
        """Tell of events of a descriptor from now on, in libcurl's words (POLL_IN and the like)."""

    def forget(self, descriptor: int) -> None:
        """Tell of no more events of a descriptor."""

    def set_timer(self, at: float | None) -> None:
        """Tell when this time of the monotonic clock has come; only the last one set counts."""


class Session:
    """Makes one request after another, each begun by `ask` and ended by `end`; `close` it last.

    It is used by one thread at a time, not always by the same. It is `stuck`, and to be closed,
    when it was left while it looked a name up: nothing ends that, and libcurl waits for it before
    it frees what it has. It is `spoilt`, and likewise, when more came on a connection than was
    asked for.
    """

    def __init__(self, timing: Timing, authorities: Authorities) -> None:
        self._timing = timing
        self.stuck = False
        self.spoilt = False
        self._kept = -1  # the descriptor of the connection that was used last
        self._open: dict[int, int] = {}  # descriptors that libcurl waits for, and for what
        self._events: Events | None = None  # while there is a request
        self._answer: Answer | None = None
        self._secure = False
        self._received: int | None = None  # bytes before the request
        self._answered_at = 0.0
        self._easy = pycurl.Curl()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, _KEPT_CONNECTIONS)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        for option, value in _OPTIONS.items():
            self._easy.setopt(option, value)
        self._easy.setopt(pycurl.CONNECTTIMEOUT_MS, math.ceil(timing.connect_seconds * 1000))
        for file, folder in (
            (pycurl.CAINFO, pycurl.CAPATH),
            (pycurl.PROXY_CAINFO, pycurl.PROXY_CAPATH),
        ):
            _set_or_unset(self._easy, file, authorities.file)
            _set_or_unset(self._easy, folder, authorities.folder)

    def close(self) -> None:
        """Close the connections; nothing may be using the session."""
        if self.stuck:
            threading.Thread(target=self._free, daemon=True).start()
        else:
            self._free()

    def _free(self) -> None:
        self._easy.close()
        self._multi.close()

    @property
    def quiet_at(self) -> float:
        """When the next request may go out (monotonic clock): see `QUIET_SECONDS`."""
        return self._answered_at + QUIET_SECONDS if self._kept >= 0 else 0.0

    def ask(
        self,
        address: Address,
        headers: Mapping[str, str],
        proxy: str | None,
        answer: Answer,
        events: Events,
    ) -> bool:
        """Begin a request; return whether it goes on, as `act` does. It is `quiet_at` by now."""
        self._aim(address, headers, proxy)
        self.spoilt = self.spoilt or self._has_more()
        self._easy.setopt(pycurl.FRESH_CONNECT, int(self.spoilt))
        self._easy.setopt(pycurl.PREREQFUNCTION, self._on_connected)
        self._easy.setopt(pycurl.HEADERFUNCTION, answer.on_header)
        self._easy.setopt(pycurl.WRITEFUNCTION, answer.on_body)
        self._answer, self._events = answer, events
        self._secure = address.origin.startswith("https:")
        for descriptor, wanted in self._open.items():
            events.watch(descriptor, wanted)
        self._multi.add_handle(self._easy)
        return self.act()

    def act(self, descriptor: int = pycurl.SOCKET_TIMEOUT, event: int = 0) -> bool:
        """Have libcurl deal with an event; return whether the request goes on."""
        _, running = self._multi.socket_action(descriptor, event)
        return bool(running)

    def resume(self) -> bool:
        """Go on where libcurl was told to pause; return what `act` does."""
        with contextlib.suppress(pycurl.error):  # what it kept is not wanted: the answer knows
            self._easy.pause(pycurl.PAUSE_CONT)
        return self.act()

    def end(self) -> int:
        """End the request; return libcurl's code for it.

        What is under way is cut off, and its connection closed. What comes beyond an answer
        without TLS libcurl sees by itself.
        """
        answer, events = self._answer, self._events
        assert answer is not None  # noqa: S101 - asked before
        assert events is not None  # noqa: S101 - likewise
        _, _, failed = self._multi.info_read()
        self._kept = self._easy.getinfo(pycurl.ACTIVESOCKET)
        self.spoilt = self.spoilt or (self._secure and self._has_hidden(answer.body_bytes))
        self._multi.remove_handle(self._easy)
        self.stuck = not answer.connected and not self._easy.getinfo(pycurl.NAMELOOKUP_TIME)
        for callback in (pycurl.PREREQFUNCTION, pycurl.HEADERFUNCTION, pycurl.WRITEFUNCTION):
            self._easy.setopt(callback, _ignore)
        events.set_timer(None)
        for descriptor in self._open:
            events.forget(descriptor)
        self._answer = self._events = None
        self._answered_at = time.monotonic()
        return failed[0][1] if failed else pycurl.E_OK

    def failure_of(
        self, code: int, address: Address, *, connected: bool
    ) -> TransferError | DiskError:
        """Return what the last request ended by."""
        return failure_of(code, self._easy, address, self._timing, connected=connected)

    def _has_more(self) -> bool:
        """Tell whether more has come than the last answer, or the end; libcurl does not look."""
        if self._kept < 0:
            return False
        poll = select.poll()
        poll.register(self._kept, select.POLLIN)
        return bool(poll.poll(0))

    def _has_hidden(self, body_bytes: int) -> bool:
        """Tell whether TLS has more than the answer: it reads ahead, and libcurl does not look.

        The bytes that have come are those of the answer and of TLS itself: a record has at most
        some 40 bytes of its own, and a server that makes small ones fills at least a packet; a
        new connection has its tickets, too.
        """
        received = received_bytes({self._kept}, None)
        if self._received is None or received is None:
            return False
        plain = self._easy.getinfo(pycurl.HEADER_SIZE) + body_bytes
        own = 160 + plain // 30 + (1000 if self._easy.getinfo(pycurl.NUM_CONNECTS) else 0)
        return bool(received - self._received - plain > own)

    def _aim(self, address: Address, headers: Mapping[str, str], proxy: str | None) -> None:
        """Set what differs from request to request."""
        # libcurl would tidy a URL up; this way it has no part that could be.
        self._easy.setopt(pycurl.URL, address.origin + "/")
        forwarded = proxy is not None and address.origin.startswith("http:")
        target = address.origin + address.target if forwarded else address.target
        self._easy.setopt(pycurl.REQUEST_TARGET, target)
        lines = {"accept": "*/*"} | REQUEST_HEADERS | dict(headers)
        self._easy.setopt(
            pycurl.HTTPHEADER,
            [f"{name}: {value}".encode("latin-1") for name, value in lines.items()],
        )
        self._easy.setopt(pycurl.PROXY, proxy or "")  # empty: not even what libcurl finds itself

    def _on_connected(self, *given: Any) -> int:  # noqa: ANN401 - their port and ours are the last
        """Note that the request goes out now."""
        if self._secure:
            self._received = received_bytes({self._kept, *self._open}, given[-1])
        return 0 if self._answer is None else self._answer.on_connected()

    def _on_socket(self, event: int, descriptor: int, *_: object) -> None:
        """Note what libcurl waits for on a descriptor."""
        if event in (pycurl.POLL_REMOVE, pycurl.POLL_NONE):
            if self._open.pop(descriptor, None) is not None and self._events is not None:
                self._events.forget(descriptor)
            return
        self._open[descriptor] = event
        if self._events is not None:
            self._events.watch(descriptor, event)

    def _on_timer(self, milliseconds: int) -> None:
        """Note when libcurl wants to be called again, whatever comes."""
        if self._events is not None:
            at = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
            self._events.set_timer(at)


_OPTIONS: Final[dict[int, int | str]] = {
    pycurl.NOSIGNAL: 1,
    pycurl.NOPROGRESS: 1,
    pycurl.BUFFERSIZE: BUFFER_BYTES,
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,  # one connection serves one transfer
    pycurl.HTTP09_ALLOWED: 0,
    pycurl.FOLLOWLOCATION: 0,
    pycurl.FAILONERROR: 0,
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.NOPROXY: "",  # who is asked directly is judged before
    pycurl.PROXYAUTH: pycurl.HTTPAUTH_BASIC,
    pycurl.HEADEROPT: pycurl.HEADER_SEPARATE,  # a proxy is not told what the storage is asked
    _SUPPRESS_CONNECT_HEADERS: 1,
    pycurl.SSL_VERIFYPEER: 1,
    pycurl.SSL_VERIFYHOST: 2,
    pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
    pycurl.PROXY_SSL_VERIFYPEER: 1,
    pycurl.PROXY_SSL_VERIFYHOST: 2,
}


def _set_or_unset(easy: pycurl.Curl, option: int, value: str | None) -> None:
    if value is None:
        easy.unsetopt(option)
    else:
        easy.setopt(option, value)


def _ignore(*_: object) -> int:
    """Stand in for a callback between requests, so that no handle holds on to a fetch."""
    return 0
