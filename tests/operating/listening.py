"""A service manager's end of the notify socket, as systemd has it: a real datagram socket."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Told:
    """What a process has told, and when by the monotonic clock."""

    address: str
    messages: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """Return the values that a field was told with, oldest first."""
        return [message[name] for _, message in list(self.messages) if name in message]

    def times(self, name: str) -> list[float]:
        """Return when a field was told."""
        return [at for at, message in list(self.messages) if name in message]

    def order(self) -> list[str]:
        """Return the first names of the messages but for those that only tell of life or state."""
        found = [next(iter(message)) for _, message in list(self.messages)]
        return [name for name in found if name not in ("WATCHDOG", "STATUS")]


@contextlib.contextmanager
def listening(folder: Path, *, abstract: bool = False) -> Iterator[Told]:
    """Listen at a path in a folder, or at an abstract name, which only Linux has."""
    name = f"downloader-{os.getpid()}-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        end = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        if abstract:
            told = Told(f"@{name}")
            end.bind(f"\0{name}")
        else:
            with contextlib.chdir(folder):  # the path of a socket must be short
                end.bind(name[-40:])
            told = Told(str(folder / name[-40:]))
        reading = threading.Thread(target=_read, args=(end, told))
        reading.start()
        try:
            yield told
        finally:
            end.shutdown(socket.SHUT_RD)
            reading.join()


def _read(end: socket.socket, told: Told) -> None:
    while message := end.recv(65536):
        lines = message.decode().split("\n")
        fields = dict(line.split("=", 1) for line in lines)
        told.messages.append((time.monotonic(), fields))
