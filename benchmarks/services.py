"""What both sides talk to: nginx as the storage, over TLS, and the API."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trustme

from benchmarks import children, machine
from benchmarks.api import presigned
from benchmarks.errors import BenchmarkError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from benchmarks.audio import AudioSet

WORKERS: Final = 2
FIRST_BYTE_SECONDS: Final = 0.050
BYTES_A_SECOND: Final = 20_000_000
PACED: Final = "/paced"

_START_SECONDS: Final = 20.0
_ROOT: Final = Path(__file__).resolve().parent

_CONFIGURATION: Final = """\
{modules}
{user}
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    types {{ audio/wav wav; }}
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        ssl_protocols TLSv1.3;
        ssl_session_cache shared:tls:10m;
        root {root};
        {paced}
    }}
}}
"""

_PACED: Final = """\
location ~ ^{prefix}/(?<paced_name>[^/]+/[^/]+)$ {{
            set $paced_file {root}/$paced_name;
            set $first_byte_seconds {first_byte_seconds};
            set $bytes_a_second {bytes_a_second};
            content_by_lua_file {script};
        }}"""


@dataclass(frozen=True, slots=True)
class Storage:
    """The storage while it serves: its origin, and the file of the CA that vouches for it."""

    origin: str
    ca_file: Path

    def url(self, audio: AudioSet, run_id: int, *, paced: bool = False) -> str:
        """Return the URL of a file, as the API would give it."""
        return presigned(self.origin + (PACED if paced else ""), audio.name, run_id)


@contextlib.contextmanager
def storage(folder: Path, root: Path, *, paced: bool = False) -> Iterator[Storage]:
    """Serve the files below `root` by nginx over TLS 1.3, from a folder of its own.

    With `paced` what is under /paced comes at a set pace, by nginx's Lua module.

    Raises:
        BenchmarkError: it does not start.

    """
    folder.mkdir()
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        folder / "server.pem"
    )
    port = _free_port()
    modules = paced_location = ""
    if paced:
        lua = machine.lua_module()
        if lua is None:
            raise BenchmarkError(f"missing: {machine.LUA_PACKAGE}")
        modules = f"load_module {lua.with_name('ndk_http_module.so')};\nload_module {lua};"
        paced_location = _PACED.format(
            prefix=PACED,
            root=root,
            script=_ROOT / "paced.lua",
            first_byte_seconds=FIRST_BYTE_SECONDS,
            bytes_a_second=BYTES_A_SECOND,
        )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            modules=modules,
            user="user root;" if os.geteuid() == 0 else "",
            workers=WORKERS,
            folder=folder,
            port=port,
            root=root,
            paced=paced_location,
        ),
        "utf-8",
    )
    command = [machine.find("nginx") or "nginx", "-p", str(folder), "-c", str(configuration)]
    log = folder / "said"
    environment = children.plain_environment(folder)
    with children.serving(command, folder=folder, environment=environment, log=log) as process:
        _wait(process, "nginx", log, lambda: _accepts(port))
        yield Storage(f"https://127.0.0.1:{port}", ca_file)


class Api:
    """The API while it serves: its base URL, and how often it was asked."""

    def __init__(self, origin: str) -> None:
        self.origin: Final = origin

    def base(self, audio: AudioSet, *, one_file: bool = False) -> str:
        """Return the base URL whose runs have the files of a set, or all its first one."""
        return f"{self.origin}/{'one-' if one_file else ''}{audio.name}"

    def requests(self) -> int:
        """Return how many requests were made so far."""
        parts = urlsplit(self.origin)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/_requests")
            found = json.loads(connection.getresponse().read())
        return int(found["requests"])


@contextlib.contextmanager
def api(folder: Path, origin: str, *, delay_seconds: float = 0.0) -> Iterator[Api]:
    """Serve the API in a process of its own; its URLs begin with `origin`.

    Raises:
        BenchmarkError: it does not start.

    """
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.api", "--storage", origin]
    command += ["--delay", str(delay_seconds)]
    log = folder / "said"
    environment = children.plain_environment(folder)
    with children.serving(
        command, folder=_ROOT.parent, environment=environment, log=log
    ) as process:
        _wait(process, "the API", log, lambda: log.read_text("utf-8").endswith("\n"))
        yield Api(log.read_text("utf-8").strip())


def fetch_seconds(url: str, ca_file: Path, expected_bytes: int) -> tuple[float, float]:
    """Fetch a URL alone; return the seconds to the first byte of the answer, and to the last.

    Counted from when the request is sent, on a connection that is there already.

    Raises:
        BenchmarkError: the answer is not the whole file.

    """
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=ca_file)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, context=context, timeout=30
    )
    with contextlib.closing(connection):
        connection.connect()
        started = time.monotonic()
        connection.request("GET", f"{parts.path}?{parts.query}")
        response = connection.getresponse()
        first = time.monotonic() - started
        received = len(response.read())
        last = time.monotonic() - started
    if response.status != 200 or received != expected_bytes:
        raise BenchmarkError(f"the storage answered {response.status}, {received} bytes")
    return first, last


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _wait(
    process: subprocess.Popen[bytes], name: str, log: Path, ready: Callable[[], bool]
) -> None:
    """Wait until a server is ready."""
    ends_at = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > ends_at:
            said = log.read_text("utf-8", "replace").strip()
            raise BenchmarkError(f"{name} does not start: {said}")
        time.sleep(0.02)
