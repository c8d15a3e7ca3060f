"""Servers that speak exact bytes, and a sink that keeps what it is given."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self

from downloader.transfer.guard import Guard

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType

    from downloader.transfer.engine import Engine

# SO_LINGER on, for 0 seconds: closing sends RST instead of FIN.
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
_END_SECONDS: Final = 10


class Peer:
    """One connection to a `RawServer`, as its script sees it."""

    def __init__(self, server: RawServer, connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self._received = b""

    def request(self) -> bytes | None:
        """Read one request's head, without its last empty line; None at the end."""
        while b"\r\n\r\n" not in self._received:
            chunk = self._connection.recv(65536)
            if not chunk:
                return None
            self._received += chunk
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        self._server.requests.append(head)
        return head

    def body(self, size: int) -> bytes:
        """Read a request's body."""
        while len(self._received) < size:
            chunk = self._connection.recv(65536)
            assert chunk, "the request's body breaks off"
            self._received += chunk
        body, self._received = self._received[:size], self._received[size:]
        return body

    def send(self, *data: bytes) -> None:
        """Send bytes as they are."""
        for piece in data:
            self._connection.sendall(piece)

    def stall(self) -> None:
        """Send nothing more, and stay until the client goes or the server ends."""
        with contextlib.suppress(OSError):
            while self._connection.recv(65536):
                pass
        self._server.deserted.set()

    def reset(self) -> None:
        """Close by RST."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._connection.close()

    def tunnel(self, port: int) -> None:
        """Pass bytes to and from a port of this machine until either end closes."""
        with socket.create_connection(("127.0.0.1", port)) as other:
            back = threading.Thread(target=_pass_on, args=(other, self._connection), daemon=True)
            back.start()
            _pass_on(self._connection, other)
            back.join(_END_SECONDS)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


Script = Callable[[Peer], None]


class RawServer:
    """A server on loopback that runs a script for each connection, in a thread of its own.

    `requests` are the heads that came, byte for byte; `connections` counts connections,
    `closed` those that were closed since; `deserted` is set when a client leaves a script that
    stalls.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.deserted = threading.Event()
        self.closed = threading.Semaphore(0)
        self._script = script
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._failures: list[BaseException] = []
        self.port: int = self._listening.getsockname()[1]

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(_END_SECONDS)
        for one in self._open:
            with contextlib.suppress(OSError):
                # On the plain socket: TLS's own shutdown would wait for the peer.
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._listening.close()
        if self._failures:
            raise self._failures[0]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            # A body and its head go out as two segments, and a delayed ACK costs 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if self._tls is None:
                    self._script(Peer(self, connection))
                    return
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    self._open.append(secured)
                    self._script(Peer(self, secured))
        except OSError:  # the client went away: many tests are about that
            pass
        except BaseException as failure:  # noqa: BLE001 - told when the server ends
            self._failures.append(failure)
        finally:
            self.closed.release()


def answering(*answers: bytes) -> Script:
    """Answer one request after another in turn, and with the last answer from then on."""
    turns = itertools.count()

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(answers[min(next(turns), len(answers) - 1)])

    return script


def ok(body: bytes = b"", **headers: str) -> bytes:
    """Return a whole answer with a length."""
    return head(200, content_length=str(len(body)), **headers) + body


def head(status: int, **headers: str) -> bytes:
    """Return an answer's status line and headers; `_` in a name stands for a hyphen."""
    lines = [f"HTTP/1.1 {status} Whatever"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def fields(request: bytes) -> dict[str, str]:
    """Return the header fields of a request's head, names in lower case."""
    lines = request.decode("latin-1").split("\r\n")[1:]
    pairs = [line.split(": ", 1) for line in lines]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "a header was sent twice"
    return {name.lower(): value for name, value in pairs}


@dataclass
class Collected:
    """A sink that keeps everything, and wants no more than `wanted` bytes."""

    wanted: int | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    received: bytearray = field(default_factory=bytearray)
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set when the first bytes of the body have come."""

    @property
    def body(self) -> bytes:
        """All bytes of the body so far."""
        return bytes(self.received)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Keep status and headers."""
        assert self.status is None, "begin was called twice"
        self.status, self.headers = status, headers

    def write(self, chunk: bytes) -> bool:
        """Keep bytes of the body."""
        assert self.status is not None, "bytes came before the headers"
        assert chunk, "an empty chunk says nothing"
        self.received += chunk
        self.arrived.set()
        return self.wanted is None or len(self.received) < self.wanted


def fetch(
    engine: Engine,
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    wanted: int | None = None,
    guard: Guard | None = None,
) -> Collected:
    """Fetch a URL whole, and return what came."""
    sink = Collected(wanted)
    fetch_into(engine, url, sink, guard, headers)
    return sink


class Sink(Protocol):
    """What takes an answer."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take status and headers."""

    def write(self, chunk: bytes) -> bool:
        """Take bytes of the body; False says that no more are wanted."""


class _Waited:
    """A fetch whose end is waited for."""

    def __init__(self, url: str, headers: Mapping[str, str], sink: Sink, guard: Guard) -> None:
        self.url, self.guard = url, guard
        self.begin, self.write = sink.begin, sink.write
        self._headers = headers
        self._error: BaseException | None = None
        self._over = threading.Semaphore(0)

    def ask(self) -> Mapping[str, str]:
        return self._headers

    def ended(self, error: BaseException | None) -> None:
        self._error = error
        self._over.release()

    def wait(self) -> None:
        self._over.acquire()
        assert not self._over.acquire(blocking=False), "it has ended twice"
        if self._error is not None:
            raise self._error


def fetch_into(
    engine: Engine,
    url: str,
    sink: Sink,
    guard: Guard | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Fetch a URL into a sink; return, or raise, when that has ended."""
    waited = _Waited(url, headers or {}, sink, guard or Guard(60))
    engine.start(waited)
    waited.wait()


def unused_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
