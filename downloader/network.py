"""Connections for httpcore: addresses raced, waits that a stop ends, answers kept apart.

A server may say more than it was asked for: what is left over on a connection, or comes before a
request can have reached the other end, is no answer to it. Such a connection is not used again, and
neither is one that the server has closed meanwhile: httpcore then takes another, as if this one had
never been there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import math
import os
import re
import select
import socket
import ssl
import stat
import struct
import sys
import termios
import threading
import time
from enum import Enum
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import httpcore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

ATTEMPT_DELAY_SECONDS: Final = 0.25
"""After which the next address is tried beside those before it (RFC 8305, section 5)."""

QUIET_SECONDS: Final = 0.01
"""How long nothing more has to come after an answer that does not tell what it is of, before the
next request goes out on the same connection: a server that answers twice does so at once."""

_STEP_SECONDS: Final = 0.1  # how late a stop is heard
_TLS_BYTES: Final = 64 * 1024
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")


def _go_on() -> None:
    """Find nothing that speaks against waiting on."""


class _Thread(threading.local):
    ours = False
    due: float | None = None
    answer_seconds: float | None = None
    check: Callable[[], None] = staticmethod(_go_on)
    unnamed: Unnamed | None = None


_thread: Final = _Thread()


class Unnamed(Enum):
    """What keeps answers apart that do not tell what they are of."""

    QUIET = "quiet"  # `QUIET_SECONDS` before each
    ONCE = "once"  # a connection is used for one of them, however late a second comes


def is_ours() -> bool:
    """Tell whether this thread is within `waits`."""
    return _thread.ours


@contextlib.contextmanager
def waits(
    answer_seconds: float,
    check: Callable[[], None] = _go_on,
    *,
    unnamed: Unnamed | None = None,
) -> Iterator[None]:
    """Say how long this thread's requests wait: for each answer so long after its request went out.

    A time-out on silence alone never ends an answer that comes a byte at a time, nor one of
    nothing but interim answers (status 100 to 199). Every wait, also for a name or a connection,
    ends within a tenth of a second where `check` raises.

    `unnamed` says what is done where an answer does not tell what it is of, so that a second
    answer to a request is not taken for that to another.
    """
    _thread.ours, _thread.due, _thread.answer_seconds = True, None, answer_seconds
    _thread.check, _thread.unnamed = check, unnamed
    try:
        yield
    finally:
        vars(_thread).clear()


def expect_within(seconds: float) -> None:
    """Let this thread's reads go on for so many seconds from now: for the next piece of a body."""
    _thread.due = time.monotonic() + seconds


# ----------------------------------------------------------------------------- to connect


def connect(
    host: str, port: int, timeout: float | None = None, options: Iterable[Any] = ()
) -> socket.socket:
    """Return a socket, non-blocking, that is connected to the first address that takes it.

    The addresses are tried by turns of IPv6 and IPv4, each a quarter of a second after the one
    before, or as soon as that has failed (RFC 8305, "happy eyeballs"). `timeout` is for all of
    it, the look-up of the name too.

    Raises:
        TimeoutError: no address took a connection in time.
        OSError: the name is not known, or no address takes connections.

    """
    until = _until(timeout)
    return _race(_by_turns(_looked_up(host, port, until)), until, options)


def _looked_up(host: str, port: int, until: float) -> list[Any]:
    """Look a name up, in a thread of its own: nothing ends a look-up that has begun."""
    with contextlib.suppress(socket.gaierror, UnicodeError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: SimpleQueue[list[Any] | Exception] = SimpleQueue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            found.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    while True:
        try:
            answer = found.get(timeout=_step(until))
        except Empty:
            continue
        if isinstance(answer, Exception):
            raise answer
        return answer


def _by_turns(found: list[Any]) -> list[Any]:
    """Sort addresses: the system's order, but the two families by turns (RFC 8305, section 4)."""
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    return [one for pair in itertools.zip_longest(first, others) for one in pair if one]


def _race(addresses: list[Any], until: float, options: Iterable[Any]) -> socket.socket:
    trying: dict[int, socket.socket] = {}
    poll, next_at, failure = select.poll(), 0.0, OSError("it has no address")
    try:
        while addresses or trying:
            wait = _step(until)
            if addresses and (not trying or time.monotonic() >= next_at):
                next_at = time.monotonic() + ATTEMPT_DELAY_SECONDS
                try:
                    begun = _begin(addresses.pop(0), options)
                except OSError as error:
                    if error.errno in _OUT_OF_FILES:
                        raise
                    failure = error
                    continue
                trying[begun.fileno()] = begun
                poll.register(begun, select.POLLOUT)
            if addresses:
                wait = max(0.0, min(wait, next_at - time.monotonic()))
            for descriptor, _ in poll.poll(math.ceil(wait * 1000)):
                poll.unregister(descriptor)
                tried = trying.pop(descriptor)
                number = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not number:
                    return tried
                tried.close()
                failure, next_at = OSError(number, os.strerror(number)), 0.0
        raise failure
    finally:
        for left in trying.values():
            left.close()


def _begin(address: tuple[Any, ...], options: Iterable[Any]) -> socket.socket:
    """Begin to connect to an address, as `getaddrinfo` gives it."""
    family, kind, protocol, _, place = address
    begun = socket.socket(family, kind, protocol)
    try:
        begun.settimeout(0)
        for option in (*options, (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)):
            begun.setsockopt(*option)
        with contextlib.suppress(BlockingIOError):
            begun.connect(place)
    except BaseException:
        begun.close()
        raise
    return begun


# -------------------------------------------------------------------------------- to wait


def _until(timeout: float | None) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout


def _step(until: float) -> float:
    """Return how long to wait before the next look; raise where there is nothing to wait for."""
    _thread.check()
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return min(left, _STEP_SECONDS)


def _wait(waited_for: socket.socket, event: int, until: float) -> None:
    poll = select.poll()
    poll.register(waited_for, event)
    while not poll.poll(math.ceil(_step(until) * 1000)):
        pass


def received_bytes(descriptors: set[int], our_port: int | None) -> int | None:
    """Return how many bytes the connection with our port has received; only Linux tells.

    Source: `tcpi_bytes_received` of `TCP_INFO`, tcp(7).
    """
    if sys.platform != "linux":
        return None
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # none, or no longer one
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):  # libcurl has some of its own
                continue
            # Told what it is, Python asks the system for none of that.
            one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
            try:
                if our_port is not None and one.getsockname()[1] != our_port:
                    continue
                told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
            finally:
                one.detach()  # it is not ours to close
            return int.from_bytes(told[128:136], sys.byteorder) if len(told) == 136 else None
    return None


class Wire(Protocol):
    """What bytes go through: TCP, or TLS on top of another; times are of the monotonic clock."""

    socket: socket.socket

    def receive(self, size: int, until: float) -> bytes:
        """Return bytes, at most `size`; none at the end."""

    def send(self, data: bytes, until: float) -> None:
        """Send all of it."""

    def is_early(self, until: float) -> bool:
        """Wait for bytes; tell whether they were sent before any of ours had come there."""

    def is_quiet(self) -> bool:
        """Tell whether nothing has come, not even the end."""


class Tcp:
    """A connection by itself."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._unanswered = 0  # bytes that went out since something came in

    def receive(self, size: int, until: float) -> bytes:
        """Return bytes; see `Wire`."""
        while True:
            try:
                came = self.socket.recv(size)
            except BlockingIOError:
                _wait(self.socket, select.POLLIN, until)
                continue
            self._unanswered = 0
            return came

    def send(self, data: bytes, until: float) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            try:
                sent = self.socket.send(left)
            except BlockingIOError:
                _wait(self.socket, select.POLLOUT, until)
            else:
                self._unanswered += sent
                left = left[sent:]

    def is_early(self, until: float) -> bool:
        """Wait for bytes; tell whether they were sent before any of ours had come there.

        TCP acknowledges with every segment, so that they were where all of ours is still waited
        for. Only Linux tells.
        """
        if sys.platform != "linux" or not self._unanswered:
            return False
        with contextlib.suppress(OSError):
            _wait(self.socket, select.POLLIN, until)
            (waited_for,) = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"0000"))
            return bool(waited_for >= self._unanswered)
        return False

    def is_quiet(self) -> bool:
        """Tell whether nothing has come, not even the end."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False


class Tls:
    """TLS, of which the standard library's own socket can neither be woken nor put on another."""

    def __init__(
        self, beneath: Wire, context: ssl.SSLContext, name: str | None, until: float
    ) -> None:
        self.socket = beneath.socket
        self._beneath = beneath
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._carry_out(until, self.tls.do_handshake)

    def receive(self, size: int, until: float) -> bytes:
        """Return bytes; see `Wire`."""
        try:
            return self._carry_out(until, self.tls.read, size)
        except ssl.SSLEOFError:  # as the standard library has it: many servers just hang up
            return b""

    def send(self, data: bytes, until: float) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            left = left[self._carry_out(until, self.tls.write, left) :]

    def is_early(self, until: float) -> bool:
        """Wait for bytes; see `Wire`."""
        return not self._incoming.pending and self._beneath.is_early(until)

    def is_quiet(self) -> bool:
        """Tell whether nothing has come but what is TLS's own, such as a session ticket."""
        try:
            while True:
                try:
                    self.tls.read(1)
                except ssl.SSLWantReadError:
                    if self._beneath.is_quiet():
                        return True
                    self._take(0)
                else:
                    return False
        except OSError:
            return False

    def _carry_out(self, until: float, call: Callable[..., T], *given: Any) -> T:  # noqa: ANN401 - the call's own
        while True:
            try:
                done = call(*given)
            except ssl.SSLWantReadError:
                self._flush(until)
                self._take(until)
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush(until)  # the other end learns why
                raise
            else:
                self._flush(until)
                return done

    def _take(self, until: float) -> None:
        came = self._beneath.receive(_TLS_BYTES, until)
        if came:
            self._incoming.write(came)
        else:
            self._incoming.write_eof()

    def _flush(self, until: float) -> None:
        if self._outgoing.pending:
            self._beneath.send(self._outgoing.read(), until)


# ----------------------------------------------------------------------------- for httpcore


class Stream(httpcore.NetworkStream):
    """A connection that hands on one answer at a time, and is used again only if that was all.

    Whatever reads answers (h11) keeps what it has read beyond the end of one for the next. So it
    is handed no more than to the end: heads and chunked bodies end with an empty line, and of
    others the length is known (`expect_body`).
    """

    def __init__(self, wire: Wire, connect_until: float = math.inf) -> None:
        self._wire = wire
        self._connect_until = connect_until
        self._came = b""  # and is not handed on
        self._handed_on = b""  # the end of it: it may be the beginning of an empty line
        self._body_left: float | None = None  # None: to an empty line
        self._is_http = False
        self._answered = False  # once at least
        self._heard_at = 0.0
        self._used_up = False  # for `Unnamed.ONCE`
        self._asking = False  # nothing has come since the request began to go out

    def expect_body(self, size: float | None) -> None:
        """Say that the head has come, and how long the body is; None: chunked."""
        self._body_left, self._answered = size, True

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has come of the answer, or wait for it.

        Raises:
            httpcore.ConnectionNotAvailable: there is no answer to be had here, but on another
                connection.

        """
        until = _until(timeout)
        if _thread.due is not None:
            until = min(until, _thread.due)
            if time.monotonic() >= until:  # what keeps coming never has to be waited for
                raise httpcore.ReadTimeout("the answer took too long")
        if not self._came:
            kept = self._asking and self._answered
            try:
                with _raised_as(httpcore.ReadTimeout, httpcore.ReadError):
                    if kept and self._wire.is_early(until):
                        raise httpcore.ConnectionNotAvailable
                    self._came = self._wire.receive(max_bytes, until)
            except httpcore.ReadError:
                if kept:
                    raise httpcore.ConnectionNotAvailable from None
                raise
            if kept and not self._came:
                raise httpcore.ConnectionNotAvailable
            self._asking, self._heard_at = False, time.monotonic()
        return self._next_piece()

    def _next_piece(self) -> bytes:
        came, end = self._came, len(self._came)
        if self._is_http and self._body_left:
            end = int(min(end, self._body_left))
            self._body_left -= end
        elif self._is_http and self._body_left is None:
            before = len(self._handed_on)
            blank = _BLANK_LINE.search(self._handed_on + came)
            if blank is not None:
                end = blank.end() - before
            self._handed_on = b"" if blank else came[-2:]
        self._came = came[end:]
        return came[:end]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it.

        Raises:
            httpcore.ConnectionNotAvailable: something has come that nobody has asked for.

        """
        if not buffer:
            return
        if not self._asking:
            if self._answered and not self._is_fit():
                raise httpcore.ConnectionNotAvailable
            self._used_up = self._used_up or _thread.unnamed is Unnamed.ONCE
            self._asking, self._body_left, self._handed_on = True, None, b""
            self._is_http = buffer[:1].isalpha()  # a method; SOCKS begins with a number
            if _thread.answer_seconds is not None:
                _thread.due = time.monotonic() + _thread.answer_seconds
        with _raised_as(httpcore.WriteTimeout, httpcore.WriteError):
            self._wire.send(buffer, _until(timeout))

    def _is_fit(self) -> bool:
        """Tell whether this connection may be used again."""
        if self._came or (self._used_up and _thread.unnamed is Unnamed.ONCE):
            return False
        left = self._heard_at + QUIET_SECONDS - time.monotonic()
        if _thread.unnamed is Unnamed.QUIET and left > 0:
            time.sleep(left)
        return self._wire.is_quiet()

    def close(self) -> None:
        """Close the connection."""
        self._wire.socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Go on in TLS."""
        until = min(_until(timeout), self._connect_until)
        try:
            with _raised_as(httpcore.ConnectTimeout, httpcore.ConnectError):
                return Stream(Tls(self._wire, ssl_context, server_hostname, until))
        except BaseException:
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's signature
        """Return the socket, or TLS's object."""
        if info == "ssl_object":
            return self._wire.tls if isinstance(self._wire, Tls) else None
        # "is_readable" too is for `write` to find out: only there nobody else may be reading.
        return self._wire.socket if info == "socket" else None


class Backend(httpcore.NetworkBackend):
    """Makes connections for httpcore."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - not asked for here
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        """Connect; `timeout` is for the look-up, TCP and TLS together."""
        until = _until(timeout)
        with _raised_as(httpcore.ConnectTimeout, httpcore.ConnectError):
            return Stream(Tcp(connect(host, port, timeout, socket_options or ())), until)

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


@contextlib.contextmanager
def _raised_as(timeout: type[Exception], other: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise other(str(error)) from error
