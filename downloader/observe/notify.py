"""What a service manager is told of this process, by the protocol of sd_notify(3).

A datagram of `NAME=value` lines to the socket that the environment names: less than what a
package for it brings along (systemd-python and cysystemd want a compiler, sdnotify is of 2017).
"""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING, Final, Self

from downloader.logger import get_logger
from downloader.rules.redaction import redact_text

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from downloader.observe.progress import Snapshot

_log = get_logger(__name__)

_MICROSECONDS: Final = re.compile(r"0*[1-9][0-9]{0,17}")

_SEND_SECONDS: Final = 1.0
"""How long a manager whose socket is full is waited for."""


class Notifier:
    """Tells the manager at `address`, a path or `@` and an abstract name; None tells nobody.

    `watchdog_seconds` is how often the manager wants a sign of life at least, if it does.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self.is_on = address is not None
        self.alive_every_seconds = None if watchdog_seconds is None else watchdog_seconds / 2
        self._address = address or ""
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._socket: socket.socket | None = None
        if self.is_on:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(_SEND_SECONDS)
        self.refusal = ""
        """What stands before each status from now on: why a configuration was not taken."""
        self._status = ""
        self._stopping = self._failed = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """Take the manager's wishes out of an environment: they are not for our children.

        Sources: sd_notify(3), sd_watchdog_enabled(3).
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        meant_for = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        if not address:
            return cls()
        if not address.startswith(("/", "@")):
            hint = "NOTIFY_SOCKET is neither a path nor an @name: nobody is told"
            _log.warning("manager.unknown_socket", hint=hint)
            return cls()
        if not _MICROSECONDS.fullmatch(microseconds) or meant_for != str(os.getpid()):
            return cls(address)
        return cls(address, int(microseconds) / 1e6)

    def ready(self, status: str) -> None:
        """Tell that the service does its work, now or again after `reloading`."""
        if not self._stopping:
            self._send("READY=1", self._changed(status))

    def status(self, text: str) -> None:
        """Tell in a line how it stands, unless that was told last."""
        self._send(self._changed(text))

    def reloading(self) -> None:
        """Tell that the configuration is being read again; `ready` ends that."""
        if not self._stopping:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, status: str) -> None:
        """Tell that the service is about to end; nothing takes that back."""
        if not self._stopping:
            self._stopping = True
            self._send("STOPPING=1", self._changed(status))

    def alive(self) -> None:
        """Give a sign of life, for the watchdog."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()

    def _changed(self, status: str) -> str:
        # One line, whatever a server's words in it are: a second would be a message of its own.
        text = " ".join(redact_text(status).split())
        if self.refusal and not self._stopping:
            text = f"{' '.join(redact_text(self.refusal).split())}; {text}"
        if text == self._status:
            return ""
        self._status = text
        return f"STATUS={text}"

    def _send(self, *lines: str) -> None:
        message = "\n".join(filter(None, lines))
        if self._socket is None or not message:
            return
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:  # the service goes on, whoever does not listen
            if not self._failed:
                _log.warning("manager.unreachable", error=error.strerror or "it takes no messages")
            self._failed = True
        else:
            self._failed = False


def status_line(snapshot: Snapshot) -> str:
    """Return in a line where a service stands; `saved` and `failed` count since its start."""
    failed = f", {snapshot.failed} failed" if snapshot.failed else ""
    line = (
        f"{snapshot.done} saved{failed} since the start, {snapshot.unfinished} unfinished, "
        f"{snapshot.transferring} transferring"
    )
    if snapshot.blocked is None:
        return line
    return f"blocked ({snapshot.blocked}): {snapshot.blocked_why or ''} {line}"
