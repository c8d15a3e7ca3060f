"""One handle of libcurl with the connections it keeps, used by one thread at a time.

libcurl is driven through its multi interface by a loop of our own, rather than left to wait by
itself: so a wait ends the moment that a guard says stop, be it for a name, a connection or a
byte, and every time limit is ours, to the millisecond.
"""

from __future__ import annotations

import contextlib
import math
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from downloader.bell import Bell
from downloader.http import REQUEST_HEADERS
from downloader.network import QUIET_SECONDS, received_bytes, waits
from downloader.transfer.curl_answer import Answer
from downloader.transfer.curl_errors import NOT_TRUSTED, failure_of
from downloader.transfer.curl_library import pycurl
from downloader.transfer.problems import untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Sink, Timing
    from downloader.transfer.guard import Guard
    from downloader.trust import Authorities

BUFFER_BYTES: Final = 256 * 1024
"""How much libcurl reads at a time, where a connection without TLS has as much."""

_KEPT_CONNECTIONS: Final = 4  # of one handle: redirects lead to another host and back
_SUPPRESS_CONNECT_HEADERS: Final = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, not named by pycurl
_READABLE: Final = select.POLLIN | select.POLLHUP
_BROKEN: Final = select.POLLERR | select.POLLNVAL


class Session:
    """Makes one request after another; `close` it in the end.

    It is `stuck`, and to be closed, when it was left while it looked a name up: nothing ends
    that, and libcurl waits for it before it frees what it has. It is `spoilt`, and likewise, when
    more came on a connection than was asked for.
    """

    def __init__(self, timing: Timing, authorities: Authorities) -> None:
        self._timing = timing
        self._poll = select.poll()
        self._timer_at: float | None = None
        self.stuck = False
        self.spoilt = False
        self._kept = -1  # the descriptor of the connection that was used last
        self._open: set[int] = set()  # descriptors that libcurl waits for
        self._received: int | None = None  # bytes before the request
        self._answered_at = 0.0
        self._easy = pycurl.Curl()
        self._multi = pycurl.CurlMulti()
        # Last of what takes descriptors, of which there may be none left: the others free theirs.
        self._bell = Bell()
        self._poll.register(self._bell.descriptor, select.POLLIN)
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
        """Close the connections; nobody may be using the session."""
        if self.stuck:
            threading.Thread(target=self._free, daemon=True).start()
        else:
            self._free()

    def _free(self) -> None:
        self._easy.close()
        self._multi.close()
        self._bell.close()

    def get(
        self,
        address: Address,
        headers: Mapping[str, str],
        proxy: str | None,
        sink: Sink,
        guard: Guard,
    ) -> str | None:
        """Make one request; return where it redirects to, None when the sink has the body.

        Raises what the sink raises, and what `Engine.fetch` does.
        """
        self._aim(address, headers, proxy)
        self.spoilt = self.spoilt or self._has_more(guard)
        self._easy.setopt(pycurl.FRESH_CONNECT, int(self.spoilt))
        answer = Answer(address, sink, self._timing, guard)
        with guard.waking(self._bell.ring):
            code = self._carry_out(answer, secure=address.origin.startswith("https:"))
        try:
            if answer.failure is not None:
                raise answer.failure
        finally:
            answer.failure = None  # its traceback holds the answer, and with it the sink
        guard.check()
        self._answered_at = time.monotonic()
        if answer.location is not None:
            return answer.location
        if code != pycurl.E_OK and not answer.has_enough:
            raise self._failure_of(code, address, proxy, answer)
        if not answer.begun:
            raise self._failure_of(pycurl.E_GOT_NOTHING, address, proxy, answer)
        return None

    def _has_more(self, guard: Guard) -> bool:
        """Tell whether more has come than the last answer, or the end; libcurl does not look."""
        if self._kept < 0:
            return False
        poll, left = select.poll(), self._answered_at + QUIET_SECONDS - time.monotonic()
        poll.register(self._kept, select.POLLIN)
        with guard.away if left > 0 else contextlib.nullcontext():
            return bool(poll.poll(max(0, math.ceil(left * 1000))))

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

    def _failure_of(
        self, code: int, address: Address, proxy: str | None, answer: Answer
    ) -> Exception:
        if code in NOT_TRUSTED:
            with waits(self._timing.connect_seconds, answer.guard.check, answer.guard.away):
                return untrusted(address, proxy)
        return failure_of(code, self._easy, address, self._timing, connected=answer.connected)

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

    def _carry_out(self, answer: Answer, *, secure: bool) -> int:
        """Run the request to its end; return libcurl's code for it.

        What comes beyond an answer without TLS libcurl sees by itself.
        """

        def on_connected(*given: Any) -> int:  # noqa: ANN401 - their port and ours are the last
            if secure:
                self._received = received_bytes({self._kept, *self._open}, given[-1])
            return answer.on_connected()

        self._easy.setopt(pycurl.PREREQFUNCTION, on_connected)
        self._easy.setopt(pycurl.HEADERFUNCTION, answer.on_header)
        self._easy.setopt(pycurl.WRITEFUNCTION, answer.on_body)
        self._multi.add_handle(self._easy)
        try:
            while self._step(answer):
                pass
            _, _, failed = self._multi.info_read()
            return failed[0][1] if failed else pycurl.E_OK
        finally:
            # What is under way is cut off, and its connection closed.
            self._kept = self._easy.getinfo(pycurl.ACTIVESOCKET)
            self.spoilt = self.spoilt or (secure and self._has_hidden(answer.body_bytes))
            self._multi.remove_handle(self._easy)
            self.stuck = not answer.connected and not self._easy.getinfo(pycurl.NAMELOOKUP_TIME)
            for callback in (pycurl.PREREQFUNCTION, pycurl.HEADERFUNCTION, pycurl.WRITEFUNCTION):
                self._easy.setopt(callback, _ignore)

    def _step(self, answer: Answer) -> bool:
        """Wait for what comes next, and have libcurl deal with it; False when all is done."""
        until = answer.check()
        now, timer_at = time.monotonic(), self._timer_at
        if timer_at is not None and timer_at <= now:
            self._timer_at = None
            _, running = self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        else:
            if timer_at is not None:
                until = min(until, timer_at)
            running = 1
            answer.guard.allow(until - now)
            with answer.guard.away:
                events = self._poll.poll(max(0, math.ceil((until - now) * 1000)))
            for descriptor, event in events:
                if descriptor == self._bell.descriptor:
                    self._bell.hush()
                    continue
                answer.heard()
                _, running = self._multi.socket_action(descriptor, _actions(event))
        if answer.failure is None:
            answer.hand_on()
        return bool(running) and not answer.has_enough

    def _on_socket(self, event: int, descriptor: int, *_: object) -> None:
        """Note what libcurl waits for on a descriptor."""
        if event == pycurl.POLL_REMOVE:
            self._open.discard(descriptor)
            with contextlib.suppress(KeyError):
                self._poll.unregister(descriptor)
            return
        self._open.add(descriptor)
        wanted = select.POLLIN if event & pycurl.POLL_IN else 0
        self._poll.register(descriptor, wanted | (select.POLLOUT if event & pycurl.POLL_OUT else 0))

    def _on_timer(self, milliseconds: int) -> None:
        """Note when libcurl wants to be called again, whatever comes."""
        self._timer_at = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


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


def _actions(event: int) -> int:
    """Return what an event of `poll` is in libcurl's words."""
    return (
        (pycurl.CSELECT_IN if event & _READABLE else 0)
        | (pycurl.CSELECT_OUT if event & select.POLLOUT else 0)
        | (pycurl.CSELECT_ERR if event & _BROKEN else 0)
    )


def _ignore(*_: object) -> int:
    """Stand in for a callback between requests, so that no handle holds on to a sink."""
    return 0
