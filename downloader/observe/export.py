"""Telling Prometheus: at an address that it asks, and in a file that node_exporter reads."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, make_wsgi_app

from downloader.durable import replaced
from downloader.errors import ConfigurationError
from downloader.logger import get_logger
from downloader.observe.exposition import Exposition
from downloader.observe.metrics import Lookout
from downloader.observe.tally import DetailedTally
from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from downloader.observe.metrics import Figures, Live

_log = get_logger(__name__)

_WRITE_SECONDS: Final = 15.0
"""How often the file is written: Prometheus asks about as often."""

_SHUTDOWN_SECONDS: Final = 0.1
"""How soon the server notices that it is to end."""


class Export:
    """Serves metrics, writes them to a file, or both, while a service runs.

    Raises:
        ConfigurationError: the address cannot be used.

    """

    def __init__(self, *, host: str, port: int | None, textfile: Path | None) -> None:
        self.tally = DetailedTally()
        self._exposition = Exposition(self.tally)
        self._served = CollectorRegistry()
        self._served.register(self._exposition)
        ProcessCollector(registry=self._served)
        # Without the process: node_exporter has metrics of the same names, its own.
        self._written = CollectorRegistry()
        self._written.register(self._exposition)
        self._textfile = textfile
        self._lookout: Lookout | None = None
        self._ending = threading.Event()
        self._writer: threading.Thread | None = None
        self._told = False
        self._server = None if port is None else _serving(host, port, self._served)

    @property
    def url(self) -> str | None:
        """Where the metrics are served."""
        if self._server is None:
            return None
        host, port = self._server.server_address[:2]
        return f"http://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/metrics"

    def __enter__(self) -> Self:
        """Begin to answer."""
        if self._server is not None:
            _thread(self._server.serve_forever, _SHUTDOWN_SECONDS).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def begin(self, live: Callable[[], Live], figures: Callable[[], Figures]) -> None:
        """Tell of a service from now on."""
        self._lookout = Lookout(figures)
        self._exposition.watch(live, self._lookout)
        if self._textfile is not None:
            self._writer = _thread(self._write_on)
            self._writer.start()

    def end(self) -> None:
        """Write the file for the last time."""
        self._ending.set()
        if self._writer is not None:
            self._writer.join()
        # Of a call that could not begin there is nothing to tell: what was told before stays.
        if self._textfile is not None and self._lookout is not None:
            self._lookout.look_at_last()
            self._write(self._textfile)

    def _write_on(self) -> None:
        while self._textfile is not None and not self._ending.wait(_WRITE_SECONDS):
            self._write(self._textfile)

    def _write(self, path: Path) -> None:
        """Write the file, or say once why it cannot be: saving goes on all the same."""
        try:
            write_whole(path, generate_latest(self._written))
        except OSError as error:
            if not self._told:
                _log.warning(
                    "metrics.not_written",
                    path=str(path),
                    message=f"{error.strerror}; see --metrics-textfile",
                )
            self._told = True
        else:
            self._told = False


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place of what is there: whoever reads it sees the old one or the new one.

    Everybody may read it, whatever the umask: node_exporter is another user.

    Raises:
        OSError: it cannot be written; what was there before is still there.

    """
    with replaced(path, mode=0o644) as file:
        file.write(content.decode())


class _Handler(WSGIRequestHandler):
    """Answers one request, and waits for it no longer than a scrape takes."""

    timeout: ClassVar[float] = 10.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - the base's signature
        """Log nothing: who asks every few seconds is no news."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind, and ask no name server what this machine is called, as the base would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment] # text
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that has gone: the base would print a traceback."""


class _Server6(_Server):
    """The same for IPv6."""

    address_family = socket.AF_INET6


def _serving(host: str, port: int, registry: CollectorRegistry) -> WSGIServer:
    """Return a server that is bound and does not answer yet."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = _Server6 if family == socket.AF_INET6 else _Server
        return make_server(str(address[0]), port, make_wsgi_app(registry), server, _Handler)
    except (OSError, UnicodeError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "the host is no name of one"
        raise ConfigurationError(
            f"Metrics cannot be served on port {port} of {clean_text(host, 200)}: {said}. "
            "Choose another --metrics-port, or check --metrics-host."
        ) from error


def _thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    return threading.Thread(target=target, args=arguments, name="metrics", daemon=True)
