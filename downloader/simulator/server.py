"""Running a simulator: a listener for the API, one or two for the storage, in one thread."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import sys
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import uvicorn

from downloader.simulator.api import PREFIX
from downloader.simulator.audio import audio_file, audio_name
from downloader.simulator.catalogue import Place
from downloader.simulator.errors import SimulatorError
from downloader.simulator.front import Front
from downloader.simulator.listening import BACKLOG, Listener
from downloader.simulator.options import SimulatorOptions, loopback
from downloader.simulator.rules import Rule
from downloader.simulator.state import SimulatorState
from downloader.simulator.storage import Storage
from downloader.simulator.wire import WireProtocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import FrameType, TracebackType

    from downloader.simulator.certificates import Authority

_KEEP_ALIVE_SECONDS: Final = 30


class Simulator:
    """A local stand-in for the service, running while it is used as a context manager.

    It runs in a daemon thread of this process. `port` and `storage_port` 0 take free ones. With
    a certificate both origins are https, and the storage is by http too, where redirects may
    lead. `https` is a file: an authority is made, whose certificate goes there, and https served
    by it. Raises `SimulatorError` where it cannot be started.
    """

    def __init__(
        self,
        options: SimulatorOptions | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
        certfile: Path | None = None,
        keyfile: Path | None = None,
        https: Path | None = None,
    ) -> None:
        self._authority = _authority(host, https, certfile) if https else None
        self._state = SimulatorState(
            options or SimulatorOptions(), has_authority=self._authority is not None
        )
        self._host = host
        self._address = loopback(host)
        self._ports: tuple[int, ...] = (port, storage_port)
        if keyfile is not None and certfile is None:
            raise SimulatorError("a key file is of use only with its certificate")
        self._certfile, self._keyfile = certfile, keyfile
        self._is_https = certfile is not None or https is not None
        if self._is_https:
            self._ports = (port, storage_port, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listeners: list[Listener] = []

    @property
    def api_url(self) -> str:
        """The base URL of the API, for `--api-url`."""
        return f"{self._state.api_origin}{PREFIX}"

    @property
    def storage_url(self) -> str:
        """The origin of the storage; another one than the API's."""
        return self._state.storage_origin

    @property
    def control_url(self) -> str:
        """Where the simulator is asked about itself: `/stats`, `/reset`, `/rules`."""
        return f"{self._state.api_origin}/_simulator"

    @property
    def options(self) -> SimulatorOptions:
        """The options in force."""
        return self._state.options

    def set_options(self, options: SimulatorOptions) -> None:
        """Go on with other options, and with their rules, counted from zero."""
        self._state.set_options(options)

    def set_rules(self, rules: Sequence[Rule] | Sequence[dict[str, Any]]) -> None:
        """Go on with other rules, counted from zero; takes what a rule file holds, too."""
        parsed = [rule if isinstance(rule, Rule) else Rule.parse(rule) for rule in rules]
        self._state.set_rules(parsed)

    def stats(self) -> dict[str, Any]:
        """All counters: the same as `GET {control_url}/stats`."""
        return self._state.stats.snapshot()

    def reset_stats(self) -> None:
        """Count from zero."""
        self._state.stats.reset()

    def audio(
        self,
        run_id: int,
        run_type: str = "text-to-sound",
        *,
        version: int = 1,
        streamed: bool = False,
    ) -> bytes:
        """Return the truth: the whole file of this run; `version`, `streamed` as in the faults."""
        name = audio_name(self._state.options, run_type, run_id, version=version, streamed=streamed)
        file = audio_file(name)
        return b"".join(file.read(0, file.size))

    def __enter__(self) -> Self:
        sockets = self._bind()
        started: Future[None] = Future()
        try:
            served = [
                (self._config(place), place, bound)
                for place, bound in zip((*Place, None), sockets, strict=False)
            ]
            self._thread = threading.Thread(
                target=self._run, args=(served, started), name="simulator", daemon=True
            )
            self._thread.start()
            started.result()
        except BaseException:
            for listening in sockets:
                listening.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._thread is not None:
            for listener in self._listeners:
                self._loop.call_soon_threadsafe(listener.stop)
            self._thread.join()

    def _bind(self) -> list[socket.socket]:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        sockets: list[socket.socket] = []
        for port in self._ports:
            try:
                bound = socket.create_server((self._address, port), family=family, backlog=BACKLOG)
            except (OSError, OverflowError) as error:
                for other in sockets:
                    other.close()
                reason = getattr(error, "strerror", None) or error
                raise SimulatorError(
                    f"cannot listen on {self._host} port {port}: {reason}"
                ) from error
            sockets.append(bound)
        schemes = ("https", "https", "http") if self._is_https else ("http", "http")
        host = f"[{self._host}]" if ":" in self._host else self._host
        origins = [
            f"{scheme}://{host}:{bound.getsockname()[1]}"
            for scheme, bound in zip(schemes, sockets, strict=True)
        ]
        state = self._state
        state.api_origin, state.storage_origin, state.plain_origin = *origins[:2], origins[-1]
        return sockets

    def _config(self, place: Place | None) -> uvicorn.Config:
        state, secured = self._state, self._certfile if place else None
        config = uvicorn.Config(
            Front(state) if place is Place.API else Storage(state),
            http=WireProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            ssl_certfile=secured,
            ssl_keyfile=self._keyfile if secured else None,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise SimulatorError(f"cannot use certificate {self._certfile}: {error}") from error
        if self._authority is not None and place is not None:
            config.ssl = self._authority.context(partial(_wrong_certificate, state, place))
        return config

    def _run(
        self,
        served: list[tuple[uvicorn.Config, Place | None, socket.socket]],
        started: Future[None],
    ) -> None:
        try:
            asyncio.run(self._serve(served, started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(
        self,
        served: list[tuple[uvicorn.Config, Place | None, socket.socket]],
        started: Future[None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_without_broken_connections)
        self._listeners = [
            Listener(config, self._state, place, bound) for config, place, bound in served
        ]
        async with asyncio.TaskGroup() as group:
            for listener in self._listeners:
                group.create_task(listener.serve())
            for listener in self._listeners:
                await listener.ready.wait()
            started.set_result(None)


def _authority(host: str, path: Path, certfile: Path | None) -> Authority:
    """Make an authority, and tell of it in a file."""
    if certfile is not None:
        raise SimulatorError("a certificate is given, or made: not both")
    loopback(host)
    try:
        from downloader.simulator.certificates import Authority  # noqa: PLC0415 - few want it
    except ImportError as error:
        raise SimulatorError("certificates are made by trustme: pip install trustme") from error
    authority = Authority(host)
    authority.write(path)
    return authority


def _wrong_certificate(state: SimulatorState, place: Place) -> str | None:
    """Return what is to be wrong with the certificate now; None: nothing."""
    fault = state.connection_fault(place)
    return fault.text("what") if fault and fault.kind == "certificate" else None


def _without_broken_connections(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what goes wrong in the event loop, but for what faults and clients do to it."""
    if not isinstance(context.get("exception"), OSError):  # ssl.SSLError is one too
        loop.default_exception_handler(context)


def serve(
    options: SimulatorOptions,
    host: str = "127.0.0.1",
    port: int = 0,
    storage_port: int = 0,
    *,
    certfile: Path | None = None,
    keyfile: Path | None = None,
    https: Path | None = None,
) -> None:
    """Run a simulator until SIGINT or SIGTERM, for the command line.

    Prints the addresses when it is ready, one a line. Call it in the main thread.
    """
    stop = threading.Event()

    def finish(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, finish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Simulator(
            options,
            host=host,
            port=port,
            storage_port=storage_port,
            certfile=certfile,
            keyfile=keyfile,
            https=https,
        ) as simulator:
            sys.stdout.write(
                f"API: {simulator.api_url}\n"
                f"Storage: {simulator.storage_url}\n"
                f"Statistics: {simulator.control_url}/stats\n"
                "Ready. Ctrl+C stops it.\n"
            )
            sys.stdout.flush()
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
